"""Numbers printed in papers, as `results/published/` has them, and the tables that they were printed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lra.errors import InputError
from lra.files import ROOT
from lra.records.record import RunRecord
from lra.reports.report import each

FOLDER = Path("published")
# What papers print does not depend on where somebody keeps results: a folder without its own has the checkout's.
OURS = ROOT / "results"
STATUS_TEXT = {"fail": "FAIL", "not_reported": "not reported"}


class Metric(NamedTuple):
    """What a paper measured: how to say it, and how to have it of a record (None: a record has it not)."""

    title: str
    measure: Callable[[RunRecord], float | None] | None
    is_accuracy: bool = False


def _micro_batch(run: RunRecord) -> float | None:
    """Return the micro-batch where it was sought, not chosen."""
    return run.micro_batch if run.config.get("trainer", {}).get("micro_batch") == "auto" else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


METRICS = {
    "accuracy": Metric("test accuracy in %", None, is_accuracy=True),
    "train_time_per_1000_steps": Metric("minutes for 1,000 steps", lambda run: _times(run.ms_per_step, 1 / 60)),
    "train_time_per_1000_steps_rounded": Metric("minutes for 1,000 steps", lambda run: _times(run.ms_per_step, 1 / 60)),
    "train_time_total": Metric("minutes of training", lambda run: _times(run.train_seconds, 1 / 60)),
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


@dataclass(frozen=True)
class PaperTable:
    """A table to set ours beside.

    Attributes:
        name: `table=` of `scripts/report.py`.
        title: whose it is.
        source: of `numbers.csv`; "" if none of its figures are at hand.
        metrics: keys of METRICS.
        experiment: the runs it is made of; "" if it is measured without training.
        numbers: its rows of `numbers.csv`, value as a number.
    """

    name: str
    title: str
    source: str
    metrics: tuple[str, ...]
    experiment: str
    numbers: pd.DataFrame


class Model(NamedTuple):
    """What a paper's row is here."""

    attn: str
    protocol: str
    note: str


def load_tables(results_dir: Path) -> dict[str, PaperTable]:
    """Read what tables there are, with their numbers.

    Raises:
        InputError: a file is lacking.
    """
    numbers = load_numbers(results_dir)
    tables = {}
    for row in each(_read(results_dir, "tables.csv")):
        metrics = tuple(row.metrics.split())
        mine = numbers[
            (numbers["source"] == row.source) & (numbers["table"] == row.table) & numbers["metric"].isin(metrics)
        ]
        tables[row.name] = PaperTable(
            row.name, row.title, row.source, metrics, row.experiment, mine.reset_index(drop=True)
        )
    return tables


def load_numbers(results_dir: Path) -> pd.DataFrame:
    """Read every published number; `value` is a float, NaN where none was reported, everything else text."""
    numbers = _read(results_dir, "numbers.csv")
    return numbers.assign(value=pd.to_numeric(numbers["value"]), printed=numbers["value"])


def load_models(results_dir: Path) -> dict[tuple[str, str, str], Model]:
    """Read which of our mechanisms a paper's row is, by source, model and task; task "" stands for those not named."""
    return {
        (row.source, row.model, row.task): Model(row.attn, row.protocol, row.note)
        for row in each(_read(results_dir, "models.csv"))
    }


def find_model(models: Mapping[tuple[str, str, str], Model], source: str, name: str, task: str) -> Model | None:
    """Find what a paper's row is here: for this task, else for all that are not named; None where we have it not."""
    return models.get((source, name, task)) or models.get((source, name, ""))


def printed(row: Any) -> str:
    """Print a published number as its paper has it."""
    return STATUS_TEXT.get(row.status, row.printed)


def _read(results_dir: Path, name: str) -> pd.DataFrame:
    path = (results_dir if (results_dir / FOLDER).is_dir() else OURS) / FOLDER / name
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
