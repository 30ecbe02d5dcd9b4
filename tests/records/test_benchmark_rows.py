"""Rows of benchmarks are read as they were written, and what is damaged is named."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from lra.errors import InputError
from lra.files import ROOT
from lra.records.benchmark_rows import (
    BatchRow,
    LengthCase,
    LengthRow,
    Origin,
    TrainRow,
    format_row,
    load_rows,
    measured,
    parse_row,
    target_of,
)
from tests.helpers.benchmark_rows import batch_row, flops_row, length_case, length_row, written

FILES = sorted((ROOT / "results" / "benchmarks").glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_rows_are_written_as_they_were_read(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    again = [json.loads(format_row(row)) for row in load_rows(path)]
    for line in lines:
        # A part of a training that aims at nothing once said so.
        if line.get("target_text") == "" and line["met"] is None:
            del line["target_text"], line["met"]
    assert again == lines


def test_a_row_is_what_was_written():
    for row in (length_row(), length_row(peak_bytes=None, cold_ms=1.5), length_case("out of memory")):
        assert parse_row("model", format_row(row)) == row
    assert parse_row("flops", format_row(flops_row("fnet", None, None))).quadratic is None
    assert format_row(replace(batch_row("vmean", "text", 1), largest=0, origin=Origin())) == (
        '{"task": "text", "backbone": "vmean", "memory_gib": 2.0, "protocol": "skeinformer", "budget": 256, '
        '"n": 1024, "wanted": 128, "status": "ok"}'
    )


def test_only_what_is_ok_was_measured():
    rows = [length_row(), length_case("out of memory"), replace(batch_row("vmean", "text", 0), status="out of memory")]
    assert measured(rows, LengthRow) == rows[:1]
    assert measured(rows, BatchRow) == []
    assert not isinstance(parse_row("attention", format_row(rows[1])), LengthRow)
    assert isinstance(parse_row("attention", format_row(rows[1])), LengthCase)


def damaged(**changes) -> str:
    values = {**json.loads(format_row(length_row())), **changes}
    return json.dumps({name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (damaged()[:-9], "Invalid JSON: EOF while parsing a string"),
        ("[1]", "it must be an object, not [1]"),
        ("", "Invalid JSON: EOF while parsing a value"),
        ("{}", "it lacks status"),
        ('{"status": "ok"}', "it lacks backbone, n, direction"),
        (damaged(ms=...), "it lacks ms"),
        (damaged(ratio_to_material=1.0), "it has fields that it should not have: ratio_to_material"),
        (damaged(ms="fast"), "ms must be a valid number, not 'fast'"),
        (damaged(n=True), "n must be a valid integer, not True"),
        (damaged(n=1.5), "n must be a valid integer, not 1.5"),
        (damaged(peak_bytes="1"), "peak_bytes must be a valid integer, not '1'"),
        (damaged(ms_quartiles=[1.0, None]), "ms_quartiles.1 must be a valid number, not None"),
        (damaged(rates=[]), "rates must be an object, not []"),
        (damaged(environment="a machine"), "origin.environment must be an object"),
        (damaged(status="failed: x"), "it has fields that it should not have: ms, ms_quartiles, repeats"),
    ],
)
def test_a_damaged_row_is_named_by_file_and_line_and_left_out(line, message, tmp_path, caplog):
    path = written(tmp_path / "cpu-attention.jsonl", [length_row()])
    path.write_text(f"{path.read_text()}{line}\n{format_row(length_row(n=1024))}\n")
    with caplog.at_level(logging.WARNING):
        rows = load_rows(path)
    assert [row.n for row in rows] == [512, 1024]
    [record] = caplog.records
    assert f"Left out: {path}, line 2: " in record.getMessage()
    assert message in record.getMessage()


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        load_rows(tmp_path / "cpu-attention.jsonl")
    with pytest.raises(InputError, match="named DEVICE-TARGET.jsonl with a target of attention, model"):
        load_rows(tmp_path / "rows.jsonl")
    assert [target_of(tmp_path / name) for name in ("cuda-max_batch.jsonl", "cpu-flops.json", "cpu-x.jsonl")] == [
        "max_batch", "", "",
    ]  # fmt: skip


def test_an_overhead_may_be_negative():
    """The faster of two loops is known to within the noise."""
    row = TrainRow(
        part="loop overhead", name="vmean", unit="% of a bare step", value=-0.2, quartiles=[-1.5, 0.4], ms=1.0,
        bare_ms=1.0, met=True, target_text="< 2",
    )  # fmt: skip
    assert parse_row("train", format_row(row)) == row
