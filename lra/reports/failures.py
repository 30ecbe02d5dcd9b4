"""Runs that are no result, or a bad one: what ended otherwise than ok, what never ended, what had no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lra.records.record import RunRecord
from lra.reports.names import STATUS_TEXT, scale_order
from lra.reports.report import Report, Table

COLUMNS = ["scale", "protocol", "task", "attn", "seed", "device", "status", "steps", "reason", "key", "command"]
LONGEST_REASON = 90


def failure_report(
    records: Sequence[RunRecord],
    *,
    unfinished: Sequence[Mapping[str, Any]] = (),
    missing: Mapping[tuple[str, str, str], str] | None = None,
) -> Report:
    """List them, with the last line of what each said.

    Args:
        records: all there are.
        unfinished: configurations of runs without a record.
        missing: why data could not be had, by task, protocol and scale.
    """
    rows = [
        {
            **{name: getattr(run, name) for name in COLUMNS if hasattr(run, name)},
            "status": STATUS_TEXT.get(run.status, run.status),
            "reason": (run.error or "").strip().rpartition("\n")[2],
        }
        for run in records
        if run.status != "ok"
    ]
    rows += [
        {
            "scale": config["scale"], "protocol": config["protocol"]["name"], "task": config["task"]["name"],
            "attn": config["attn"]["name"], "seed": config["seed"], "device": config["device"], "status": "unfinished",
            "reason": "no record yet: it runs still, or was killed",
        }
        for config in unfinished
    ]  # fmt: skip
    rows += [
        {"scale": scale, "protocol": protocol, "task": task, "status": "no data", "reason": reason}
        for (task, protocol, scale), reason in (missing or {}).items()
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame = frame.sort_values(COLUMNS[:5], key=lambda c: c.map(scale_order) if c.name == "scale" else c)
    shown = frame.drop(columns="command").astype(object).where(frame.drop(columns="command").notna(), "")
    shown["reason"] = [
        text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..." for text in shown["reason"]
    ]
    for column in ("seed", "steps"):
        shown[column] = ["" if value == "" else f"{int(value):,}" for value in shown[column]]
    if frame.empty:
        return Report([], frame, notes=["No run ended otherwise than ok."])
    note = (
        "Diverged and out of memory are results: the same command does not run them again. It does run failed, "
        "interrupted and unfinished ones again."
    )
    title = f"{len(frame)} without a good end"
    return Report([Table(title, list(shown.columns), shown.astype(str).values.tolist())], frame, notes=[note])
