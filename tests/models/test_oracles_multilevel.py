"""Attention that is exact nearby and coarse farther away: the dense form of each, and where it is softmax attention."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.attention.h_transformer_1d import HTransformer1DAttention
from models.attention.mra import MRAAttention
from models.attention.performer import PerformerAttention
from models.attention.scatterbrain import ScatterbrainAttention
from models.attention.transformer_ls import TransformerLSAttention
from models.ops.block_attention import PUBLISHED_BUDGET

B, H, D = 3, 2, 4
LENGTHS = [1, 5, 37, 64, 128]
COMMON = {"num_heads": H, "head_dim": D, "max_len": 128, "dropout": 0.0}
FULL = {"budget": PUBLISHED_BUDGET}  # sizes mean what they say

outdated = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def inputs(length: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    q, k, v = torch.randn(3, B, H, length, D, generator=generator, dtype=torch.float64)
    return [x.requires_grad_() for x in (scale * q, scale * k, v)]


def masks(length: int) -> Tensor:
    """Rows: holes, also at the beginning; a prefix; everything."""
    i = torch.arange(length)
    return torch.stack([(i % 3 != 1) & (i < 100) & (i > 0), i < max(length * 2 // 3, 1), i >= 0])


def weighted(logits: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend by logits (B, H, L, L) to the real tokens."""
    return logits.masked_fill(~mask[:, None, None], torch.finfo(logits.dtype).min).softmax(-1) @ v


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return weighted(q @ k.mT / q.shape[-1] ** 0.5, v, mask)


def assert_same(out: Tensor, expected: Tensor, mask: Tensor, wrt: list[Tensor], tolerance: float = 1e-10) -> None:
    """Compare real rows, and gradients of a random projection of them."""
    out, expected = (torch.where(mask[:, None, :, None], x, 0) for x in (out, expected))
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    for grad, right in zip(*(torch.autograd.grad(x, wrt, seed) for x in (out, expected)), strict=True):
        torch.testing.assert_close(grad, right, rtol=tolerance, atol=tolerance)


# H-Transformer-1D


def means(x: Tensor, mask: Tensor, size: int) -> Tensor:
    """Replace every row by the mean of the real ones in its cell."""
    cell = torch.arange(x.shape[2]) // size
    together = ((cell[:, None] == cell) & mask[:, None]).to(x.dtype)  # (B, L, L)
    return (together / together.sum(-1, keepdim=True).clamp(min=1))[:, None] @ x


def neighbours(block: Tensor) -> Tensor:
    """Which blocks are the same or stand beside one another."""
    return (block[:, None] - block).abs() <= 1


def siblings(block: Tensor) -> Tensor:
    """Which blocks are the same or the two halves of one."""
    return block[:, None] // 2 == block // 2


def hierarchical(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, block_size: int, related: Any = neighbours) -> Tensor:
    """Every pair of tokens at the first level at which their blocks are related."""
    i = torch.arange(q.shape[2])
    size, logits, found = 1, torch.zeros(1), torch.zeros(len(i), len(i), dtype=torch.bool)
    while not found.all():
        near = related(i // (block_size * size))
        coarse = means(q, mask, size) @ means(k, mask, size).mT / D**0.5
        logits = torch.where(near & ~found, coarse, logits)
        size, found = 2 * size, near
    return weighted(logits, v, mask)


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("block_size", [2, 4, 16])
@pytest.mark.parametrize("length", LENGTHS)
def test_h_transformer_is_its_dense_form(length, block_size, scale):
    qkv, mask = inputs(length, scale), masks(length)
    out = HTransformer1DAttention(**COMMON, **FULL, block_size=block_size)(*qkv, mask)
    assert_same(out, hierarchical(*qkv, mask, block_size), mask, qkv)


def test_h_transformer_is_softmax_attention_on_two_blocks():
    qkv, mask = inputs(64), masks(64)
    out = HTransformer1DAttention(**COMMON, **FULL, block_size=32)(*qkv, mask)
    assert_same(out, softmax_attention(*qkv, mask), mask, qkv)


def test_h_transformer_is_softmax_attention_where_cells_are_constant():
    """Of 32 blocks of 4 the coarsest level makes two, so that its cells have 16 tokens."""
    (q, k, v), mask = inputs(128), masks(128)
    q, k = (x[:, :, ::16].detach().repeat_interleave(16, 2) for x in (q, k))
    out = HTransformer1DAttention(**COMMON, **FULL, block_size=4)(q, k, v, mask)
    assert_same(out, softmax_attention(q, k, v, mask), mask, [v])


def test_h_transformer_has_even_blocks_in_proportion_to_the_budget():
    sizes = [HTransformer1DAttention(**COMMON, block_size=16, budget=budget).block_size for budget in (1, 48, 256, 512)]
    assert sizes == [2, 4, 16, 32]


class NoShift:
    """torch, whose largest number of a row is 0."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def max(x: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(values=torch.zeros((), dtype=x.dtype))


@outdated
def test_the_dense_form_with_siblings_is_that_of_h_transformer_1d(monkeypatch):
    """The two halves of its sequence never meet. Its shifts are removed, and values of 1 give the right normaliser."""
    package = pytest.importorskip("h_transformer_1d.h_transformer_1d")
    monkeypatch.setattr(package, "torch", NoShift())
    theirs = package.HAttention1D(1, heads=1, dim_head=D + 1, block_size=4, eps=0.0)
    theirs.scale, theirs.to_qkv, theirs.to_out = D**-0.5, nn.Identity(), nn.Identity()
    qkv = inputs(64)
    q, k, v = (nn.functional.pad(x, (0, 1), value=value) for x, value in zip(qkv, (0.0, 0.0, 1.0), strict=True))
    *out, total = theirs(torch.cat([q, k, v], -1).flatten(0, 1)).unflatten(0, (B, H)).unbind(-1)
    out = torch.stack(out, -1) / total[..., None]
    half, mask = slice(32), torch.ones(B, 32, dtype=torch.bool)
    expected = hierarchical(*(x[:, :, half] for x in qkv), mask, 4, siblings)
    assert_same(out[:, :, half], expected, mask, qkv)


# Transformer-LS


def long_short(module: TransformerLSAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The paper's long-short attention with its two norms, a head at a time."""
    i, w, r = torch.arange(q.shape[2]), module.window, module.num_landmarks
    segment = i // w * w
    window = (i >= segment[:, None] - w // 2) & (i < segment[:, None] + w + w // 2)
    joined, outs = k.transpose(1, 2).flatten(2), []
    for h in range(H):
        logits = joined @ module.projection.weight[h * r : (h + 1) * r].T
        P = logits.masked_fill(~mask[..., None], torch.finfo(q.dtype).min).softmax(1)
        keys, values = (
            torch.cat([module.window_norm(x[:, h]), module.landmark_norm(P.mT @ x[:, h])], 1) for x in (k, v)
        )
        seen = torch.cat([window & mask[:, None], mask.new_ones(B, len(i), r)], -1)
        scores = (q[:, h] @ keys.mT / D**0.5).masked_fill(~seen, torch.finfo(q.dtype).min)
        outs.append(scores.softmax(-1) @ values)
    return torch.stack(outs, 1)


def with_drawn_norms(module: TransformerLSAttention) -> TransformerLSAttention:
    torch.manual_seed(0)
    for norm in (module.window_norm, module.landmark_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return module.double()


@pytest.mark.parametrize("window", [1, 2, 5, 8, 40, 200])
@pytest.mark.parametrize("length", LENGTHS)
def test_transformer_ls_is_its_dense_form(length, window):
    qkv, mask = inputs(length), masks(length)
    module = with_drawn_norms(TransformerLSAttention(**COMMON, **FULL, window=window, num_landmarks=3))
    out, expected = module(*qkv, mask), long_short(module, *qkv, mask)
    assert_same(out, expected, mask, [*qkv, *module.parameters()], 1e-9)


@pytest.mark.parametrize("window", [37, 128])
def test_transformer_ls_without_landmarks_and_norms_is_softmax_attention(window):
    qkv, mask = inputs(37), masks(37)
    module = TransformerLSAttention(**COMMON, **FULL, window=window, num_landmarks=0, norms=False)
    assert not list(module.parameters())
    assert_same(module(*qkv, mask), softmax_attention(*qkv, mask), mask, qkv)


class Columns(nn.Module):
    """Some of the columns of a row."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.columns]


@outdated
def test_transformer_ls_equals_long_short_transformer():
    """Theirs has one tensor for keys and values, one projection for all heads, and windows with wider margins."""
    package = pytest.importorskip("long_short_transformer.long_short_transformer")
    r, (q, k, _), mask = 3, inputs(40), masks(40)
    ours = with_drawn_norms(TransformerLSAttention(**COMMON, **FULL, window=40, num_landmarks=r))
    theirs = package.LongShortAttention(dim=2 * D, heads=1, dim_head=D, causal=False, window_size=40, r=r).double()
    theirs.pos_emb, theirs.to_out = None, nn.Identity()
    theirs.to_q, theirs.to_kv = Columns(slice(D)), Columns(slice(D, None))
    theirs.local_norm, theirs.global_norm = ours.window_norm, ours.landmark_norm
    expected = theirs(torch.cat([q, k], -1).flatten(0, 1), mask=mask.repeat_interleave(H, 0)).unflatten(0, (B, H))
    weight = theirs.to_dynamic_proj.weight
    out = functional_call(ours, {"projection.weight": torch.block_diag(*[weight] * H)}, (q, k, k, mask))
    norms = [*ours.window_norm.parameters(), *ours.landmark_norm.parameters()]
    assert_same(out, expected, mask, [q, k, weight, *norms], 1e-9)


def test_transformer_ls_scales_both_sets_with_the_budget():
    modules = [TransformerLSAttention(**COMMON, window=8, num_landmarks=32, budget=budget) for budget in (8, 64, 256)]
    assert [(module.window, module.num_landmarks) for module in modules] == [(1, 1), (2, 8), (8, 32)]


# Scatterbrain


def scattered(module: ScatterbrainAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, left: int) -> Tensor:
    """exp(q . k / sqrt(D)) on blocks from `left` before a query's own, phi(q) . phi(k) elsewhere, in logarithms."""
    W = module.projection
    exponents = [x @ W.T / D**0.25 - x.square().sum(-1, keepdim=True) / (2 * D**0.5) for x in (q, k)]  # (B, H, L, M)
    estimate = (exponents[0][:, :, :, None] + exponents[1][:, :, None]).logsumexp(-1) - math.log(len(W))
    block = torch.arange(q.shape[2]) // module.block_size
    offset = block - block[:, None]
    support = (offset >= -left) & (offset < module.right)
    return weighted(torch.where(support, q @ k.mT / D**0.5, estimate), v, mask)


def scatterbrain(block_size: int, num_blocks: int, num_features: int = 6) -> ScatterbrainAttention:
    torch.manual_seed(0)
    options = {"block_size": block_size, "num_blocks": num_blocks, "num_features": num_features}
    return ScatterbrainAttention(**COMMON, **FULL, **options).double().eval()


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize(("block_size", "num_blocks", "left"), [(8, 3, 1), (5, 1, 0), (7, 2, 1), (4, 0, 0), (50, 3, 1)])
@pytest.mark.parametrize("length", LENGTHS)
def test_scatterbrain_is_its_dense_form(length, block_size, num_blocks, left, scale):
    qkv, mask, module = inputs(length, scale), masks(length), scatterbrain(block_size, num_blocks)
    assert_same(module(*qkv, mask), scattered(module, *qkv, mask, left), mask, qkv, 1e-9)


@pytest.mark.parametrize(("block_size", "num_blocks"), [(64, 1), (22, 5), (1, 127)])
def test_scatterbrain_on_a_full_support_is_softmax_attention(block_size, num_blocks):
    qkv, mask = inputs(64), masks(64)
    assert_same(scatterbrain(block_size, num_blocks)(*qkv, mask), softmax_attention(*qkv, mask), mask, qkv)


@pytest.mark.parametrize("training", [True, False])
def test_scatterbrain_on_an_empty_support_is_performer(training):
    qkv, mask, ours = inputs(64), masks(64), scatterbrain(8, 0).train(training)
    theirs = PerformerAttention(**COMMON, num_features=6).double().train(training)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for module in (ours, theirs):
        torch.manual_seed(1)
        results.append(module(*qkv, mask))
    assert torch.equal(ours.projection, theirs.projection)
    assert_same(*results, mask, qkv)


# MRA


def refined_pairs(module: MRAAttention, scores: Tensor, real: Tensor) -> Tensor:
    """Which pairs of blocks are refined, (n, n) bool, of logarithms of scores (n, n): one after the other, by rank."""
    refined, blocks = torch.zeros_like(scores, dtype=torch.bool), real.nonzero().flatten().tolist()
    ranks = {}
    for i in blocks:
        for j in blocks:
            prior = 2 * (module.diagonal and i == j) + (min(i, j) < module.first_blocks)
            ranks[i, j] = (prior, float(scores[i, j] - scores[i, real].max()))
    for pair in sorted(ranks, key=ranks.__getitem__, reverse=True)[: module.pairs_per_block * len(blocks)]:
        refined[pair] = True
    return refined


def multi_resolution(module: MRAAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Exact logits on refined pairs of blocks, elsewhere those of the means of blocks, or nothing."""
    b, block = module.block_size, torch.arange(q.shape[2]) // module.block_size
    coarse = means(q, mask, b) @ means(k, mask, b).mT / D**0.5
    real = [torch.stack([part.any() for part in row.split(b)]) for row in mask]
    scores = coarse.detach()[..., ::b, ::b]
    pairs = torch.stack(
        [torch.stack([refined_pairs(module, s, r) for s in x]) for x, r in zip(scores, real, strict=True)]
    )
    refined = pairs[..., block, :][..., block]
    seen = (refined | module.coarse) & mask[:, None, None]
    logits = torch.where(refined, q @ k.mT / D**0.5, coarse).masked_fill(~seen, torch.finfo(q.dtype).min)
    return (logits.softmax(-1) * seen) @ v


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize(
    ("block_size", "pairs_per_block", "first_blocks", "diagonal"),
    [(4, 2, 1, True), (4, 1, 0, True), (8, 3, 2, False), (5, 2, 0, False), (32, 1, 1, True), (3, 14, 7, True)],
)
@pytest.mark.parametrize("length", LENGTHS)
def test_mra_is_its_dense_form(length, block_size, pairs_per_block, first_blocks, diagonal, coarse, scale):
    qkv, mask = inputs(length, scale), masks(length)
    options = {"pairs_per_block": pairs_per_block, "first_blocks": first_blocks, "diagonal": diagonal}
    module = MRAAttention(**COMMON, **FULL, **options, block_size=block_size, coarse=coarse)
    assert_same(module(*qkv, mask), multi_resolution(module, *qkv, mask), mask, qkv, 1e-9)


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_mra_that_refines_every_pair_is_softmax_attention(length, coarse):
    qkv, mask = inputs(length), masks(length)
    out = MRAAttention(**COMMON, **FULL, block_size=8, pairs_per_block=16, coarse=coarse)(*qkv, mask)
    assert_same(out, softmax_attention(*qkv, mask), mask, qkv)


def test_mra_with_blocks_of_one_token_is_softmax_attention():
    qkv, mask = inputs(64), masks(64)
    out = MRAAttention(**COMMON, **FULL, block_size=1, pairs_per_block=3, coarse=True)(*qkv, mask)
    assert_same(out, softmax_attention(*qkv, mask), mask, qkv)


def test_mra_is_softmax_attention_where_blocks_are_constant():
    (q, k, v), mask = inputs(128), masks(128)
    q, k = (x[:, :, ::16].detach().repeat_interleave(16, 2) for x in (q, k))
    out = MRAAttention(**COMMON, **FULL, block_size=16, pairs_per_block=1, coarse=True)(q, k, v, mask)
    assert_same(out, softmax_attention(q, k, v, mask), mask, [v])


@pytest.mark.parametrize("extra", [1, 8, 28])
def test_mra_refines_the_same_pairs_however_much_padding_follows(extra):
    """Of many rows of blocks, whose best pairs all have the same rank, as many are refined as the priors leave over."""
    qkv, mask = inputs(100), masks(100)
    module = MRAAttention(**COMMON, **FULL, block_size=3, pairs_per_block=14, first_blocks=7, coarse=False)
    longer = module(*(nn.functional.pad(x, (0, 0, 0, extra)) for x in qkv), nn.functional.pad(mask, (0, extra)))
    assert_same(longer[:, :, :100], module(*qkv, mask), mask, qkv)


@pytest.mark.parametrize("coarse", [True, False])
def test_mra_hides_what_padding_holds(coarse):
    """To the bit, in blocks with and without real tokens."""
    qkv, mask = inputs(100), masks(100)
    module = MRAAttention(**COMMON, **FULL, block_size=8, pairs_per_block=3, coarse=coarse)
    noisy = [torch.where(mask[:, None, :, None], x, 1e4 * torch.randn_like(x)) for x in qkv]
    outs = [torch.where(mask[:, None, :, None], module(*rows, mask), 0) for rows in (qkv, noisy)]
    assert torch.equal(*outs)
