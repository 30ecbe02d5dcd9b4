"""The target `operators`: what is compared computes the same, and every quantity has its row."""

from __future__ import annotations

import pytest
import torch

from lra.benchmarks import operators
from lra.records.benchmark_rows import load_rows
from models.ops.fft_convolution import convolve
from models.ops.scan import scan
from scripts import benchmark


@pytest.mark.parametrize("length", [64, 100, 200])
def test_the_three_ways_run_the_same_recurrence(length):
    decay = torch.rand(3, dtype=torch.float64)
    x = torch.randn(2, length, 3, dtype=torch.float64)
    expected = scan(decay.view(1, 1, 3), x)
    torch.testing.assert_close(convolve(x, operators.powers(decay, length)), expected)
    torch.testing.assert_close(operators.chunk_by_chunk(decay, x), expected)


def test_every_length_and_every_growth_has_a_row(tmp_path):
    benchmark.main(
        ["operators", "lengths=64,128,256", "channels=2", "batch=1", "repeats=1", "seconds=1", f"out={tmp_path}"]
    )
    names = [row.name for row in load_rows(tmp_path / "cpu-operators.jsonl")]
    made = operators.cases(1, 1, 64, torch.device("cpu"))
    assert names[-2:] == ["scan / recurrence by FFT", "scan / recurrence chunk by chunk"]
    for case in made:
        assert [name for name in names if name.startswith(f"{case}, L")] == [f"{case}, L = {n}" for n in (64, 128, 256)]
        assert f"{case}, growth" in names
