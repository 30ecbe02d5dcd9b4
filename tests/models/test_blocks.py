"""Blocked sparsity: every method is dense attention under the pattern that its paper defines."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention
from models.attention.bigbird import BigBirdAttention
from models.attention.local import LocalAttention, LocalBlockAttention
from models.attention.longformer import LongformerAttention
from models.attention.sinkhorn import SinkhornAttention
from models.attention.sparse_transformer import SparseFixedAttention, SparseStridedAttention
from models.ops.block_attention import PUBLISHED_BUDGET, Shared, attend_blocks, in_proportion
from tests.helpers.frozen import freeze_draws
from tests.twins import blocks as twin

B, H, D = 3, 2, 4
LENGTHS = [1, 5, 37, 64]
COMMON = {"num_heads": H, "head_dim": D, "max_len": 128, "dropout": 0.0}
FULL = {"budget": PUBLISHED_BUDGET}  # sizes mean what they say

# A method, and the rule that its paper states; the number of tokens is an argument.
METHODS = {
    "local": (lambda: LocalAttention(**COMMON, budget=10), lambda n: twin.band(5)),
    "local_zero": (lambda: LocalAttention(**COMMON, budget=0), lambda n: twin.band(0)),
    "local_wide": (lambda: LocalAttention(**COMMON, budget=80), lambda n: twin.band(40)),
    "local_block": (lambda: LocalBlockAttention(**COMMON, **FULL, block_size=7), lambda n: twin.same_block(7)),
    "local_block_strided": (
        lambda: LocalBlockAttention(**COMMON, **FULL, block_size=7, strided_groups=True),
        lambda n: twin.same_residue(math.ceil(n / min(n, 7))),
    ),
    "longformer": (lambda: LongformerAttention(**COMMON, **FULL, window=12), lambda n: twin.band(6)),
    "longformer_self_in_window": (
        lambda: LongformerAttention(**COMMON, **FULL, window=12, self_in_window=True),
        lambda n: twin.band_of(12),
    ),
    "longformer_odd_self_in_window": (
        lambda: LongformerAttention(**COMMON, **FULL, window=13, self_in_window=True),
        lambda n: twin.band_of(13),
    ),
    "longformer_global": (
        lambda: LongformerAttention(**COMMON, **FULL, window=12, num_global=3),
        lambda n: twin.global_band(6, 3),
    ),
    "strided": (lambda: SparseStridedAttention(**COMMON, **FULL, stride=6), lambda n: twin.strided(6)),
    "strided_causal": (
        lambda: SparseStridedAttention(**COMMON, **FULL, stride=6, causal=True),
        lambda n: twin.strided(6, causal=True),
    ),
    "fixed": (
        lambda: SparseFixedAttention(**COMMON, **FULL, block_size=8, summary_size=3),
        lambda n: twin.fixed(8, 3),
    ),
    "fixed_causal": (
        lambda: SparseFixedAttention(**COMMON, **FULL, block_size=8, summary_size=3, causal=True),
        lambda n: twin.fixed(8, 3, causal=True),
    ),
    "fixed_lra": (
        lambda: SparseFixedAttention(**COMMON, **FULL, block_size=8, summary_size=2, causal=True, first_column=True),
        lambda n: twin.fixed(8, 2, causal=True, first_column=True),
    ),
    "fixed_first_column": (
        lambda: SparseFixedAttention(**COMMON, **FULL, block_size=8, summary_size=2, first_column=True),
        lambda n: twin.fixed(8, 2, first_column=True),
    ),
}

# Sizes at which the pattern is everything, for 37 tokens.
EVERYTHING = {
    "local": lambda: LocalAttention(**COMMON, budget=72),
    "local_block": lambda: LocalBlockAttention(**COMMON, **FULL, block_size=37),
    "longformer": lambda: LongformerAttention(**COMMON, **FULL, window=74),
    "longformer_all_global": lambda: LongformerAttention(**COMMON, **FULL, window=2, num_global=37),
    "strided_one": lambda: SparseStridedAttention(**COMMON, **FULL, stride=1),
    "strided_wide": lambda: SparseStridedAttention(**COMMON, **FULL, stride=37),
    "fixed": lambda: SparseFixedAttention(**COMMON, **FULL, block_size=37, summary_size=1),
    "fixed_all_summary": lambda: SparseFixedAttention(**COMMON, **FULL, block_size=5, summary_size=5),
    "bigbird_one_block": lambda: BigBirdAttention(**COMMON, **FULL, block_size=64),
    "bigbird": lambda: BigBirdAttention(**COMMON, **FULL, block_size=6),  # 7 = 4 + 3 blocks
    "bigbird_no_random": lambda: BigBirdAttention(**COMMON, **FULL, block_size=10, num_random_blocks=0),
    "sinkhorn": lambda: SinkhornAttention(**COMMON, **FULL, block_size=37),
}


def inputs(length: int, heads: int = H, dim: int = D, batch: int = B) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shape = (batch, length, heads, dim)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).transpose(1, 2).requires_grad_() for _ in range(3)
    ]


def masks(length: int) -> Tensor:
    """Rows: holes, also at the beginning; a prefix; everything."""
    i = torch.arange(length)
    return torch.stack([(i % 3 != 1) & (i < 30) & (i > 0), i < max(length * 2 // 3, 1), i >= 0])


def compare(module: Attention, length: int, sees: Tensor, tolerance: float = 1e-10) -> None:
    """Values and gradients equal those of dense attention under `sees`."""
    qkv, mask = inputs(length), masks(length)
    rows = mask[:, None, :, None]
    out = torch.where(rows, module.double()(*qkv, mask), 0)
    expected = torch.where(rows, twin.attention(*qkv, mask, sees), 0)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    for grad, right in zip(*(torch.autograd.grad((x * weights).sum(), qkv) for x in (out, expected)), strict=True):
        torch.testing.assert_close(grad, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", METHODS)
def test_pattern_is_the_papers(name, length):
    build, rule = METHODS[name]
    compare(build(), length, twin.matrix(length, rule(length)))


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_pattern_of_everything_is_softmax_attention(name):
    compare(freeze_draws(EVERYTHING[name]()), 37, torch.ones(37, 37, dtype=torch.bool))


# Without the rows of global tokens, whose projections are as wide as the heads.
@pytest.mark.parametrize("name", [name for name in METHODS if name != "longformer_global"])
def test_weights_show_the_pattern(name):
    """With V = I an output row is the row of weights: its support is the pattern, and q = 0 makes it uniform."""
    n = 23
    build, rule = METHODS[name]
    v = torch.eye(n, dtype=torch.float64).expand(1, H, n, n)
    module = build().double()
    module.head_dim = n
    weights = module(0 * v, 0 * v, v, torch.ones(1, n, dtype=torch.bool))[0, 0]
    sees = twin.matrix(n, rule(n)).double()
    torch.testing.assert_close(weights, sees / sees.sum(-1, keepdim=True))


def test_a_block_named_twice_counts_once_and_a_negative_entry_not_at_all():
    n, b = 20, 4
    qkv, mask = inputs(n), masks(n)
    table = torch.tensor([[0, 0, 2, -1], [1, 2, 1, 2], [2, -1, -1, -1], [3, 3, 3, 3], [4, 0, 1, 4]])[:, None]
    visits = [set(row) - {-1} for row in table[:, 0].tolist()]
    sees = twin.matrix(n, lambda i, j: j // b in visits[i // b])
    out = attend_blocks(*qkv, mask, table, b)
    expected = twin.attention(*qkv, mask, sees)
    rows = (sees & mask[:, None]).any(-1)[:, None, :, None]
    torch.testing.assert_close(torch.where(rows, out, 0), expected)


def test_tables_may_differ_by_sequence_and_head():
    n, b = 22, 4
    nb = 6
    qkv, mask = inputs(n), masks(n)
    table = torch.randint(-1, nb, (B, nb, H, 3), generator=torch.Generator().manual_seed(0))
    table[..., 0] = torch.arange(nb)[:, None]
    named = table.tolist()

    def pattern(s: int, h: int) -> Tensor:
        return twin.matrix(n, lambda i, j: j // b in named[s][i // b][h])

    sees = torch.stack([torch.stack([pattern(s, h) for h in range(H)]) for s in range(B)])
    out, rows = attend_blocks(*qkv, mask, table, b), mask[:, None, :, None]
    torch.testing.assert_close(torch.where(rows, out, 0), torch.where(rows, twin.attention(*qkv, mask, sees), 0))


def test_rows_that_see_nothing_are_finite():
    qkv, none = inputs(9), torch.zeros(B, 9, dtype=torch.bool)
    table = torch.full((3, 1, 2), -1)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        q, k, v = (x.detach().to(dtype).requires_grad_() for x in qkv)
        shared = Shared(k[:, :, :2], v[:, :, :2], none[:, :2])
        out = attend_blocks(100 * q, k, v, none, table, 3, shared=shared)
        assert out.isfinite().all()
        for grad in torch.autograd.grad(out.sum(), (q, k, v), materialize_grads=True, allow_unused=True):
            assert grad.isfinite().all()


@pytest.mark.parametrize("length", [1, 13, 37, 64])
def test_bigbird_sees_what_it_drew(length):
    """The pattern of each sequence: its own last block, and random blocks as the table names them."""
    b = 3
    module = freeze_draws(BigBirdAttention(**COMMON, **FULL, block_size=b))
    tables: list[Tensor] = []
    make = module._table
    module._table = lambda *a: tables.append(make(*a)) or tables[-1]
    mask = masks(length)
    module(*inputs(length), mask)
    last = [int((row * torch.arange(length)).max()) // b for row in mask]
    sees = torch.stack(
        [
            torch.stack(
                [twin.matrix(length, twin.bigbird(b, last[s], tables[0][s, :, h, 5:].tolist())) for h in range(H)]
            )
            for s in range(B)
        ]
    )
    compare(module, length, sees)


def compare_with_fill(module: Attention, length: int, rule: twin.Rule, block_size: int) -> None:
    """Values and gradients equal those of attention to the real tokens and to the zeros behind them."""
    qkv, mask = inputs(length), masks(length)
    rows = mask[:, None, :, None]
    out = torch.where(rows, module.double()(*qkv, mask), 0)
    expected = torch.where(rows, twin.with_fill(*qkv, mask, rule, block_size), 0)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    for grad, right in zip(*(torch.autograd.grad((x * weights).sum(), qkv) for x in (out, expected)), strict=True):
        torch.testing.assert_close(grad, right, rtol=1e-10, atol=1e-10)


# Where the length is a multiple of the block (8 and 32), a whole block of zeros follows.
@pytest.mark.parametrize("length", [1, 8, 20, 32])
@pytest.mark.parametrize("strided", [True, False])
def test_local_groups_see_the_zeros_that_lra_appends(length, strided):
    module = LocalBlockAttention(**COMMON, **FULL, block_size=8, strided_groups=strided, seen_fill=True)
    rule = twin.same_residue(length // 8 + 1) if strided else twin.same_block(8)
    compare_with_fill(module, length, rule, 8)


@pytest.mark.parametrize("length", [1, 8, 37, 64])
def test_bigbird_sees_the_zeros_that_lra_appends(length):
    """The last block, which sees and is seen by all, is theirs, whatever the sequence."""
    module = freeze_draws(BigBirdAttention(**COMMON, **FULL, block_size=8, num_random_blocks=2, seen_fill=True))
    tables: list[Tensor] = []
    make = module._table
    module._table = lambda *a: tables.append(make(*a)) or tables[-1]
    module(*inputs(length), masks(length))
    [table] = tables
    # One table for all sequences, since all end with the zeros; of one head, since the rule is for one.
    assert torch.equal(table, table[:1].expand_as(table))
    module._table = lambda *_: table[:, :, :1].expand_as(table)
    compare_with_fill(module, length, twin.bigbird(8, length // 8, table[0, :, 0, 5:].tolist()), 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "build",
    [
        lambda: LocalBlockAttention(**COMMON, **FULL, block_size=8, strided_groups=True, seen_fill=True),
        lambda: BigBirdAttention(**COMMON, **FULL, block_size=8, seen_fill=True),
        lambda: LongformerAttention(**COMMON, **FULL, window=6, self_in_window=True),
    ],
)
def test_what_the_lra_code_does_stays_finite_for_any_mask(build, dtype):
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in inputs(32))
    for mask in (masks(32), torch.zeros(B, 32, dtype=torch.bool)):
        out = build()(q, k, v, mask)
        assert out.shape == q.shape
        for x in (out, *torch.autograd.grad(out.sum(), (q, k, v), materialize_grads=True, allow_unused=True)):
            assert x.isfinite().all()


def test_bigbird_draws_uniformly_without_repetition_from_what_is_not_seen():
    r, blocks, heads = 3, 12, 4000
    module = BigBirdAttention(**{**COMMON, "num_heads": heads}, **FULL, block_size=1, num_random_blocks=r)
    torch.manual_seed(0)
    last = torch.tensor([11, 7, 4, 0])
    table = module._table(last, blocks)
    assert table.shape == (4, blocks, heads, 5 + r)
    for s, end in enumerate(last.tolist()):
        for i in range(1, end):
            candidates = sorted(set(range(1, end)) - {i - 1, i, i + 1})
            drawn = table[s, i, :, 5:]
            assert ((drawn >= 0).sum(-1) == min(r, len(candidates))).all()
            assert set(drawn[drawn >= 0].tolist()) == set(candidates)
            for row in drawn[:50].tolist():
                picked = [x for x in row if x >= 0]
                assert len(set(picked)) == len(picked)
            # Every ordered sample is equally likely: 5 standard deviations of a multinomial count.
            samples = list(itertools.permutations(candidates, min(r, len(candidates))))
            codes = (drawn.clamp(min=0) * torch.tensor([blocks**2, blocks, 1])).sum(-1)
            p = 1 / len(samples)
            for sample in samples:
                code = sum(x * blocks ** (r - 1 - t) for t, x in enumerate(sample))
                share = float((codes == code).float().mean())
                assert abs(share - p) <= 5 * (p * (1 - p) / heads) ** 0.5 + 1e-12


def test_bigbird_draws_anew_at_every_call_and_per_head():
    module = BigBirdAttention(**COMMON, **FULL, block_size=2).eval()
    last = torch.tensor([31])
    first, second = (module._table(last, 32)[..., 5:] for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[:, :, 0], first[:, :, 1])


@pytest.mark.parametrize("activation", ["sinkhorn", "softmax"])
def test_sinkhorn_balances(activation):
    module = SinkhornAttention(**COMMON, **FULL, block_size=4, num_iterations=200, activation=activation).eval()
    R = torch.randn(2, H, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.tensor([[True] * 6, [True, False, True, True, False, False]])[:, None]
    P = module._balance(R, real)
    ones = real.double().expand(2, H, 6)
    torch.testing.assert_close(P.sum(-1), ones)
    if activation == "sinkhorn":
        torch.testing.assert_close(P.sum(-2), ones)


@pytest.mark.parametrize("length", [1, 5, 22])
def test_sinkhorn_is_the_papers(length):
    module = SinkhornAttention(**COMMON, **FULL, block_size=4).double().eval()
    qkv, mask = inputs(length), masks(length)
    rows = mask[:, None, :, None]
    out = torch.where(rows, module(*qkv, mask), 0)
    expected = torch.where(rows, twin.sinkhorn(*qkv, mask, module.sorter.weight, 4, 0.75, 8), 0)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    leaves = [*qkv, module.sorter.weight]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    for grad, right in zip(*(torch.autograd.grad((x * weights).sum(), leaves) for x in (out, expected)), strict=True):
        torch.testing.assert_close(grad, right, rtol=1e-8, atol=1e-8)


def test_sinkhorn_with_the_identity_is_local_block_attention():
    module = SinkhornAttention(**COMMON, **FULL, block_size=4).double().eval()
    module._balance = lambda R, real: torch.diag_embed(real.to(R.dtype)).expand_as(R)
    compare(module, 37, twin.matrix(37, twin.same_block(4)))


def test_sinkhorn_noise_is_drawn_in_training_alone():
    module, qkv, mask = SinkhornAttention(**COMMON, **FULL, block_size=4), inputs(37), masks(37)
    module.double().eval()
    assert torch.equal(module(*qkv, mask), module(*qkv, mask))
    module.train()
    assert not torch.equal(module(*qkv, mask), module(*qkv, mask))


def test_longformer_projects_the_rows_of_global_tokens_alone():
    module = LongformerAttention(**COMMON, **FULL, window=4, num_global=2).double()
    qkv, mask = inputs(37), masks(37)
    before = module(*qkv, mask)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    after = module(*qkv, mask)
    assert torch.equal(before[:, :, 2:], after[:, :, 2:])
    joined = [x.transpose(1, 2).flatten(2) for x in qkv]
    q, k, v = (
        F.linear(x, layer.weight, layer.bias).unflatten(-1, (H, D)).transpose(1, 2)
        for x, layer in zip(joined, (module.global_q, module.global_k, module.global_v), strict=True)
    )
    expected = twin.attention(q, k, v, mask, torch.ones(37, 37, dtype=torch.bool))
    torch.testing.assert_close(after[:, :, :2], expected[:, :, :2])


def test_sizes_follow_the_budget():
    assert [in_proportion(budget, window=64) for budget in (8, 64, 256)] == [2, 16, 64]
    assert [in_proportion(budget, window=50) for budget in (1, 8, 64, 256)] == [1, 2, 13, 50]
    with pytest.raises(ValueError, match=r"window must be at least 1\. Got 0\."):
        in_proportion(256, window=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LocalAttention(**COMMON, budget=-1), r"budget must be at least 0\. Got -1\."),
        (lambda: LongformerAttention(**COMMON, **FULL, window=4, num_global=-1), "num_global must be at least 0"),
        (lambda: BigBirdAttention(**COMMON, **FULL, block_size=4, num_random_blocks=-1), "num_random_blocks must"),
        (
            lambda: SinkhornAttention(**COMMON, **FULL, block_size=4, temperature=0.0),
            r"temperature must be positive and finite\. Got 0\.0\.",
        ),
        (
            lambda: SinkhornAttention(**COMMON, **FULL, block_size=4, num_iterations=0),
            r"num_iterations must be at least 1\. Got 0\.",
        ),
        (
            lambda: SinkhornAttention(**COMMON, **FULL, block_size=4, activation="relu"),
            r"activation must be one of sinkhorn, softmax\. Got 'relu'\.",
        ),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
