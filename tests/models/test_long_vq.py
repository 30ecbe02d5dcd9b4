"""LongVQ, reconstructed: attention to quantised keys, written out; the straight-through gradients; the codebook."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.mixers.long_vq_r import LongVQReconstructed, assign
from models.ops.code_attention import attend_to_codes

B, L, Z, E, S, W, C = 2, 27, 6, 5, 7, 4, 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def holey() -> Tensor:
    positions = torch.arange(L)
    return torch.stack([(positions > 1) & (positions < 20) & (positions != 7), positions >= 0])


def build(**options) -> LongVQReconstructed:
    torch.manual_seed(0)
    sizes = {"dim": C, "max_len": 64, "dropout": 0.0, "shared_dim": Z, "num_codes": S, "window": W}
    return LongVQReconstructed(**{**sizes, **options}).double()


def one_hot(code: Tensor, mask: Tensor, size: int = S) -> Tensor:
    return F.one_hot(code, size).double() * mask[..., None]


def dense(q: Tensor, k: Tensor, v: Tensor, gain: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention with log(1 + gain) of the offset added to the scores."""
    w = (len(gain) + 1) // 2
    bias = torch.zeros(L, L).double()
    for i in range(L):
        for j in range(L):
            if abs(i - j) < w:
                bias[i, j] = torch.log1p(gain[i - j + w - 1])
    scores = q @ k.mT * Z**-0.5 + bias
    return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("window", [1, 4, 40])
def test_it_is_softmax_attention_to_the_quantised_keys(window, size):
    q, v, codes, mask = normal(B, L, Z), normal(B, L, E, seed=1), size * normal(S, Z, seed=2), holey()
    code = torch.randint(S - 1, (B, L))  # the last code has no key
    gain = normal(2 * window - 1, seed=3).exp()
    real = mask[..., None]
    out = attend_to_codes(q, codes[code], v * real, one_hot(code, mask), codes, gain, mask)
    expected = dense(q, codes[code], v, gain, mask)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def test_with_a_code_for_every_key_it_is_softmax_attention():
    q, k, v, mask = normal(B, L, Z), normal(1, L, Z, seed=1).expand(B, -1, -1), normal(B, L, E, seed=2), holey()
    codes = k[0].repeat(2, 1)[torch.randperm(2 * L)[: 2 * L]]  # each key twice, in any order
    code, _ = assign(k, codes)
    torch.testing.assert_close(codes[code], k)
    gain = torch.zeros(2 * W - 1).double()
    seen = v * mask[..., None]
    out = attend_to_codes(q, k, seen, one_hot(code, mask, 2 * L), codes, gain, mask)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_keys_are_assigned_to_the_nearest_code():
    k, codes = normal(B, L, Z), normal(S, Z, seed=1)
    distance = (k[:, :, None] - codes).square().sum(-1)
    code, nearness = assign(k, codes)
    assert torch.equal(code, distance.argmin(-1))
    torch.testing.assert_close(nearness.softmax(-1), (-distance * Z**-0.5).softmax(-1))


def test_the_gradient_of_a_key_is_that_of_its_code_nearby_and_of_its_place_among_the_codes():
    module, mask = build().eval(), holey()
    q, k, v, direction = normal(B, L, Z), normal(B, L, Z, seed=1), normal(B, L, E, seed=2), normal(B, L, E, seed=3)
    k.requires_grad_()
    out = module.attend(q, k, v, mask)
    [grad] = torch.autograd.grad((out * direction * mask[..., None]).sum(), k)
    unit = k / k.square().mean(-1, keepdim=True).sqrt()
    distance = (unit[:, :, None] - module.codebook).square().sum(-1)
    code, soft = distance.argmin(-1), (-distance * Z**-0.5).softmax(-1)
    # The same by hand: sums over codes of places that may be in between, sums over the window of keys that may be.
    hard = F.one_hot(code, S).double()
    place = (hard + soft - soft.detach()) * mask[..., None]
    key = module.codebook[code] + unit - unit.detach()
    global_ = (q @ module.codebook.T * Z**-0.5).exp()
    present = (place.sum(1) > 0.5)[:, None]
    offsets = torch.arange(L)[:, None] - torch.arange(L)
    gain = torch.where(offsets.abs() < W, module.bias.exp()[offsets.clamp(1 - W, W - 1) + W - 1], 0)
    local = (q @ key.mT * Z**-0.5).exp() * gain * mask[:, None]
    weights = torch.where(present, global_, 0) @ place.mT + local
    expected_out = weights @ v / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(out, expected_out, rtol=1e-10, atol=1e-12)
    [expected] = torch.autograd.grad((expected_out * direction * mask[..., None]).sum(), k)
    torch.testing.assert_close(grad, expected, rtol=1e-8, atol=1e-10)
    assert grad[mask].count_nonzero(dim=-1).min() > 0


def train(module: LongVQReconstructed, x: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer) -> None:
    module(x, mask).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("fused", [True, False])
def test_the_codebook_learns_the_keys_of_a_step_once_it_is_over(fused):
    module, mask = build(decay=0.8, least_keys=0.0), holey()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=fused)
    first, second = normal(B, L, C), normal(B, L, C, seed=1)
    before = module.codebook.clone()
    out = module(first, mask)
    assert torch.equal(module(first, mask), out)  # another pass of the same step, as of another part of the batch
    assert torch.equal(module.codebook, before)
    assert module.new_counts.sum() == 2 * mask.sum()
    train(module, second, mask, optimizer)
    assert torch.equal(module.codebook, before)
    collected = module.new_counts.clone()
    module.eval()(first, mask)  # an evaluation in between changes nothing
    assert torch.equal(module.codebook, before)
    assert torch.equal(module.new_counts, collected)
    module.train()(first, mask)
    assert not torch.equal(module.codebook, before)
    torch.testing.assert_close(module.counts, 0.8 + 0.2 * collected)
    assert module.new_counts.sum() == mask.sum()


def test_codes_without_keys_become_keys_drawn_at_random():
    module, x, mask = build(num_codes=40, decay=0.9), normal(B, L, C), holey()
    keys: list[Tensor] = []
    collect = module._collect

    def recorded(k: Tensor, assigned: Tensor, mask: Tensor) -> None:
        keys.append(k[mask])
        collect(k, assigned, mask)

    module._collect = recorded  # type: ignore[method-assign]
    module(x, mask)
    dead = 0.9 + 0.1 * module.new_counts < 1
    assert 5 < dead.sum() < 40
    with torch.no_grad():
        module.scale.mul_(2)  # a step of the optimiser is over
    module._follow_step()
    assert (module.counts[dead] == 1).all()
    nearest = torch.cdist(module.codebook[dead], keys[0]).min(-1)
    torch.testing.assert_close(nearest.values, torch.zeros_like(nearest.values), rtol=0, atol=1e-3)
    assert len(nearest.indices.unique()) > 4
    assert torch.cdist(module.codebook[~dead], keys[0]).min(-1).values.max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0}, "num_codes must be at least 1. Got 0."),
        ({"window": 0}, "window must be at least 1. Got 0."),
        ({"decay": 1.0}, "decay must be at least 0 and below 1. Got 1.0."),
        ({"least_keys": -1.0}, "least_keys must be at least 0 and finite. Got -1.0."),
        ({"shared_dim": 0}, "shared_dim must be at least 1. Got 0."),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build(**options)


def test_a_training_that_is_taken_up_again_goes_on_as_it_would_have():
    module, x, mask = build(), normal(B, L, C), holey()
    train(module, x, mask, torch.optim.AdamW(module.parameters(), lr=1e-2))
    again = build()
    again.load_state_dict(module.state_dict())
    results = []
    for one in (module, again):
        torch.manual_seed(1)
        results.append(one(x, mask))
    assert torch.equal(*results)
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, again.get_buffer(name)), name


def test_padding_is_no_key():
    module, x = build(), normal(B, L, C)
    module(x, torch.zeros(B, L, dtype=torch.bool))
    assert module.new_counts.sum() == 0
    assert module.new_sums.count_nonzero() == 0
    before = module.codebook.clone()
    with torch.no_grad():
        module.scale.mul_(2)  # a step
    module(x, holey())
    assert torch.equal(module.codebook, before)
