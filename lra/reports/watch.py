"""What a sweep is doing: which runs are under way, how far they are and when they may end; what ended and what failed.

Whether a run is under way is told by the process that its folder names, not by its lock: a run that begins while its
lock is being tested would give up.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from lra.records.collection import load_records
from lra.records.folder import RunFolder
from lra.records.reading import leaving_out
from lra.records.record import RunRecord
from lra.reports.names import status_text
from lra.reports.report import Report, Table, write

SECONDS = 10.0
LATEST = 10
UNDER_WAY = ["running", "elsewhere"]
NOT_FINISHED = ["stopped", "failed", "interrupted"]
RESULTS = ["out of memory", "diverged"]
CLEAR = "\033[2J\033[H"


@dataclass(frozen=True)
class RunState:
    """How far a run is: `steps` of `of`; no accuracy before its first validation, no time left if it does not run."""

    task: str
    attn: str
    protocol: str
    scale: str
    seed: int
    status: str
    steps: int
    of: int
    val_accuracy: float | None
    seconds_left: float | None
    since: str


COLUMNS: dict[str, Callable[[RunState], str]] = {
    "task": lambda state: state.task,
    "attn": lambda state: state.attn,
    "protocol": lambda state: state.protocol,
    "scale": lambda state: state.scale,
    "seed": lambda state: str(state.seed),
    "status": lambda state: state.status,
    "steps": lambda state: f"{state.steps:,}",
    "of": lambda state: f"{state.of:,}",
    "validation %": lambda state: "" if state.val_accuracy is None else f"{100 * state.val_accuracy:.1f}",
    "time left": lambda state: "" if state.seconds_left is None else _duration(state.seconds_left),
    "since": lambda state: state.since,
}


def watch(results_dir: Path, *, once: bool = False, seconds: float = SECONDS) -> None:
    """Print the runs under way and those that ended, again and again until it is interrupted, or once."""
    while True:
        text = write(watch_report(results_dir), "terminal")
        print(text if once else f"{CLEAR}{text}\n\nEvery {seconds:.0f} s; Ctrl-C ends this, not the runs.", flush=True)
        if once:
            return
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            return


def watch_report(results_dir: Path) -> Report:
    """Report the state of every run of a results folder.

    Returns:
        A report whose frame has a row for each run that has begun: of those without a final record, the step of the
        last validation pass and the seconds left at the pace so far (without evaluation); NaN where there was none yet.
    """
    records = {run.key: run for run in load_records(results_dir)}
    states = []
    for folder in RunFolder.all(results_dir):
        record = records.get(folder.path.name)
        if record is None or not record.is_final:
            with leaving_out(folder.config):
                states.append(_begun(folder, record))
                records.pop(folder.path.name, None)
    states += [_ended(run) for run in sorted(records.values(), key=lambda run: run.date or "", reverse=True)]
    frame = pd.DataFrame([asdict(state) for state in states], columns=[field.name for field in fields(RunState)])
    counts = Counter(state.status for state in states)
    order = [*UNDER_WAY, *NOT_FINISHED, *RESULTS, "ok"]
    summary = ", ".join(f"{counts[name]} {name}" for name in sorted(counts, key=order.index)) or "Nothing has begun."
    groups = [
        ("Under way", UNDER_WAY, len(states)),
        ("Not finished, and not running: the same command goes on with them", NOT_FINISHED, len(states)),
        ("Failures that are results", RESULTS, len(states)),
        (f"Ended ok, the last {LATEST}", ["ok"], LATEST),
    ]
    tables = []
    for title, statuses, most in groups:
        if rows := [state for state in states if state.status in statuses][:most]:
            tables.append(Table.of(title, COLUMNS, rows))
    note = (
        "Time left: at the pace of training so far, from the last validation pass on and without evaluation; patience "
        "may end a run earlier. Elsewhere: begun on another machine, whose processes cannot be seen from here."
    )
    return Report(
        tables, frame, intro=[f"{results_dir}: {summary}"], notes=[note] * any(counts[name] for name in UNDER_WAY)
    )


def _holder(folder: RunFolder) -> tuple[str, str]:
    """Say whether the process that a folder names is running, and since when it has held the folder."""
    holder = folder.holder()
    if holder is None:
        return "stopped", ""
    if holder.host != socket.gethostname():
        return "elsewhere", holder.since
    try:
        os.kill(holder.process, 0)
    except ProcessLookupError:
        return "stopped", holder.since
    except PermissionError:  # it is another user's
        pass
    return "running", holder.since


def _begun(folder: RunFolder, record: RunRecord | None) -> RunState:
    config, point = folder.read_config(), _latest(folder)
    steps, total = int(point.get("step") or 0), config.get("trainer", {}).get("steps", 0)
    status, since = _holder(folder)
    if status == "stopped" and record is not None:
        status = record.status
    spent = point.get("train_seconds")
    seconds_left = spent / steps * (total - steps) if spent and steps and status in UNDER_WAY else None
    task, attn, protocol = (config[name]["name"] for name in ("task", "attn", "protocol"))
    return RunState(
        task, attn, protocol, config["scale"], config["seed"], status, steps, total, point.get("val_accuracy"),
        seconds_left, since,
    )  # fmt: skip


def _ended(run: RunRecord) -> RunState:
    steps = run.config.get("trainer", {}).get("steps", run.steps)
    return RunState(
        run.task, run.attn, run.protocol, run.scale, run.seed, status_text(run.status), run.steps, steps,
        run.val_accuracy, None, run.date or "",
    )  # fmt: skip


def _latest(folder: RunFolder) -> dict[str, int | float | None]:
    """Return the last point of the learning curve that can be read; {} where there is none."""
    point: dict[str, int | float | None] = {}
    with leaving_out(folder.metrics):
        for latest in folder.read_curve():
            point = latest
    return point


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
