"""What every run cost beside what it reached, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lra.records.record import RunRecord, accuracy_of, tested
from lra.reports.names import STATUS_TEXT, TABLE_COLUMNS, data_name, label, scale_order
from lra.reports.report import Report, Table, each

PLACE = [*TABLE_COLUMNS, "task", "data", "device_name"]
COSTS = {"ms_per_step": "t", "peak_memory_bytes": "m", "training_flops": "f"}

COST_FIELDS = (
    "steps", "batch_size", "micro_batch", "dtype", "train_seconds", "wall_seconds", "ms_per_step",
    "tokens_per_second", "load_average", "peak_memory_bytes", "forward_flops", "training_flops", "num_params",
)  # fmt: skip
HEAD = (
    "attn", "seed", "accuracy %", "steps", "train s", "ms/step", "load", "peak MiB", "MFLOP forward", "MFLOP training",
    "parameters", "front",
)  # fmt: skip
LEGEND = (
    "A row a run. Train s: training steps alone, without evaluation; ms/step: median; load: threads that wanted a core "
    "in the last minute of training, those of other programs included, where it was noted; peak MiB: during training "
    "steps; MFLOP: of one example of the longest length, forward, and forward and backward, a multiplication and an "
    "addition being two. Front: no run of its table is as accurate and cheaper in t time a step, m memory, f training "
    "operations."
)


def cost_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Put accuracy and cost of every record in a frame, a row a run.

    Returns:
        Names, status, accuracy (a fraction), the costs in the units of the record, and `front`: for which of t (time a
        step), m (peak memory), f (operations in training) no run of the same task, data, scale, protocol and machine
        is as accurate and cheaper, or as cheap and more accurate.
    """
    rows = [
        {
            **{name: getattr(run, name) for name in (*TABLE_COLUMNS, "task")},
            "data": data_name(run),
            "attn": run.attn,
            "seed": run.seed,
            "status": run.status,
            "tested": tested(run),
            "accuracy": accuracy_of(run),
            **{name: getattr(run, name) for name in COST_FIELDS},
            "device_name": machine_of(run),
            "front": "",
            "key": run.key,
        }
        for run in records
    ]
    frame = pd.DataFrame(rows)
    for _, alike in frame.groupby(PLACE) if rows else ():
        for cost, letter in COSTS.items():
            here = alike[alike["accuracy"].notna() & alike[cost].notna()]
            for row in here.index:
                accuracy, price = here.loc[row, "accuracy"], here.loc[row, cost]
                beaten = (here["accuracy"] >= accuracy) & (here[cost] <= price)
                beaten &= (here["accuracy"] > accuracy) | (here[cost] < price)
                if not beaten.any():
                    frame.loc[row, "front"] += letter
    return frame


def cost_report(records: Sequence[RunRecord]) -> Report:
    """Lay the costs out: a table for each task, data, scale, protocol and device, the most accurate run first."""
    frame = cost_frame(records)
    tables = []
    parts = [] if frame.empty else [(tuple(map(str, name)), rows) for name, rows in frame.groupby(PLACE)]
    for name, rows in sorted(parts, key=lambda part: (scale_order(part[0][0]), part[0])):
        scale, protocol, device, task, data, machine = name
        lines = [
            [
                label(row.attn, ""), str(row.seed),
                _text(row.accuracy, 100, "{:.1f}") or STATUS_TEXT.get(row.status, row.status),
                f"{row.steps:,}", _text(row.train_seconds, 1, "{:,.1f}"), _text(row.ms_per_step, 1, "{:,.2f}"),
                _text(row.load_average, 1, "{:.1f}"),
                _text(row.peak_memory_bytes, 2**-20, "{:,.0f}"), _text(row.forward_flops, 1e-6, "{:,.1f}"),
                _text(row.training_flops, 1e-6, "{:,.1f}"), _text(row.num_params, 1, "{:,.0f}"), row.front,
            ]
            for row in each(rows.sort_values("accuracy", ascending=False, na_position="last", kind="stable"))
        ]  # fmt: skip
        tables.append(
            Table(
                f"{task}, scale={scale}, protocol={protocol}, on {device}",
                HEAD,
                lines,
                [f"Data: {data}. Machine: {machine or device}."],
            )
        )
    return Report(tables, frame, notes=[LEGEND] if tables else ["No records yet."])


def machine_of(run: RunRecord) -> str:
    """Name what a run's times are of; on a CPU the number of threads belongs to it."""
    name, threads = run.environment.get("device_name") or "", run.environment.get("num_threads")
    return f"{name}, {threads} thread{'s' * (threads != 1)}" if name and threads and run.device == "cpu" else name


def _text(value: float | None, factor: float, form: str) -> str:
    return "" if value is None or pd.isna(value) else form.format(value * factor)
