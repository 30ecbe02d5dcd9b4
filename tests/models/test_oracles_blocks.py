"""Blocked sparsity against implementations that others wrote: same weights, same outputs, same gradients."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from models.attention import Attention
from models.attention.bigbird import BigBirdAttention
from models.attention.local import LocalAttention, LocalBlockAttention
from models.attention.longformer import LongformerAttention
from models.attention.sinkhorn import SinkhornAttention
from models.ops.block_attention import PUBLISHED_BUDGET

B, H, L, D = 2, 2, 48, 4
COMMON = {"num_heads": H, "head_dim": D, "max_len": 4096, "dropout": 0.0}
FULL = {"budget": PUBLISHED_BUDGET}


def imported(name: str) -> object:
    """Import a package that warns of its own code's age."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def hidden(length: int = L) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(B, length, H * D, generator=generator, dtype=torch.float64).requires_grad_()


def masks(length: int = L) -> Tensor:
    i = torch.arange(length)
    return torch.stack([(i % 5 != 2) & (i < length * 3 // 4), i >= 0])


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (H, D)).transpose(1, 2)


def compare(
    out: Tensor,
    expected: Tensor,
    mask: Tensor,
    leaves: list[Tensor],
    their_leaves: list[Tensor] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-8,
) -> None:
    """Real rows of (B, L, H D), and the gradients of a loss on them."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=generator, dtype=out.dtype) * mask[..., None]
    torch.testing.assert_close(out * mask[..., None], expected * mask[..., None], rtol=rtol, atol=atol)
    grads = torch.autograd.grad((out * weights).sum(), leaves, retain_graph=True)
    right = torch.autograd.grad((expected * weights).sum(), their_leaves or leaves)
    for ours, theirs in zip(grads, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def apply(module: Attention, projections: list[nn.Linear], x: Tensor, mask: Tensor) -> Tensor:
    out = module(*(heads(layer(x)) for layer in projections), mask)
    return out.transpose(1, 2).flatten(2)


# In float32, since theirs has a softmax in float32, where a double's most negative number is minus infinity.
@pytest.mark.slow  # the import alone takes seconds
@pytest.mark.parametrize("num_global", [0, 1, 3])
def test_longformer_equals_transformers(num_global):
    hugging = imported("transformers.models.longformer.modeling_longformer")
    window = 8
    config = hugging.LongformerConfig(
        hidden_size=H * D, num_attention_heads=H, attention_window=[window], attention_probs_dropout_prob=0.0
    )
    theirs = hugging.LongformerSelfAttention(config, 0)
    ours = LongformerAttention(**COMMON, **FULL, window=window, num_global=num_global)
    x = hidden().detach().float().requires_grad_()
    right = [x, theirs.query.weight, theirs.key.weight, theirs.value.weight]
    left = list(right)
    if num_global:
        # Theirs project the layer's input. Ours project q, k and v, so the ordinary projections are the identity.
        for layer in (theirs.query, theirs.key, theirs.value):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        ours.global_q.load_state_dict(theirs.query_global.state_dict())
        ours.global_v.load_state_dict(theirs.value_global.state_dict())
        ours.global_k.weight.data.copy_(theirs.key_global.weight)
        right = [x, theirs.query_global.weight, theirs.key_global.weight, theirs.value_global.weight]
        left = [x, ours.global_q.weight, ours.global_k.weight, ours.global_v.weight]
    mask = masks()
    is_global = (torch.arange(L) < num_global) & mask
    expected = theirs(
        x,
        attention_mask=torch.where(is_global, 10000.0, torch.where(mask, 0.0, -10000.0)),
        is_index_masked=~mask,
        is_index_global_attn=is_global,
        is_global_attn=bool(num_global),
    )[0]
    out = apply(ours, [theirs.query, theirs.key, theirs.value], x, mask)
    compare(out, expected, mask, left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_blocks", [12, 20])
def test_bigbird_equals_transformers_given_its_random_blocks(num_blocks, monkeypatch):
    hugging = imported("transformers.models.big_bird.modeling_big_bird")
    b, r, length = 4, 3, 4 * num_blocks
    config = hugging.BigBirdConfig(
        hidden_size=H * D, num_attention_heads=H, block_size=b, num_random_blocks=r, max_position_embeddings=length
    )
    theirs = hugging.BigBirdBlockSparseAttention(config, seed=3).double().train()
    drawn: list[Tensor] = []
    gather = theirs.torch_gather_b2
    monkeypatch.setattr(theirs, "torch_gather_b2", lambda x, index: (drawn.append(index), gather(x, index))[1])

    x = hidden(length)
    mask = masks(length)
    mask[0] = torch.arange(length) % 5 != 2  # theirs has the padded length's last block global: let it be real
    blocked, band, from_mask, to_mask = hugging.BigBirdModel.create_masks_for_block_sparse_attn(mask.double(), b)
    expected = theirs(
        x,
        band_mask=band,
        from_mask=from_mask,
        to_mask=to_mask,
        from_blocked_mask=blocked,
        to_blocked_mask=blocked,
    )[0].reshape(B, length, H * D)

    # Rows 1 ... blocks - 2 of each head; ours name the blocks of all rows.
    rand = torch.nn.functional.pad(drawn[0].transpose(1, 2), (0, 0, 0, 0, 1, 1), value=-1)
    ours = BigBirdAttention(**COMMON, **FULL, block_size=b, num_random_blocks=r)
    make = ours._table
    monkeypatch.setattr(ours, "_table", lambda *a: torch.cat([make(*a)[..., :5], rand], -1))
    for i in range(1, num_blocks - 1):  # a block that theirs counts twice would be another formula
        seen = {0, i - 1, i, i + 1, num_blocks - 1}
        for head in range(H):
            assert len(set(rand[0, i, head].tolist()) - seen) == r
    out = apply(ours, [theirs.query, theirs.key, theirs.value], x, mask)
    compare(out, expected, mask, [x, theirs.query.weight, theirs.key.weight, theirs.value.weight])


@pytest.mark.parametrize("block_size", [8, 16, 48])
def test_local_equals_local_attention(block_size):
    package = imported("local_attention")
    q, k, v = (heads(hidden() * scale).detach().requires_grad_() for scale in (1.0, -0.7, 0.5))
    mask = masks()
    options = {"window_size": block_size, "causal": False, "autopad": True, "use_rotary_pos_emb": False}
    band = package.LocalAttention(**options, look_backward=1, look_forward=1, exact_windowsize=True)
    block = package.LocalAttention(**options, look_backward=0, look_forward=0)
    pairs = [
        (LocalAttention(**COMMON, budget=2 * block_size), band),
        (LocalBlockAttention(**COMMON, **FULL, block_size=block_size), block),
    ]
    for ours, theirs in pairs:
        results = [ours(q, k, v, mask), theirs(q, k, v, mask=mask)]
        out, expected = (x.transpose(1, 2).flatten(2) for x in results)
        compare(out, expected, mask, [q, k, v])


def test_sinkhorn_balances_as_sinkhorn_transformer():
    package = imported("sinkhorn_transformer.sinkhorn_transformer")
    module = SinkhornAttention(**COMMON, **FULL, block_size=8, num_iterations=5).eval()
    R = torch.randn(B, H, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = package.sinkhorn_sorting_operator(R.flatten(0, 1) / module.temperature, n_iters=5)
    P = module._balance(R, torch.ones(B, 1, 6, dtype=torch.bool))
    torch.testing.assert_close(P, expected.view_as(R), rtol=1e-8, atol=1e-8)


def test_sinkhorn_equals_sinkhorn_transformer_given_the_permutation(monkeypatch):
    """Their sorted values are their sorted keys, by a slip, so that keys and values have to be the same here."""
    package = imported("sinkhorn_transformer.sinkhorn_transformer")
    ours = SinkhornAttention(**COMMON, **FULL, block_size=8).double().eval()
    theirs = package.SinkhornAttention(8, H * D, D, H, L)
    q, k = (heads(hidden() * scale).detach().requires_grad_() for scale in (1.0, -0.7))
    mask = torch.ones(B, L, dtype=torch.bool)
    balanced: list[Tensor] = []
    balance = ours._balance
    monkeypatch.setattr(ours, "_balance", lambda *a: balanced.append(balance(*a)) or balanced[-1])
    out = ours(q, k, k, mask)
    # Row = slot in theirs, source in ours.
    monkeypatch.setattr(theirs.sort_net, "forward", lambda *_, **__: balanced[0].mT.flatten(0, 1))
    results = [out, theirs(q, k, k)]
    left, right = (x.transpose(1, 2).flatten(2) for x in results)
    compare(left, right, mask, [q, k])
