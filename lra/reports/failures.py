"""Runs that did not end ok, never ended, or had no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lra.records.record import RunRecord
from lra.reports.names import scale_order, status_text
from lra.reports.own_settings import own_settings
from lra.reports.report import Report, Table

LONGEST_REASON = 90
NOTE = (
    "Diverged and out of memory are results: the same command does not run them again. It does run failed, interrupted "
    "and unfinished ones again."
)


@dataclass(frozen=True)
class Failure:
    """A run that did not end ok, or the runs of a task without data: these have no mechanism, seed or device."""

    scale: str
    protocol: str
    task: str
    attn: str | None = None
    seed: int | None = None
    device: str | None = None
    status: str = ""
    steps: int | None = None
    reason: str = ""
    key: str | None = None
    command: str | None = None
    own_settings: str = ""

    @classmethod
    def of_run(cls, run: RunRecord) -> Failure:
        """Describe a run that did not end ok; the reason is the last line of its error."""
        return cls(
            run.scale, run.protocol, run.task, run.attn, run.seed, run.device, status_text(run.status), run.steps,
            (run.error or "").strip().rpartition("\n")[2], run.key, run.command, own_settings([run]),
        )  # fmt: skip

    @classmethod
    def of_unfinished(cls, config: Mapping[str, Any]) -> Failure:
        """Describe a run that has left no record, by its configuration."""
        task, attn, protocol = (config[name]["name"] for name in ("task", "attn", "protocol"))
        return cls(
            config["scale"], protocol, task, attn, config["seed"], config["device"], "unfinished",
            reason="no record yet: it runs still, or was killed",
        )  # fmt: skip

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts failures by scale, protocol, task, mechanism and seed; what has no mechanism last."""
        names = (self.attn is None, self.attn or "", self.seed is None, self.seed or 0)
        return scale_order(self.scale), self.protocol, self.task, *names

    @property
    def name(self) -> str:
        """The mechanism, with the run's own settings; "" where there is none."""
        return f"{self.attn or ''}{f' [own: {self.own_settings}]' if self.own_settings else ''}"

    @property
    def short_reason(self) -> str:
        """The reason, cut to the width of a table."""
        return self.reason if len(self.reason) <= LONGEST_REASON else self.reason[: LONGEST_REASON - 3] + "..."


COLUMNS: dict[str, Callable[[Failure], str]] = {
    "scale": lambda failure: failure.scale,
    "protocol": lambda failure: failure.protocol,
    "task": lambda failure: failure.task,
    "attn": lambda failure: failure.name,
    "seed": lambda failure: "" if failure.seed is None else f"{failure.seed:,}",
    "device": lambda failure: failure.device or "",
    "status": lambda failure: failure.status,
    "steps": lambda failure: "" if failure.steps is None else f"{failure.steps:,}",
    "reason": lambda failure: failure.short_reason,
    "key": lambda failure: failure.key or "",
}


def failure_report(
    records: Sequence[RunRecord],
    *,
    unfinished: Sequence[Mapping[str, Any]] = (),
    missing: Mapping[tuple[str, str, str], str] | None = None,
) -> Report:
    """List the runs that did not end ok, with the last line of each error.

    Args:
        records: all there are.
        unfinished: configurations of runs without a record.
        missing: why data could not be had, by task, protocol and scale.
    """
    failures = [Failure.of_run(run) for run in records if run.status != "ok"]
    failures += [Failure.of_unfinished(config) for config in unfinished]
    failures += [
        Failure(scale, protocol, task, status="no data", reason=reason)
        for (task, protocol, scale), reason in (missing or {}).items()
    ]
    failures.sort(key=lambda failure: failure.order)
    frame = pd.DataFrame([asdict(failure) for failure in failures], columns=[*COLUMNS, "command", "own_settings"])
    if not failures:
        return Report([], frame, notes=["No run ended otherwise than ok."])
    return Report([Table.of(f"{len(failures)} runs that did not end ok", COLUMNS, failures)], frame, notes=[NOTE])
