"""The target `max_batch`."""

from __future__ import annotations

import pytest

from lra.benchmarks import max_batch
from lra.records.benchmark_rows import load_rows
from scripts import benchmark
from tests.helpers.benchmark_rows import batch_row


@pytest.mark.slow
# 256 symbols, and 257
@pytest.mark.parametrize(("task", "attn"), [("image", "softmax_materialised"), ("text", "vmean")])
def test_the_largest_batch_is_less_than_wanted_where_memory_is_short(task, attn, tmp_path):
    benchmark.main(["max_batch", f"tasks={task}", f"attn={attn}", "memory_gib=0.5", f"out={tmp_path}"])
    (row,) = load_rows(tmp_path / "cpu-max_batch.jsonl")
    assert (row.task, row.backbone, row.status) == (task, attn, "ok")
    assert 1 <= row.largest < row.wanted


def test_the_table_has_a_column_for_each_task():
    lines = max_batch.render([batch_row("vmean", "text", 64), batch_row("vmean", "image", 128)]).splitlines()
    assert lines[0].startswith("Largest batch, by doubling, of full-length examples in 2 GiB")
    assert [line.split() for line in lines[3:]] == [
        ["vmean", "64", "128"],
        ["(the", "protocol's", "batch)", "128", "128"],
    ]
