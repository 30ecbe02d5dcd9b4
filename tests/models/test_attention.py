"""The attention contract, held by every mechanism of configs/attn."""

from __future__ import annotations

import hydra
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lra.files import ROOT
from models.attention import Attention
from tests.helpers.frozen import freeze_draws

CONFIGS = ROOT / "configs" / "attn"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))

B, H, L, D = 3, 2, 37, 8
MAX_LEN = 128


def build(name: str, budget: int = 8, head_dim: int = D, dropout: float = 0.0) -> Attention:
    config = OmegaConf.create({"budget": budget, "attn": OmegaConf.load(CONFIGS / f"{name}.yaml")})
    torch.manual_seed(0)
    return hydra.utils.instantiate(config.attn)(num_heads=H, head_dim=head_dim, max_len=MAX_LEN, dropout=dropout)


def inputs(length: int = L, batch: int = B, dtype: torch.dtype = torch.float32, head_dim: int = D) -> list[Tensor]:
    """Queries, keys, values, as the encoder makes them: heads are a strided view."""
    generator = torch.Generator().manual_seed(length)
    shape = (batch, length, H, head_dim)
    return [torch.randn(shape, generator=generator, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


def holey_mask(length: int = L) -> Tensor:
    """Rows: holes, a prefix, everything real."""
    positions = torch.arange(length)
    return torch.stack([(positions % 3 != 1) & (positions < 30), positions < length * 2 // 3, positions >= 0])


def run(module: Attention, qkv: list[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the output with padded rows zeroed, and the gradients of a loss that reads every real number."""
    out = torch.where(mask[:, None, :, None], module(*qkv, mask), 0)
    loss = (out * torch.arange(1, out.shape[-1] + 1) * torch.arange(1, out.shape[-2] + 1)[:, None].sin()).sum()
    if not loss.requires_grad:
        return out.detach(), [torch.zeros_like(x) for x in qkv]
    grads = torch.autograd.grad(loss, qkv, allow_unused=True, materialize_grads=True)
    return out.detach(), list(grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype_are_those_of_the_queries(name, dtype):
    out = build(name).to(dtype)(*inputs(dtype=dtype), holey_mask())
    assert out.shape == (B, H, L, D)
    assert out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [3.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_padded_content_changes_no_bit(name, scale, training):
    module, mask = freeze_draws(build(name)).train(training), holey_mask()
    clean = inputs()
    noisy = [torch.where(mask[:, None, :, None], x, scale * torch.randn_like(x)) for x in clean]
    out, grads = run(module, clean, mask)
    noisy_out, noisy_grads = run(module, noisy, mask)
    assert torch.equal(out, noisy_out)
    for grad, noisy_grad in zip(grads, noisy_grads, strict=True):
        assert torch.equal(grad, noisy_grad)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_reaches_padding(name):
    mask = holey_mask()
    _, grads = run(freeze_draws(build(name)), inputs(), mask)
    for grad in grads:
        assert grad.masked_select(~mask[:, None, :, None]).count_nonzero() == 0


# In float64, because in float32 a different summation order may flip a sampled or sorted index.
@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_do_not_matter(name):
    module, mask, qkv = freeze_draws(build(name)).double(), holey_mask(), inputs(dtype=torch.float64)
    out, grads = run(module, qkv, mask)
    alone, alone_grads = run(module, [x[:1] for x in qkv], mask[:1])
    for batched, single in zip([out, *grads], [alone, *alone_grads], strict=True):
        torch.testing.assert_close(batched[:1], single, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("extra", [1, 8, 64])
@pytest.mark.parametrize("name", NAMES)
def test_appended_padding_does_not_matter(name, extra):
    module, mask, qkv = freeze_draws(build(name)).double(), holey_mask(), inputs(dtype=torch.float64)
    out, grads = run(module, qkv, mask)
    longer, longer_grads = run(module, [F.pad(x, (0, 0, 0, extra), value=2.0) for x in qkv], F.pad(mask, (0, extra)))
    for short, long in zip([out, *grads], [longer, *longer_grads], strict=True):
        torch.testing.assert_close(long[:, :, :L], short, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_empty_and_single_token_sequences(name, training):
    module, qkv, mask = build(name).train(training), inputs(), holey_mask()
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


@pytest.mark.parametrize("length", [1, 2, 3, 7, 31, 33, 65, MAX_LEN])
@pytest.mark.parametrize("name", NAMES)
def test_any_length_is_accepted(name, length):
    for mask in (holey_mask(length), torch.ones(B, length, dtype=torch.bool)):
        out, grads = run(build(name), inputs(length), mask)
        assert out.shape == (B, H, length, D)
        for x in (out, *grads):
            assert x.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_stays_finite_at_large_logits(name):
    module, mask = build(name), holey_mask()
    q, k, v = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(*((30 * q).bfloat16(), (30 * k).bfloat16(), v.bfloat16()), mask)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    grads = torch.autograd.grad(out.float().sum(), (q, k, v), allow_unused=True, materialize_grads=True)
    for grad in grads:
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32(name):
    # Inputs are bfloat16 numbers in both runs, so that only the arithmetic differs; the budget covers every token.
    module, mask = freeze_draws(build(name, budget=64)), holey_mask()
    rough = [x.detach().bfloat16() for x in inputs()]
    with torch.autocast("cpu", torch.bfloat16):
        out = module(*rough, mask)
    reference = module(*(x.float() for x in rough), mask)
    valid = mask[:, None, :, None]
    torch.testing.assert_close(out.float() * valid, reference * valid, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    module = build(name)
    parameters = dict(module.named_parameters())
    out = module(*inputs(), holey_mask())
    grads = torch.autograd.grad(out.square().sum(), list(parameters.values()), allow_unused=True) if parameters else []
    for parameter, grad in zip(parameters, grads, strict=True):
        assert grad is not None, parameter
        assert grad.count_nonzero() > 0, parameter


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_finite_differences(name):
    module = freeze_draws(build(name, budget=3, head_dim=4)).double()
    if module.surrogate_gradient:
        pytest.skip("surrogate gradient, checked in the mechanism's own test")
    mask = torch.tensor([[True, False, True, True, True, True], [True, True, False, False, False, False]])
    qkv = inputs(6, 2, torch.float64, 4)
    valid = mask[:, None, :, None]
    assert torch.autograd.gradcheck(lambda *x: torch.where(valid, module(*x, mask), 0), qkv, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_exact_mechanisms_equal_masked_softmax(name):
    module = build(name)
    if not module.exact:
        pytest.skip("approximate")
    mask = holey_mask()
    q, k, v = inputs(dtype=torch.float64)
    scores = (q @ k.mT / D**0.5).masked_fill(~mask[:, None, None], -torch.inf)
    expected = torch.where(mask[:, None, :, None], scores.softmax(-1) @ v, 0)
    out, _ = run(module, [q, k, v], mask)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_the_output(name, training):
    module, qkv, mask = build(name, dropout=0.1).train(training), inputs(), holey_mask()
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(run(module, qkv, mask))
    assert torch.equal(results[0][0], results[1][0])
    for first, second in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_draw_is_the_only_source_of_randomness(name, training):
    module, qkv, mask = freeze_draws(build(name)).train(training), inputs(), holey_mask()
    state = torch.get_rng_state()
    module(*qkv, mask)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_shapes_drawn_depend_on_shapes_alone(name):
    module = freeze_draws(build(name))
    frozen, shapes = module.draw, []

    def recorded(distribution, shape, device):
        shapes[-1].append((distribution, shape))
        return frozen(distribution, shape, device)

    module.draw = recorded
    for mask in (holey_mask(), torch.ones(B, L, dtype=torch.bool), torch.zeros(B, L, dtype=torch.bool)):
        shapes.append([])
        module(*(torch.randn(B, H, L, D) for _ in range(3)), mask)
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_read_back_from_the_device(name):
    with FakeTensorMode():  # tensors without values: code that waits for one fails
        out = build(name)(*(torch.empty(B, H, L, D) for _ in range(3)), torch.empty(B, L, dtype=torch.bool))
    assert out.shape == (B, H, L, D)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_off_at_evaluation(name):
    mask, qkv = holey_mask(), inputs()
    with_dropout, without = (freeze_draws(build(name, dropout=p)).eval() for p in (0.5, 0.0))
    assert torch.equal(run(with_dropout, qkv, mask)[0], run(without, qkv, mask)[0])


def test_softmax_materialised_drops_attention_weights():
    rate = 0.25
    module, mask = build("softmax_materialised", dropout=rate), torch.ones(B, L, dtype=torch.bool)
    q, k = torch.zeros(2, B, H, L, L)
    weights = module(q, k, torch.eye(L).expand(B, H, L, L), mask)  # V = I shows the weights themselves
    dropped = weights == 0
    assert abs(dropped.float().mean() - rate) < 0.02
    torch.testing.assert_close(weights[~dropped], torch.full_like(weights[~dropped], 1 / (L * (1 - rate))))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_equals_cpu(name):
    module, mask, qkv = freeze_draws(build(name)), holey_mask(), inputs()
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


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_bfloat16_stays_finite(name):
    module, mask = build(name).cuda(), holey_mask().cuda()
    mask[1] = False
    q, k, v = (x.detach().cuda().requires_grad_() for x in inputs())
    with torch.autocast("cuda", torch.bfloat16):
        out = module((30 * q).bfloat16(), (30 * k).bfloat16(), v.bfloat16(), mask)
    assert out.isfinite().all()
    for grad in torch.autograd.grad(out.float().sum(), (q, k, v), allow_unused=True, materialize_grads=True):
        assert grad.isfinite().all()
