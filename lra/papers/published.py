"""Numbers printed in papers, from `results/published/`, and the tables in which they were printed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from lra.errors import InputError
from lra.files import ROOT
from lra.papers.methods import Method
from lra.records.reading import reason_of
from lra.records.record import RunRecord

T = TypeVar("T")
Row = dict[str, str]

FOLDER = Path("published")
# Published numbers do not depend on where results are kept: a results folder without them uses those of the checkout.
OURS = ROOT / "results"
NOT_A_NUMBER = {"fail": "FAIL", "not_reported": "not reported"}  # the text instead of a number, by status


class Metric(NamedTuple):
    """A measure in papers: its title, and how to get it from a record (None: a record does not have it)."""

    title: str
    measure: Callable[[RunRecord], float | None] | None
    is_accuracy: bool = False
    is_time: bool = False


def _micro_batch(run: RunRecord) -> float | None:
    """Return the micro-batch if it was the largest that fits, not one that was set."""
    return run.micro_batch if run.config.get("trainer", {}).get("micro_batch") == "auto" else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


PER_1000_STEPS = Metric("minutes for 1,000 steps", lambda run: _times(run.ms_per_step, 1 / 60), is_time=True)
METRICS = {
    "accuracy": Metric("test accuracy in %", None, is_accuracy=True),
    "train_time_per_1000_steps": PER_1000_STEPS,
    "train_time_per_1000_steps_rounded": PER_1000_STEPS,
    "train_time_total": Metric("minutes of training", lambda run: _times(run.train_seconds, 1 / 60), is_time=True),
    "steps_to_stop": Metric("thousands of steps", lambda run: run.steps / 1000),
    "steps_to_stop_rounded": Metric("thousands of steps", lambda run: run.steps / 1000),
    "max_micro_batch": Metric("sequences in the largest micro-batch", _micro_batch),
    "accumulation_steps": Metric(
        "micro-batches in a step",
        lambda run: (run.batch_size or 0) / size if (size := _micro_batch(run)) else None,
    ),
    "steps_per_second": Metric("steps a second", None),
    "speedup_vs_transformer": Metric("steps a second, over the Transformer's", None),
    "peak_memory": Metric("peak memory in GB", None),
    "flops_per_n_d_p": Metric("operations, in n d p", None),
    "flops_per_n2_p": Metric("operations, in n² p", None),
}


class PublishedNumber(NamedTuple):
    """A row of `numbers.csv`.

    Attributes:
        source, year, table: where it is printed.
        model, task, length, metric, unit: of the number; the length is "" where the paper has only one.
        value: None where no number is printed.
        status: `reported`, or why there is no value.
        note: what else the paper says about it.
        printed: the number as the paper has it; "" where it has none.
        method: which one it is, and what makes it comparable.
    """

    source: str
    year: str
    table: str
    model: str
    task: str
    length: str
    metric: str
    value: float | None
    unit: str
    status: str
    note: str
    printed: str
    method: Method

    @property
    def labels(self) -> tuple[str, ...]:
        """What the number is, in a few words each: its origin first."""
        return self.method.labels(self.task, self.metric)

    @property
    def text(self) -> str:
        """The number, or what the paper prints instead."""
        return NOT_A_NUMBER.get(self.status, self.printed)


@dataclass(frozen=True)
class PaperTable:
    """A published table to compare with.

    Attributes:
        name: `table=` of `scripts/report.py`.
        title: of our table beside it.
        source: of `numbers.csv`; "" if it has none of the table's numbers.
        metrics: keys of METRICS.
        experiment: our runs for it; "" if it is measured without training.
        numbers: of these metrics.
    """

    name: str
    title: str
    source: str
    metrics: tuple[str, ...]
    experiment: str
    numbers: tuple[PublishedNumber, ...]

    def numbers_of(self, metric: str) -> list[PublishedNumber]:
        """Return those of one metric."""
        return [number for number in self.numbers if number.metric == metric]


class Model(NamedTuple):
    """Our mechanism and protocol for a row of a paper, and how they differ."""

    attn: str
    protocol: str
    note: str


Models = Mapping[tuple[str, str, str], Model]  # by source, the paper's name, and task


def load_tables(results_dir: Path) -> dict[str, PaperTable]:
    """Read the published tables with their numbers.

    Raises:
        InputError: a file is lacking.
    """
    numbers = read_numbers(results_dir)

    def make(row: Row) -> PaperTable:
        metrics, place = tuple(row["metrics"].split()), (row["source"], row["table"])
        if unknown := {*metrics} - METRICS.keys():
            raise ValueError(f"it names metrics that are none: {', '.join(sorted(unknown))}")
        printed = [number for number in numbers if (number.source, number.table) == place and number.metric in metrics]
        return PaperTable(row["name"], row["title"], row["source"], metrics, row["experiment"], tuple(printed))

    return {table.name: table for table in _read(results_dir, "tables.csv", make)}


def read_numbers(results_dir: Path) -> list[PublishedNumber]:
    """Read every published number.

    Raises:
        InputError: a file cannot be read, or a number's row is not in `methods.csv`.
    """
    methods = dict(_read(results_dir, "methods.csv", lambda row: ((row["source"], row["model"]), Method.of(row))))

    def make(row: Row) -> PublishedNumber:
        printed, place = row.pop("value"), (row["source"], row["model"])
        if place not in methods:
            raise ValueError(f"{' '.join(place)} has no row in methods.csv")
        value = float(printed) if printed else None
        return PublishedNumber(**row, value=value, printed=printed, method=methods[place])

    return _read(results_dir, "numbers.csv", make)


def load_numbers(results_dir: Path) -> pd.DataFrame:
    """Put every published number in a data frame.

    Returns:
        The columns of `numbers.csv`, `printed`, `method` (its name), `origin`, and `labels` as one text. `value` is a
        float, NaN where none was reported; the rest is text.
    """
    rows = [
        {**n._asdict(), "method": n.method.name, "origin": n.method.origin, "labels": "; ".join(n.labels)}
        for n in read_numbers(results_dir)
    ]
    return pd.DataFrame(rows, columns=[*PublishedNumber._fields, "origin", "labels"])


def load_models(results_dir: Path) -> dict[tuple[str, str, str], Model]:
    """Read our mechanism for each row of a paper, by source, model and task; task "" stands for those not named."""

    def make(row: Row) -> tuple[tuple[str, str, str], Model]:
        return (row["source"], row["model"], row["task"]), Model(row["attn"], row["protocol"], row["note"])

    return dict(_read(results_dir, "models.csv", make))


def find_model(models: Models, source: str, name: str, task: str) -> Model | None:
    """Find our mechanism for a paper's row on a task, else on all tasks that are not named; None if we have none."""
    return models.get((source, name, task)) or models.get((source, name, ""))


def _read(results_dir: Path, name: str, make: Callable[[Row], T]) -> list[T]:
    """Make something of every row of a file.

    Raises:
        InputError: the file, or a row, cannot be read.
    """
    path = (results_dir if (results_dir / FOLDER).is_dir() else OURS) / FOLDER / name
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [make(row) for row in csv.DictReader(file)]
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{path} cannot be read: {reason_of(error)}. Restore it with git.") from error
