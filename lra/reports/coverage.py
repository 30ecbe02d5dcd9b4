"""Which runs of an experiment exist, which failed, which are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lra.records.record import RunRecord
from lra.reports.experiments import Experiment
from lra.reports.names import scale_order, status_text
from lra.reports.own_settings import own_settings
from lra.reports.report import Report, Table

NO_DATA = "no data"
SUMMARY_HEAD = ("experiment", "protocol", "scale", "ended ok", "of", "ended otherwise", "of own settings", "no data")
OTHERS_HEAD = ("scale", "protocol", "attn", "task", "ended ok", "ended otherwise")
LEGEND = (
    "Cells: runs that ended ok, of those the experiment has (its seeds, times the values of a setting that it sweeps), "
    "then what ended otherwise; empty: nothing ran yet. "
    "`python run.py experiment=NAME scale=SCALE` runs what is lacking. Runs of the same protocol and names count "
    "whatever command they are of; those with settings of their own stand apart, and are not among what ended ok."
)


@dataclass(frozen=True)
class Cell:
    """The runs of one mechanism on one task of an experiment, at one scale.

    Attributes:
        runs: those with a record.
        num_ok: runs of the experiment, a seed and a level each, that ended ok.
        others: how many of the others did not end ok or have no record, by status.
        num_own: how many runs have settings that the experiment's have not, which are in neither count.
        no_data: whether the task has no data and nothing ended ok.
    """

    experiment: Experiment
    scale: str
    task: str
    attn: str
    runs: tuple[RunRecord, ...]
    num_ok: int
    others: Counter[str]
    num_own: int
    no_data: bool

    @property
    def text(self) -> str:
        """The text of the table's cell; "" where nothing ran."""
        others = [f"{count} {status}" for status, count in self.others.items() if count]
        others += [f"{self.num_own} of own settings"] if self.num_own else []
        if self.num_ok or others:
            return ", ".join([f"{self.num_ok}/{self.experiment.runs_a_cell}", *others])
        return NO_DATA if self.no_data else ""

    @property
    def frame_row(self) -> dict[str, Any]:
        """The row of the frame."""
        return {
            "experiment": self.experiment.name, "protocol": self.experiment.protocol, "scale": self.scale,
            "task": self.task, "attn": self.attn, "seeds": len(self.experiment.seeds),
            "levels": len(self.experiment.levels), "ok": self.num_ok,
            "not_ok": self.others.total(), "of_own_settings": self.num_own, "no_data": self.no_data,
            "devices": " ".join(sorted({run.device for run in self.runs})),
            "settings": len({run.group for run in self.runs}), "keys": " ".join(sorted(run.key for run in self.runs)),
        }  # fmt: skip


def coverage(
    experiments: Sequence[Experiment],
    records: Sequence[RunRecord],
    *,
    unfinished: Sequence[Mapping[str, Any]] = (),
    missing: Mapping[tuple[str, str, str], str] | None = None,
    others: bool = False,
) -> Report:
    """Count which runs of experiments exist: a table for each experiment and scale, a cell for each task and mechanism.

    Args:
        experiments: the runs that there should be.
        records: those that there are. Of runs with settings that an experiment's have not, only the number is said.
        unfinished: configurations of runs without a record.
        missing: why data could not be had, by task, protocol and scale.
        others: whether to list the runs that are in none of these experiments too.
    """
    missing = missing or {}
    cells, tables, summary = [], [], []
    for experiment in experiments:
        for scale in _scales(experiment, records, unfinished, missing):
            grid = [
                [_cell(experiment, scale, task, attn, records, unfinished, missing) for task in experiment.tasks]
                for attn in experiment.attns
            ]
            table_cells = [cell for line in grid for cell in line]
            cells += table_cells
            summary.append(_summary(experiment, scale, table_cells, missing))
            if any(cell.text for cell in table_cells):
                tables.append(_table(experiment, scale, grid))
    if others and (rows := _of_none(experiments, records)):
        tables.append(Table("Runs of no experiment", OTHERS_HEAD, rows))
    reasons = [
        f"No data for {task}, protocol={protocol}, scale={scale}: {reason}"
        for (task, protocol, scale), reason in missing.items()
        if protocol in {experiment.protocol for experiment in experiments}
    ]
    frame = pd.DataFrame([cell.frame_row for cell in cells])
    return Report([Table("Runs of experiments", SUMMARY_HEAD, summary), *tables], frame, notes=[*reasons, LEGEND])


def _scales(
    experiment: Experiment,
    records: Sequence[RunRecord],
    unfinished: Sequence[Mapping[str, Any]],
    missing: Mapping[tuple[str, str, str], str],
) -> list[str]:
    """Name the scales at which there is any run of an experiment's protocol, and the published one."""
    scales = {"full"}
    scales |= {run.scale for run in records if run.protocol == experiment.protocol}
    scales |= {str(config["scale"]) for config in unfinished if config["protocol"]["name"] == experiment.protocol}
    scales |= {scale for _, protocol, scale in missing if protocol == experiment.protocol}
    return sorted(scales, key=scale_order)


def _cell(
    experiment: Experiment,
    scale: str,
    task: str,
    attn: str,
    records: Sequence[RunRecord],
    unfinished: Sequence[Mapping[str, Any]],
    missing: Mapping[tuple[str, str, str], str],
) -> Cell:
    names = (task, attn, experiment.protocol, scale)
    planned = {(seed, level) for seed in experiment.seeds for level in experiment.levels or ("",)}
    runs = [run for run in records if (run.task, run.attn, run.protocol, run.scale) == names]
    plain = [run for run in runs if not own_settings([run], experiment.settings)]
    ok = {(run.seed, experiment.level(run.config)) for run in plain if run.status == "ok"} & planned
    others = Counter(
        status_text(run.status)
        for run in plain
        if run.status != "ok" and (run.seed, experiment.level(run.config)) in planned - ok
    )
    others["unfinished"] = sum(
        (config["task"]["name"], config["attn"]["name"], config["protocol"]["name"], config["scale"]) == names
        and (config["seed"], experiment.level(config)) in planned - ok
        for config in unfinished
    )
    no_data = (task, experiment.protocol, scale) in missing and not ok
    return Cell(experiment, scale, task, attn, tuple(runs), len(ok), others, len(runs) - len(plain), no_data)


def _summary(
    experiment: Experiment, scale: str, cells: Sequence[Cell], missing: Mapping[tuple[str, str, str], str]
) -> list[str]:
    """Count over all tasks and mechanisms."""
    counts = (
        sum(cell.num_ok for cell in cells),
        experiment.runs_a_cell * len(cells),
        sum(cell.others.total() for cell in cells),
        sum(cell.num_own for cell in cells),
    )
    no_data = [task for task in experiment.tasks if (task, experiment.protocol, scale) in missing]
    return [experiment.name, experiment.protocol, scale, *map(str, counts), ", ".join(no_data)]


def _table(experiment: Experiment, scale: str, grid: Sequence[Sequence[Cell]]) -> Table:
    """Lay out the mechanisms that have runs, and name the others beneath."""
    rows = {line[0].attn: [cell.text for cell in line] for line in grid}
    absent = [attn for attn, texts in rows.items() if not any(texts)]
    return Table(
        f"{experiment.name}, scale={scale}",
        ["attn", *experiment.tasks],
        [[attn, *texts] for attn, texts in rows.items() if any(texts)],
        [f"Nothing yet of {', '.join(absent)}."] if absent else [],
    )


def _of_none(experiments: Sequence[Experiment], records: Sequence[RunRecord]) -> list[list[str]]:
    """Count the runs that are in none of the experiments, by scale, protocol, mechanism and task."""
    planned = {
        (experiment.protocol, attn, task)
        for experiment in experiments
        for attn in experiment.attns
        for task in experiment.tasks
    }
    outside = [run for run in records if (run.protocol, run.attn, run.task) not in planned]
    counts = Counter((run.scale, run.protocol, run.attn, run.task, run.status == "ok") for run in outside)
    names = sorted({name[:4] for name in counts}, key=lambda name: (scale_order(name[0]), name))
    return [[*name, *(str(counts[(*name, ok)]) for ok in (True, False))] for name in names]
