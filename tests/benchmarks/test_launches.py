"""The target `launches`: a step that waits for nothing, more layers of operations, and what they were before."""

from __future__ import annotations

import pytest
import torch

from lra.benchmarks import launches
from lra.errors import InputError
from lra.records.benchmark_rows import LaunchesRow
from tests.helpers.benchmark_rows import flops_row, written

SMALL = {**launches.OPTIONS, "length": "32", "batch": "2", "budget": "8"}


def rows(**options: str) -> list[LaunchesRow]:
    return list(launches.measure({**SMALL, **options}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_for_nothing(precision):
    for row in rows(attn="softmax,skeinformer", precision=precision):
        assert set(row.waits) == {"forward", "backward", "optimizer"}
        assert sum(row.waits.values()) == 0
        assert all(row.launches.values())


def test_operations_do_not_depend_on_the_size_of_the_batch():
    one, two = (launches.count("skeinformer", 32, batch, 8, "fp32", torch.device("cpu")) for batch in (2, 5))
    assert one.launches == two.launches


def test_a_row_has_the_counts_before(tmp_path):
    [before] = rows(attn="softmax")
    path = written(tmp_path / "cpu-launches.jsonl", [before])
    same, new = rows(attn="softmax,vmean", against=str(path))
    assert (same.launches_before, same.waits_before) == (sum(before.launches.values()), 0)
    assert (new.launches_before, new.waits_before) == (None, None)
    lines = launches.render([same, new]).splitlines()
    assert lines[-2].split()[4] == lines[-2].split()[5]
    assert lines[-1].split()[5] == "-"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16. Got 'fp8'."),
        ({"length": "0"}, "length must be an integer, at least 1. Got '0'."),
        ({"against": "nowhere/cpu-launches.jsonl"}, "is no file"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(InputError, match=message):
        rows(**options)


def test_rows_of_another_target_are_refused(tmp_path):
    path = written(tmp_path / "cpu-flops.jsonl", [flops_row("softmax", 2.0, 0.0)])
    with pytest.raises(InputError, match="must be a file of the target launches"):
        rows(against=str(path))
