"""What is special to attentions, a function of (q, k, v): the contract they share with mixers is in test_mixers.py."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.helpers.contract import B, D, H, L, attention, attentions, heads, holey_mask, run
from tests.helpers.frozen import freeze_draws

NAMES = attentions()
# Their logits are products of operands that they make, and round to the inputs' precision as a projection does.
ROUNDED = ("linformer", "sinkhorn", "synthesizer_dense", "transformer_ls")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype_are_those_of_the_queries(name, dtype):
    out = attention(name).to(dtype)(*heads(dtype=dtype), holey_mask())
    assert out.shape == (B, H, L, D)
    assert out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_may_have_another_precision_than_the_weights(name, dtype):
    out, grads = run(attention(name), heads(dtype=dtype), holey_mask())
    for x in (out, *grads):
        assert x.dtype == dtype
        assert x.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_empty_and_single_token_sequences(name, training):
    module, qkv, mask = attention(name).train(training), heads(), holey_mask()
    mask[0] = False
    mask[1] = False
    mask[1, 5] = True
    out = module(*qkv, mask)
    assert out.isfinite().all()
    if module.identity_on_one:
        note = "A lone token does not receive its own value. If that is meant: identity_on_one = False in the class."
        torch.testing.assert_close(out[1, :, 5], qkv[2][1, :, 5], msg=lambda text: f"{note}\n{text}")
    for grad in torch.autograd.grad(out.sum(), qkv, allow_unused=True, materialize_grads=True):
        assert grad.isfinite().all()
    _, grads = run(module, qkv, mask)
    for grad in grads:
        assert grad[0].count_nonzero() == 0
        assert grad.isfinite().all()


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_close_to_float64(name, dtype, autocast):
    """Inputs are the same numbers in both runs, so that only the arithmetic differs; the budget covers every token."""
    module, mask = attention(name, budget=64, head_dim=32), holey_mask()
    module = freeze_draws(module if autocast else module.to(dtype))
    reference = freeze_draws(copy.deepcopy(module)).double()
    # Values are of order 1: an output and the weights that it is made of are rounded, each by half a step of 4 at most.
    tolerance = (64 if name in ROUNDED else 4) * torch.finfo(dtype).eps
    for scale in (1, 4, 8, 30):
        *qk, v = (x.detach() for x in heads(head_dim=32))
        rough = [x.to(dtype) for x in (*(scale * x for x in qk), v)]
        with torch.autocast("cpu", dtype, enabled=autocast):
            out = module(*rough, mask)
        assert out.dtype == dtype
        valid = mask[:, None, :, None]
        expected = torch.where(valid, reference(*(x.double() for x in rough), mask), 0)
        torch.testing.assert_close(torch.where(valid, out, 0).double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_hides_padding_that_scores_far_above_all_else(name, dtype):
    module, mask = freeze_draws(attention(name, head_dim=64).to(dtype)), holey_mask()
    # Keys of padding point where the queries do, real ones the other way: logits of 12,800 and of -12,800.
    real = [(offset + x.detach()).to(dtype) for offset, x in zip((40, -40, 0), heads(head_dim=64), strict=True)]
    valid = mask[:, None, :, None]
    quiet, loud = ([torch.where(valid, x, padding).requires_grad_() for x in real] for padding in (0, 40))
    out, grads = run(module, quiet, mask)
    loud_out, loud_grads = run(module, loud, mask)
    assert torch.equal(out, loud_out)
    assert out.isfinite().all()
    for grad, loud_grad in zip(grads, loud_grads, strict=True):
        assert torch.equal(grad, loud_grad)
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    module = attention(name)
    parameters = dict(module.named_parameters())
    out = module(*heads(), holey_mask())
    grads = torch.autograd.grad(out.square().sum(), list(parameters.values()), allow_unused=True) if parameters else []
    for parameter, grad in zip(parameters, grads, strict=True):
        assert grad is not None, parameter
        assert grad.count_nonzero() > 0, parameter


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_finite_differences(name):
    module = freeze_draws(attention(name, budget=3, head_dim=4)).double()
    if module.surrogate_gradient:
        pytest.skip("surrogate gradient, checked in the mechanism's own test")
    mask = torch.tensor([[True, False, True, True, True, True], [True, True, False, False, False, False]])
    qkv = heads(6, 2, torch.float64, 4)
    valid = mask[:, None, :, None]
    assert torch.autograd.gradcheck(lambda *x: torch.where(valid, module(*x, mask), 0), qkv, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_exact_mechanisms_equal_masked_softmax(name):
    module = attention(name)
    if not module.exact:
        pytest.skip("approximate")
    mask = holey_mask()
    q, k, v = heads(dtype=torch.float64)
    scores = (q @ k.mT / D**0.5).masked_fill(~mask[:, None, None], -torch.inf)
    expected = torch.where(mask[:, None, :, None], scores.softmax(-1) @ v, 0)
    out, _ = run(module, [q, k, v], mask)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-12)


def test_softmax_materialised_drops_attention_weights():
    rate = 0.25
    module, mask = attention("softmax_materialised", dropout=rate), torch.ones(B, L, dtype=torch.bool)
    q, k = torch.zeros(2, B, H, L, L)
    weights = module(q, k, torch.eye(L).expand(B, H, L, L), mask)  # V = I shows the weights themselves
    dropped = weights == 0
    assert abs(dropped.float().mean() - rate) < 0.02
    torch.testing.assert_close(weights[~dropped], torch.full_like(weights[~dropped], 1 / (L * (1 - rate))))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_equals_cpu(name):
    module, mask, qkv = freeze_draws(attention(name)), holey_mask(), heads()
    out, grads = run(module, qkv, mask)
    module.cuda()
    cuda_qkv = [x.detach().cuda().requires_grad_() for x in qkv]
    valid = mask[:, None, :, None].cuda()
    cuda_out = torch.where(valid, module(*cuda_qkv, mask.cuda()), 0)
    rows, columns = torch.arange(1, L + 1, device="cuda")[:, None].sin(), torch.arange(1, D + 1, device="cuda")
    cuda_grads = torch.autograd.grad(
        (cuda_out * columns * rows).sum(), cuda_qkv, allow_unused=True, materialize_grads=True
    )
    for host, device in zip([out, *grads], [cuda_out, *cuda_grads], strict=True):
        torch.testing.assert_close(device.cpu(), host, rtol=1e-3, atol=1e-3)
