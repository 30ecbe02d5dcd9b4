"""FNet: the transform is that of its definition, and as large as it should be."""

from __future__ import annotations

import torch

from models.mixers.fnet import FNet
from tests.helpers.contract import MAX_LEN, B, holey_mask

C = 12


def test_it_is_the_double_sum_of_the_definition():
    mixer, mask = FNet(dim=C, max_len=MAX_LEN, dropout=0.0), holey_mask()
    x = torch.randn(B, 37, C, dtype=torch.float64)
    rows, columns = torch.arange(MAX_LEN), torch.arange(C)
    over_length, over_width = (
        torch.polar(torch.ones(n, n, dtype=torch.float64), -2 * torch.pi * (i[:, None] * i % n).double() / n)
        for n, i in ((MAX_LEN, rows), (C, columns))
    )
    expected = torch.zeros(B, 37, C, dtype=torch.float64)
    for b in range(B):
        for i in mask[b].nonzero()[:, 0]:
            total = sum(over_length[i, j] * x[b, j] for j in mask[b].nonzero()[:, 0])
            expected[b, i] = (total @ over_width).real
    torch.testing.assert_close(mixer(x, mask), expected, rtol=0, atol=1e-11)


def test_scaled_rows_stay_as_large_as_they_were_however_many_tokens_are_real():
    mixer = FNet(dim=64, max_len=MAX_LEN, dropout=0.0, scaled=True)
    mask = torch.arange(MAX_LEN) < torch.tensor([[MAX_LEN], [16]])
    mixed = mixer(torch.randn(2, MAX_LEN, 64), mask)
    for row, real in zip(mixed, mask, strict=True):
        assert 0.6 < row[real].std() < 0.8  # the real part of a number has half of its variance
    plain = FNet(dim=64, max_len=MAX_LEN, dropout=0.0)
    x = torch.randn(2, MAX_LEN, 64, dtype=torch.float64)
    torch.testing.assert_close(mixer(x, mask)[1], plain(x, mask)[1] / (16 * 64) ** 0.5)
