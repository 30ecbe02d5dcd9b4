"""What is special to attentions, a function of (q, k, v): the contract they share with mixers is in test_mixers.py."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.contract import B, D, H, L, attention, attentions, heads, holey_mask, run
from tests.helpers.frozen import freeze_draws

NAMES = attentions()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype_are_those_of_the_queries(name, dtype):
    out = attention(name).to(dtype)(*heads(dtype=dtype), holey_mask())
    assert out.shape == (B, H, L, D)
    assert out.dtype == dtype
    assert out.isfinite().all()


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


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32(name):
    # Inputs are bfloat16 numbers in both runs, so that only the arithmetic differs; the budget covers every token.
    module, mask = freeze_draws(attention(name, budget=64)), holey_mask()
    rough = [x.detach().bfloat16() for x in heads()]
    with torch.autocast("cpu", torch.bfloat16):
        out = module(*rough, mask)
    assert out.dtype == torch.bfloat16
    reference = module(*(x.float() for x in rough), mask)
    valid = mask[:, None, :, None]
    torch.testing.assert_close(out.float() * valid, reference * valid, rtol=0.03, atol=0.03)


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
