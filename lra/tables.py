"""From records to tables: one row a backbone, one column a task, failures and floors included."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lra.errors import InputError
from lra.intervals import half_width, sampling_half_width
from lra.record import RECORD_NAME, RunRecord, write_atomically

log = logging.getLogger(__name__)

MEASURED = Path("measured", "records.jsonl")
# Runs on different data, or on different kinds of machine, never share a table.
TABLE_COLUMNS = ["scale", "protocol", "device"]
# The name of a record that is no attention mechanism's begins with this; it stands beneath the table.
BASELINE = "baseline_"
STATUS_TEXT = {"out_of_memory": "out of memory"}


def load_records(results_dir: Path) -> list[RunRecord]:
    """Read the records of `runs/` and those collected in `measured/`, each key once, the run's own folder first.

    A record that cannot be read is named in a warning and left out.

    Raises:
        InputError: there is no such folder.
    """
    if not results_dir.is_dir():
        raise InputError(f"There is no results folder {results_dir.resolve()}. Name another with results_dir=.")
    records: dict[str, RunRecord] = {}
    for path in sorted((results_dir / "runs").glob(f"*/*/*/{RECORD_NAME}")):
        try:
            record = RunRecord.read(path)
            records[record.key] = record
        except ValueError as error:
            log.warning("Left out: %s", error)
    for record in load_measured(results_dir):
        records.setdefault(record.key, record)
    return list(records.values())


def load_measured(results_dir: Path) -> list[RunRecord]:
    """Read the collected records, one JSON object a line; [] where none were collected."""
    path = results_dir / MEASURED
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(RunRecord.parse(line))
        except ValueError as error:
            log.warning("Left out: %s, line %d: %s", path, number, error)
    return records


def collect(results_dir: Path) -> tuple[Path, int]:
    """Merge the final records of `runs/` into `measured/`, sorted, each key once.

    Returns:
        The file, and how many records it now holds.
    """
    records = [record for record in load_records(results_dir) if record.is_final]
    records.sort(key=lambda record: (record.scale, record.protocol, record.task, record.attn, record.seed, record.key))
    path = results_dir / MEASURED
    write_atomically(path, "".join(json.dumps(record.as_dict()) + "\n" for record in records))
    return path, len(records)


def to_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Put records in a data frame: a row a run, a column a field."""
    return pd.DataFrame([record.as_dict() for record in records])


def leaderboard(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Summarise runs that differ in their seed alone.

    Returns:
        A row for each `group`, with scale, protocol, device, task, data (the variant and the checksum of the test
        split), attn, n (runs that ended ok), accuracy (mean, a fraction) and half_width of its 95 % interval (both
        None if n is 0), failures (a Counter of the other statuses), ms_per_step (median over runs), and settings
        (what tells the row from others with the same name, "" where it has none).
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    rows = []
    for group, runs in groups.items():
        good = [run for run in runs if run.status == "ok" and run.test_accuracy is not None]
        accuracies = [run.test_accuracy for run in good if run.test_accuracy is not None]
        times = [run.ms_per_step for run in good if run.ms_per_step is not None]
        first = runs[0]
        rows.append(
            {
                "group": group,
                **{name: getattr(first, name) for name in TABLE_COLUMNS},
                "task": first.task,
                "data": _data_name(first),
                "attn": first.attn,
                "n": len(accuracies),
                "accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
                "half_width": half_width(accuracies, first.data["sizes"]["test"]) if accuracies else None,
                "failures": Counter(run.status for run in runs if run.status != "ok"),
                "ms_per_step": pd.Series(times).median() if times else None,
                "settings": _settings(first, [others[0] for others in groups.values()]),
            }
        )
    return pd.DataFrame(rows)


def render(records: Sequence[RunRecord]) -> str:
    """Print the leaderboard as Markdown: a table for each scale, protocol and kind of device, floors beneath."""
    if not records:
        return "No records yet: train something first, for example with `make run`."
    board = leaderboard(records)
    parts = []
    for name, rows in board.groupby(TABLE_COLUMNS, sort=True):
        scale, protocol, device = name
        chosen = [run for run in records if (run.scale, run.protocol, run.device) == name]
        parts.append(f"### scale={scale}, protocol={protocol}, on {device}\n\n{_table(rows, chosen)}\n")
    legend = (
        "Test accuracy in % at the best validation step: mean over n seeds ± half the 95 % interval (Student's over "
        "the seeds, widened by the sampling error of the test set; one seed shows that error alone). Floors need no "
        "model."
    )
    return "\n".join([*parts, legend])


def _table(rows: pd.DataFrame, records: Sequence[RunRecord]) -> str:
    columns = list(dict.fromkeys(zip(rows["task"], rows["data"], strict=True)))
    several = Counter(task for task, _ in columns)
    heads = [task if several[task] == 1 else f"{task} ({data})" for task, data in columns]
    labels = [_label(attn, settings) for attn, settings in zip(rows["attn"], rows["settings"], strict=True)]
    rows = rows.assign(label=labels, baseline=rows["attn"].str.startswith(BASELINE))
    means = rows.groupby(["label", "baseline"], as_index=False)["accuracy"].mean()
    lines = []
    order = sorted(means.itertuples(), key=lambda row: (row.baseline, -row.accuracy if pd.notna(row.accuracy) else 1))
    for label in (row.label for row in order):
        mine = rows[rows["label"] == label].set_index(["task", "data"])
        cells = [_cell(mine.loc[[column]].iloc[0]) if column in mine.index else "" for column in columns]
        lines.append([label, *cells])
    return markdown(["attn", *heads], [*lines, *_floor_lines(records, columns)])


def _label(attn: str, settings: str) -> str:
    name = f"baseline: {attn.removeprefix(BASELINE)}" if attn.startswith(BASELINE) else attn
    return f"{name} [{settings}]" if settings else name


def _floor_lines(records: Sequence[RunRecord], columns: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Lay out the floors, the highest first."""
    floors: dict[str, dict[tuple[str, str], float]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for record in records:
        column = record.task, _data_name(record)
        sizes[column] = record.data["sizes"]["test"]
        for name, accuracy in record.floors.items():
            floors.setdefault(name, {})[column] = accuracy
    return [
        [f"floor: {name}", *(_percent(found[column], sizes[column]) if column in found else "" for column in columns)]
        for name, found in sorted(floors.items(), key=lambda item: -max(item[1].values()))
    ]


def _percent(accuracy: float, num_test: int) -> str:
    return f"{100 * accuracy:.1f} ± {100 * sampling_half_width(accuracy, num_test):.1f}"


def _cell(row: pd.Series) -> str:
    failures = ", ".join(f"{count} {STATUS_TEXT.get(status, status)}" for status, count in row["failures"].items())
    if row["n"] == 0:
        return failures
    cell = f"{100 * row['accuracy']:.1f} ± {100 * row['half_width']:.1f} (n={row['n']})"
    return f"{cell}, {failures}" if failures else cell


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table whose columns line up in a terminal too."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    ruled = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in ruled
    )


def _data_name(record: RunRecord) -> str:
    return f"{record.data['source']}, {record.data['variant']}, {record.data['sha256']['test'][:8]}"


def _settings(run: RunRecord, others: Sequence[RunRecord]) -> str:
    """Name the settings in which a run differs from others of the same name, task, data, scale, protocol and device."""
    alike = [
        _flat(other.config)
        for other in others
        if (other.attn, other.task, _data_name(other)) == (run.attn, run.task, _data_name(run))
        and all(getattr(other, name) == getattr(run, name) for name in TABLE_COLUMNS)
    ]
    mine = _flat({name: value for name, value in run.config.items() if name not in ("seed", "prepared")})
    differing = [name for name in mine if any(other.get(name) != mine[name] for other in alike)]
    if len(alike) > 1 and not differing:  # in something that only the others have
        return run.group
    return ", ".join(f"{name}={mine[name]}" for name in differing)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
