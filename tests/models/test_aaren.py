"""Aaren: causal softmax attention with one query, and the recurrence of the paper, token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.aaren import AarenAttention, prefix_softmax

B, H, L, D = 2, 3, 41, 5
SIZES = {"num_heads": H, "head_dim": D, "max_len": 64, "dropout": 0.0}


def inputs() -> tuple[Tensor, Tensor]:
    k, v = torch.randn(2, B, H, L, D, generator=torch.Generator().manual_seed(0)).double().unbind()
    return k, v


def holey() -> Tensor:
    """The first sequence begins and ends with padding, and has a hole."""
    positions = torch.arange(L)
    return torch.stack([(positions > 3) & (positions < 35) & (positions != 20), positions >= 0])


def step_by_step(scores: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Section 3.2 of the paper: (a, c, m) carried from token to token."""
    out = torch.zeros_like(values)
    for b in range(len(mask)):
        for h in range(scores.shape[1]):
            m, c, a = torch.tensor(-torch.inf).double(), torch.zeros(()).double(), torch.zeros(D).double()
            for t in range(mask.shape[1]):
                if mask[b, t]:
                    s = scores[b, h, t]
                    larger = torch.maximum(m, s)
                    c = c * (m - larger).exp() + (s - larger).exp()
                    a = a * (m - larger).exp() + (s - larger).exp() * values[b, h, t]
                    m = larger
                if c > 0:
                    out[b, h, t] = a / c
    return out


@pytest.mark.parametrize("size", [1, 30, 3000])
def test_it_is_the_recurrence_of_the_paper(size):
    (k, v), mask = inputs(), holey()
    scores = size * k[..., 0]
    expected = step_by_step(scores, v, mask)
    torch.testing.assert_close(prefix_softmax(scores, v, mask), expected, rtol=1e-12, atol=1e-12)
    ahead = step_by_step(scores.flip(-1), v.flip(2), mask.flip(1)).flip(2)
    torch.testing.assert_close(prefix_softmax(scores, v, mask, reverse=True), ahead, rtol=1e-12, atol=1e-12)
    assert expected[0, :, :4].count_nonzero() == 0


@pytest.mark.parametrize("scale", [None, 1.0, 0.7])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_it_is_softmax_attention_with_the_query_repeated(bidirectional, scale):
    module = AarenAttention(**SIZES, bidirectional=bidirectional, scale=scale).double()
    (k, v), mask = inputs(), holey()
    k, v = k.requires_grad_(), v.requires_grad_()
    back = torch.ones(L, L, dtype=torch.bool).tril()
    seen = []
    for query, causal in zip(module.queries, (back, back.T), strict=False):
        keys = mask[:, None, None] & causal
        q = query[None, :, None].expand(B, -1, L, -1)
        seen.append(F.scaled_dot_product_attention(q, k, v, attn_mask=keys, scale=scale))
    real = mask[:, None, :, None]
    expected, out = (torch.where(real, x, 0) for x in (sum(seen) / len(seen), module(k, k, v, mask)))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn(out.shape, dtype=torch.float64)
    given = (k, v, module.queries)
    for some, other in zip(
        torch.autograd.grad(out, given, direction), torch.autograd.grad(expected, given, direction), strict=True
    ):
        torch.testing.assert_close(some, other, rtol=1e-10, atol=1e-12)


def test_what_lies_far_below_the_largest_score_leaves_no_nan():
    scores = torch.tensor([[[3e38, -3e38, 0.0, 3e38]]], requires_grad=True)
    values = torch.arange(4.0).view(1, 1, 4, 1)
    out = prefix_softmax(scores, values, torch.ones(1, 4, dtype=torch.bool))
    assert out.flatten().tolist() == [0, 0, 0, 1.5]
    assert torch.autograd.grad(out.sum(), scores)[0].isfinite().all()


def test_a_wrong_scale_is_refused():
    with pytest.raises(ValueError, match=r"^scale must be positive and finite. Got 0.0.$"):
        AarenAttention(**SIZES, scale=0.0)
