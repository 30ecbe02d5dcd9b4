"""From records to the leaderboard: one row a backbone, one column a task, failures and floors included."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from lra.records.identity import hashed
from lra.records.record import RunRecord, accuracy_of, tested
from lra.reports.names import (
    Setting,
    caption,
    comparable,
    data_name,
    elsewhere,
    label,
    several_processors,
    status_text,
    task_order,
)
from lra.reports.own_settings import own_settings
from lra.reports.report import Report, Table, write
from lra.statistics import ONE_SEED, bootstrap_interval

# On these tasks a run learns, or stays at chance: their cells say how many runs were above this accuracy.
LEARNED, LEARNING_TASKS = 0.6, ("pathfinder", "pathx")
SHOWN_SETTINGS = 3
CELL_LEGEND = (
    "Test accuracy in %: mean over n seeds [bootstrap 95 % interval over the seeds, widened by the sampling error of "
    f"the test set; for n=1, {ONE_SEED}: how far other seeds would be is not in it]. Learned: runs above "
    f"{100 * LEARNED:.0f} % on Pathfinder and Path-X, where the others stay at chance. Own: settings that the command "
    "of an experiment does not have."
)


class Accuracy(NamedTuple):
    """A mean accuracy and its interval, as fractions: 95 % over seeds; of one seed, the test's sampling error alone."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, accuracies: Sequence[float], num_test: int) -> Accuracy:
        """Average runs that were tested on the same `num_test` examples."""
        return cls(sum(accuracies) / len(accuracies), *bootstrap_interval(accuracies, num_test))

    @property
    def interval(self) -> str:
        """The interval, in percent."""
        return f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} {self.interval}"


@dataclass(frozen=True)
class Standing:
    """Runs that differ in their seed alone, summarised.

    Attributes:
        runs: all of them, in the order of the records.
        settings: those in which they differ from others of the same name; "" without such.
        n: runs that ended ok.
        accuracy: of these; None if there are none.
        learned: runs above 60 %; None on tasks other than Pathfinder and Path-X.
        failures: the other statuses, as text.
        ms_per_step: median over the runs that ended ok; None where it was not measured.
    """

    runs: tuple[RunRecord, ...]
    settings: str
    n: int
    accuracy: Accuracy | None
    learned: int | None
    failures: str
    ms_per_step: float | None

    @classmethod
    def of(cls, runs: Sequence[RunRecord], settings: str) -> Standing:
        """Summarise runs."""
        any_run = runs[0]
        accuracies = [accuracy for run in runs if (accuracy := accuracy_of(run)) is not None]
        failures = Counter(status_text(run.status) for run in runs if run.status != "ok")
        times = [run.ms_per_step for run in runs if run.status == "ok" and run.ms_per_step is not None]
        return cls(
            runs=tuple(runs),
            settings=settings,
            n=len(accuracies),
            accuracy=Accuracy.of(accuracies, any_run.data["sizes"]["test"]) if accuracies else None,
            learned=sum(value > LEARNED for value in accuracies) if any_run.task in LEARNING_TASKS else None,
            failures=", ".join(f"{count} {status}" for status, count in failures.items()),
            ms_per_step=statistics.median(times) if times else None,
        )

    @property
    def group(self) -> str:
        """The key without the seed, which the runs share."""
        return self.runs[0].group

    @property
    def own(self) -> str:
        """The settings that their commands have and an experiment's does not; "" without such."""
        return own_settings(self.runs[:1])  # one group, one configuration

    @property
    def setting(self) -> Setting:
        """Their scale, protocol and device."""
        return Setting.of(self.runs[0])

    @property
    def task(self) -> str:
        """Their task."""
        return self.runs[0].task

    @property
    def data(self) -> str:
        """Their data set, see `data_name`."""
        return data_name(self.runs[0])

    @property
    def attn(self) -> str:
        """Their mechanism."""
        return self.runs[0].attn

    @property
    def is_baseline(self) -> bool:
        """Whether it is no attention mechanism."""
        return self.runs[0].is_baseline

    @property
    def label(self) -> str:
        """The mechanism with its settings."""
        return label(self.runs[0], self.settings)

    @property
    def tested(self) -> str:
        """Which weights count: `best` or `last`."""
        return tested(self.runs[0])

    @property
    def keys(self) -> str:
        """The keys of all runs, sorted."""
        return " ".join(sorted(run.key for run in self.runs))

    @property
    def cell(self) -> str:
        """The text of a table's cell: mean, interval, n, runs that learned, failures."""
        if self.accuracy is None:
            return self.failures
        learned = "" if self.learned is None else f", {self.learned} learned"
        failures = f", {self.failures}" if self.failures else ""
        return f"{self.accuracy} (n={self.n}{learned}){failures}"

    @property
    def interval(self) -> str:
        """The interval with what it is of, where it stands apart from its accuracy."""
        if self.accuracy is None:
            return self.failures
        return f"{self.accuracy.interval}{f' {ONE_SEED}' if self.n == 1 else ''}"


class Floor(NamedTuple):
    """What a rule that needs no model reaches on a task's test split."""

    task: str
    data: str
    name: str
    accuracy: Accuracy


def leaderboard(records: Sequence[RunRecord]) -> list[Standing]:
    """Summarise runs that differ in their seed alone: a standing for each `group`, in the order of the records."""
    groups: dict[str, list[RunRecord]] = {}
    for run in records:
        groups.setdefault(run.group, []).append(run)
    namesakes: dict[tuple[str, ...], list[RunRecord]] = {}
    for run, *_ in groups.values():
        namesakes.setdefault(_name(run), []).append(run)
    return [Standing.of(runs, _settings(runs[0], namesakes[_name(runs[0])])) for runs in groups.values()]


def to_frame(standings: Iterable[Standing]) -> pd.DataFrame:
    """Put standings in a data frame, a row each.

    Returns:
        group, scale, protocol, device, task, data, attn, settings, own_settings, tested, n, accuracy (the mean, a
        fraction), low and high (of its interval; NaN like the mean where n is 0), learned, failures, ms_per_step, keys
        (of all runs). No standings have no columns.
    """
    return pd.DataFrame([_frame_row(standing) for standing in standings])


def _frame_row(standing: Standing) -> dict[str, Any]:
    mean, low, high = standing.accuracy or (None, None, None)
    return {
        "group": standing.group, **standing.setting._asdict(), "task": standing.task, "data": standing.data,
        "attn": standing.attn, "settings": standing.settings, "own_settings": standing.own,
        "tested": standing.tested, "n": standing.n,
        "accuracy": mean, "low": low, "high": high, "learned": standing.learned, "failures": standing.failures,
        "ms_per_step": standing.ms_per_step, "keys": standing.keys,
    }  # fmt: skip


def leaderboard_report(records: Sequence[RunRecord]) -> Report:
    """Lay the leaderboard out: a table for each scale, protocol and kind of device, floors beneath."""
    if not records:
        return Report([], pd.DataFrame(), notes=["No records yet: train something first, for example with `make run`."])
    standings = leaderboard(records)
    tables = []
    for setting, runs in sorted(comparable(records).items(), key=lambda item: item[0].order):
        rows = [standing for standing in standings if standing.setting == setting]
        beneath = [caption(row.tested for row in rows), *interval_note(row.n for row in rows)]
        tables.append(Table(setting.title, *_grid(rows, floors(runs)), beneath))
    notes = [f"{CELL_LEGEND} Floors need no model. Numbers of two tables are not comparable."]
    return Report(tables, to_frame(standings), notes=[*notes, *elsewhere(records), *several_processors(records)])


def interval_note(counts: Iterable[int | None]) -> list[str]:
    """Say of a table's intervals what those of one seed are, given n of each; nothing where all are of several."""
    return [f"n=1: the interval is {ONE_SEED}."] if 1 in counts else []


def interval_text(standings: Iterable[Standing]) -> str:
    """Say what the intervals of a figure are."""
    several = any(row.n > 1 for row in standings)
    single = any(row.n == 1 for row in standings)
    over_seeds = "95 % over seeds and test sampling"
    if several and single:
        return f"{over_seeds}; dashed, {ONE_SEED}"
    return over_seeds if several else ONE_SEED


def in_order(standings: Sequence[Standing]) -> list[str]:
    """Name the rows of a leaderboard from the top, wherever it is shown: by their mean rank over its tasks.

    A rank is from 0, the best, to 1, however many mechanisms a task was run with. What ended ok nowhere comes after
    all that did, baselines beneath.
    """
    rows = pd.DataFrame(
        {
            "panel": [f"{row.task}, {row.data}" for row in standings],
            "label": [row.label for row in standings],
            "baseline": [row.is_baseline for row in standings],
            "accuracy": [row.accuracy.mean if row.accuracy else math.nan for row in standings],
        }
    )
    by_panel = rows.groupby("panel")["accuracy"]
    rows["rank"] = (by_panel.rank(ascending=False) - 0.5) / by_panel.transform("count")
    means = rows.groupby(["baseline", "label"], as_index=False)[["rank"]].mean()
    return means.sort_values(["baseline", "rank"], kind="stable")["label"].tolist()


def render(records: Sequence[RunRecord]) -> str:
    """Print the leaderboard as Markdown."""
    return write(leaderboard_report(records), "markdown")


def floors(records: Iterable[RunRecord]) -> list[Floor]:
    """Collect what rules without a model reach on these runs' test splits; the highest first."""
    accuracies = {
        (run.task, data_name(run), name): (accuracy, run.data["sizes"]["test"])
        for run in records
        for name, accuracy in run.floors.items()
    }
    rows = [
        Floor(task, data, name, Accuracy.of([accuracy], num_test))
        for (task, data, name), (accuracy, num_test) in accuracies.items()
    ]
    return sorted(rows, key=lambda floor: -floor.accuracy.mean)


def _grid(standings: Sequence[Standing], beneath: Sequence[Floor]) -> tuple[list[str], list[list[str]]]:
    """Lay one setting out: a row a mechanism, in their order; floors beneath."""
    columns = sorted({(row.task, row.data) for row in standings}, key=lambda column: (task_order(column[0]), column))
    data_sets = Counter(task for task, _ in columns)
    heads = [task if data_sets[task] == 1 else f"{task} ({data})" for task, data in columns]
    cells = {(standing.label, standing.task, standing.data): standing.cell for standing in standings}
    cells |= {(f"floor: {floor.name}", floor.task, floor.data): str(floor.accuracy) for floor in beneath}
    names = [*in_order(standings), *dict.fromkeys(f"floor: {floor.name}" for floor in beneath)]
    return ["attn", *heads], [[name, *(cells.get((name, *column), "") for column in columns)] for name in names]


def _name(run: RunRecord) -> tuple[str, ...]:
    """Return the name of a run in a table; two of one name are told apart by their settings."""
    return run.attn, run.task, data_name(run), *Setting.of(run)


def _settings(run: RunRecord, namesakes: Sequence[RunRecord]) -> str:
    """Name the settings in which a run differs from others of its name; `namesakes` has the run itself too.

    From those with other own settings these tell it already, or that it has none. What its encoder was pre-trained for
    is named in any case.
    """
    own_words = own_settings([run])
    configs = [_described(namesake.config) for namesake in namesakes if own_settings([namesake]) == own_words]
    own = _described({name: value for name, value in run.config.items() if name not in ("seed", "prepared")})
    alike = [config for config in configs if config["pretrain"] == own["pretrain"]]
    differing = [
        f"{name}={own[name]}"
        for name in own
        # How an encoder was pre-trained says nothing beside one that was not, or was for something else.
        if any(config.get(name) != own[name] for config in (alike if name.startswith("pretrain.") else configs))
        or (name == "pretrain" and own[name] != "none" and f"pretrain={own[name]}" not in own_words)
    ]
    if len(configs) > 1 and not differing:  # they differ in a setting that only the others have
        return run.group
    if len(differing) > SHOWN_SETTINGS:
        return f"{', '.join(differing[:SHOWN_SETTINGS])}, {len(differing) - SHOWN_SETTINGS} more: {run.group}"
    return ", ".join(differing)


def _described(config: dict[str, Any]) -> dict[str, Any]:
    """Return what is hashed of a configuration, flat, with the kind of pre-training in front."""
    settings = flat(hashed(config))
    return {"pretrain": settings.pop("pretrain.kind", "none"), **settings}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Make one level of nested settings, a path a value."""
    level: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            level |= flat(value, f"{prefix}{name}.")
        else:
            level[prefix + name] = value
    return level
