"""The tables and figures of rows."""

from __future__ import annotations

import logging

import pytest

from lra.benchmarks import report
from lra.benchmarks.targets import TARGETS
from lra.errors import InputError
from lra.files import ROOT
from lra.records.benchmark_rows import KINDS, load_rows, target_of
from tests.helpers.benchmark_rows import flops_row, written


def test_committed_rows_can_be_laid_out(caplog):
    paths = sorted((ROOT / "results" / "benchmarks").glob("*.jsonl"))
    assert paths
    for path in paths:
        rows = load_rows(path)
        assert rows, path
        for row in rows:
            assert row.origin.target == target_of(path), path
            assert row.origin.environment, path
            assert row.origin.commit, path
        assert TARGETS[target_of(path)].render(rows), path
    assert not caplog.records  # nothing was left out


def test_every_target_has_a_kind_of_rows():
    assert list(KINDS) == list(TARGETS)


def test_a_damaged_row_is_named_and_the_others_are_laid_out(tmp_path, caplog):
    path = written(tmp_path / "cpu-flops.jsonl", [flops_row("softmax", 2.0, 0.0), flops_row("vmean", 0.0, 0.0)])
    with path.open("a") as file:
        file.write('{"status": "ok", "backb')
    with caplog.at_level(logging.WARNING):
        report.write(tmp_path)
    assert f"Left out: {path}, line 3: " in caplog.text
    assert "vmean" in (tmp_path / "tables.md").read_text()
    path.write_text("{}\n")
    with pytest.raises(InputError, match="There are no rows in"):
        report.write(tmp_path)
