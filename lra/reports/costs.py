"""What every run cost, and the Pareto front of accuracy and cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lra.records.record import RunRecord, accuracy_of, tested
from lra.reports.names import Setting, data_name, label, status_text
from lra.reports.own_settings import own_settings
from lra.reports.report import Report, Table

COSTS = {"ms_per_step": "t", "peak_memory_bytes": "m", "training_flops": "f"}

COST_FIELDS = (
    "steps", "batch_size", "micro_batch", "dtype", "train_seconds", "wall_seconds", "ms_per_step",
    "tokens_per_second", "load_average", "peak_memory_bytes", "forward_flops", "training_flops", "num_params",
)  # fmt: skip
LEGEND = (
    "A row a run. Train s: training steps alone, without evaluation; ms/step: median; load: threads that wanted a core "
    "in the last minute of training, those of other programs included, where it was noted; peak MiB: during training "
    "steps; MFLOP: of one example of the longest length, forward, and forward and backward, a multiplication and an "
    "addition being two. Front: no run of its table is as accurate and cheaper in t time a step, m memory, f training "
    "operations; for t only runs compete whose times count: on a CPU those with a load of no more than their threads."
)


@dataclass(frozen=True)
class RunCost:
    """A run with its accuracy, its machine and its place on the Pareto front.

    Attributes:
        accuracy: a fraction; None if the run did not end ok.
        machine: on which its times were measured.
        front: for which of t (time a step), m (peak memory), f (operations in training) no run of the same task, data,
            scale, protocol and machine is as accurate and cheaper, or as cheap and more accurate; times that do not
            count are on no front.
    """

    run: RunRecord
    accuracy: float | None
    machine: str
    front: str


def run_costs(records: Sequence[RunRecord]) -> list[RunCost]:
    """Find the Pareto front among the runs of each task, data set, setting and machine."""
    rivals = contests(records)
    return [RunCost(run, accuracy_of(run), machine_of(run), _front(run, rivals[_contest(run)])) for run in records]


def cost_frame(costs: Sequence[RunCost]) -> pd.DataFrame:
    """Put costs in a data frame, a row a run: names, status, accuracy, costs in the units of the record, front."""
    return pd.DataFrame([_frame_row(cost) for cost in costs])


def cost_report(records: Sequence[RunRecord]) -> Report:
    """Lay the costs out: a table for each task, data, scale, protocol and device, the most accurate run first."""
    costs = run_costs(records)
    tables: dict[tuple[str, ...], list[RunCost]] = {}
    for cost in costs:
        tables.setdefault(_contest(cost.run), []).append(cost)
    laid_out = []
    for contest, rows in sorted(tables.items(), key=lambda item: (Setting(*item[0][:3]).order, item[0])):
        *setting, task, data, machine = contest
        title = f"{task}, {Setting(*setting).title}"
        notes = [f"Data: {data}. Machine: {machine or Setting(*setting).device}.", *_times_note(rows)]
        laid_out.append(Table.of(title, COLUMNS, sorted(rows, key=_most_accurate_first), notes))
    return Report(laid_out, cost_frame(costs), notes=[LEGEND] if costs else ["No records yet."])


def machine_of(run: RunRecord) -> str:
    """Name the machine of a run's times; on a CPU with the number of threads."""
    name, threads = run.environment.get("device_name") or "", run.environment.get("num_threads")
    return f"{name}, {threads} thread{'s' * (threads != 1)}" if name and threads and run.device == "cpu" else name


def times_count(run: RunRecord) -> bool:
    """Say whether a run's times are its own: on a CPU only where no more threads wanted a core than it has.

    Of a run without a note of its load nobody knows. On a GPU the load of the host says little.
    """
    if run.device != "cpu":
        return True
    threads, load = run.environment.get("num_threads"), run.load_average
    return threads is not None and load is not None and load <= threads


def contests(records: Iterable[RunRecord]) -> dict[tuple[str, ...], list[RunRecord]]:
    """Group records whose costs can be compared: by scale, protocol, device, task, data and machine."""
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in records:
        groups.setdefault(_contest(run), []).append(run)
    return groups


def _times_note(rows: Sequence[RunCost]) -> list[str]:
    """Say how many times of a table are on no front, and what to look at instead."""
    left_out = sum(cost.accuracy is not None and not times_count(cost.run) for cost in rows)
    if not left_out:
        return []
    return [
        f"No front of times for {left_out} of {len(rows)} runs: others ran beside them, or no load was noted. See f "
        "instead, or the times of `python scripts/benchmark.py`, which runs alone."
    ]


def _contest(run: RunRecord) -> tuple[str, ...]:
    """Return what runs share whose costs can be compared: setting, task, data and machine."""
    return *Setting.of(run), run.task, data_name(run), machine_of(run)


def price_of(run: RunRecord, cost: str) -> float | None:
    """Return a cost of COSTS that runs may be compared by; None where there is none."""
    return None if cost == "ms_per_step" and not times_count(run) else getattr(run, cost)


def _front(run: RunRecord, rivals: Sequence[RunRecord]) -> str:
    return "".join(letter for name, letter in COSTS.items() if _is_on_front(run, rivals, name))


def _is_on_front(run: RunRecord, rivals: Sequence[RunRecord], cost: str) -> bool:
    accuracy, price = accuracy_of(run), price_of(run, cost)
    if accuracy is None or price is None:
        return False
    for rival in rivals:
        reached, paid = accuracy_of(rival), price_of(rival, cost)
        if reached is None or paid is None:
            continue
        if reached >= accuracy and paid <= price and (reached > accuracy or paid < price):
            return False
    return True


def _most_accurate_first(cost: RunCost) -> float:
    return math.inf if cost.accuracy is None else -cost.accuracy


def _frame_row(cost: RunCost) -> dict[str, Any]:
    run = cost.run
    return {
        **Setting.of(run)._asdict(), "task": run.task, "data": data_name(run), "attn": run.attn, "seed": run.seed,
        "own_settings": own_settings([run]), "status": run.status, "tested": tested(run), "accuracy": cost.accuracy,
        **{name: getattr(run, name) for name in COST_FIELDS}, "device_name": cost.machine, "front": cost.front,
        "key": run.key,
    }  # fmt: skip


def _text(value: float | None, factor: float, form: str) -> str:
    return "" if value is None or math.isnan(value) else form.format(value * factor)


COLUMNS: dict[str, Callable[[RunCost], str]] = {
    "attn": lambda cost: label(cost.run),
    "seed": lambda cost: str(cost.run.seed),
    "accuracy %": lambda cost: _text(cost.accuracy, 100, "{:.1f}") or status_text(cost.run.status),
    "steps": lambda cost: f"{cost.run.steps:,}",
    "train s": lambda cost: _text(cost.run.train_seconds, 1, "{:,.1f}"),
    "ms/step": lambda cost: _text(cost.run.ms_per_step, 1, "{:,.2f}"),
    "load": lambda cost: _text(cost.run.load_average, 1, "{:.1f}"),
    "peak MiB": lambda cost: _text(cost.run.peak_memory_bytes, 2**-20, "{:,.0f}"),
    "MFLOP forward": lambda cost: _text(cost.run.forward_flops, 1e-6, "{:,.1f}"),
    "MFLOP training": lambda cost: _text(cost.run.training_flops, 1e-6, "{:,.1f}"),
    "parameters": lambda cost: _text(cost.run.num_params, 1, "{:,.0f}"),
    "front": lambda cost: cost.front,
}
