"""The harness: tasks, training, measurements, records, reports and benchmarks.

From Python most people need a few functions; what they use is loaded when they are called:

    >>> import lra
    >>> records = lra.load_records("results")
    >>> board = lra.leaderboard(records, task="listops", scale="mini", protocol="skeinformer")
    >>> board.loc[board["attn"] == "softmax", "n"].item() >= 1
    True

`lra.leaderboard` returns a data frame with a row a group of seeds: accuracy as a fraction with `low` and `high`, `n`,
`failures`, `ms_per_step` and the `keys` of the records behind it. `lra.run(task="listops", attn="vmean", scale="mini")`
trains a mechanism, or a class of your own, and returns its record; `lra.backbones()` has the names, with cards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from lra.records.record import RunRecord

__all__ = ["backbones", "leaderboard", "load_records", "run"]


def run(
    *,
    task: str = "listops",
    attn: str | type = "softmax",
    scale: str = "full",
    protocol: str = "skeinformer",
    seed: int = 0,
    results_dir: str | Path = "results",
    settings: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Train a mechanism on a task, or find the result that there is, and return the record.

    Args:
        task, scale, protocol, seed: as on the command line of `run.py`.
        attn: a name of `lra.backbones()`, or a subclass of `models.attention.Attention` or `models.mixers.Mixer`. The
            key of a class's run has the name and the `version` of the class, and not its code: raise the version where
            you change the class, above all in a notebook, whose code no record can compare.
        results_dir: where the run's folder is made.
        settings: further values by their keys on the command line, such as {"trainer.steps": 500}.

    Raises:
        InputError: a choice, a key or a value is not possible.
    """
    from lra.runs.command import run_called

    chosen = {"task": task, "protocol": protocol, "scale": scale, "seed": seed, "results_dir": str(results_dir)}
    return run_called(attn, {**chosen, **(settings or {})})


def backbones() -> dict[str, Any]:
    """Return the `models.mechanism.Card` of every name of `attn=`: what it is, its family, cost, paper and oracle."""
    from lra.cards import card_of
    from lra.configuration import backbones

    return {name: card_of(name) for name in backbones()}


def load_records(results_dir: str | Path = "results") -> list[RunRecord]:
    """Read the records of a results folder: its own runs, and those collected in `measured/`.

    Raises:
        InputError: there is no such folder.
    """
    from pathlib import Path

    from lra.records import collection

    return collection.load_records(Path(results_dir))


def leaderboard(
    records: list[RunRecord] | str | Path = "results",
    *,
    task: str | None = None,
    attn: str | None = None,
    protocol: str | None = None,
    scale: str | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Summarise records, or those of a results folder, a row a group of seeds, the most accurate first of each task.

    The other arguments choose among the records. Rows of different scales, protocols or data are not comparable.

    Raises:
        InputError: there is no such folder.
    """
    from lra.reports import leaderboard as reports

    names = {"task": task, "attn": attn, "protocol": protocol, "scale": scale, "device": device}
    runs = records if isinstance(records, list) else load_records(records)
    chosen = [run for run in runs if all(value in (None, getattr(run, name)) for name, value in names.items())]
    board = reports.to_frame(reports.leaderboard(chosen))
    if board.empty:
        return board
    order = ["scale", "protocol", "device", "task", "data", "accuracy"]
    return board.sort_values(order, ascending=[True] * 5 + [False], ignore_index=True)
