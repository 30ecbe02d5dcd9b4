"""The harness: tasks, training, measurements, records, reports and benchmarks.

From Python most people need two functions; what they use is loaded when they are called:

    >>> import lra
    >>> records = lra.load_records("results")
    >>> board = lra.leaderboard(records, task="listops", scale="mini", protocol="skeinformer")
    >>> board.loc[board["attn"] == "softmax", "n"].item() >= 1
    True

`lra.leaderboard` returns a data frame with a row a group of seeds: accuracy as a fraction with `low` and `high`, `n`,
`failures`, `ms_per_step` and the `keys` of the records behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from lra.records.record import RunRecord

__all__ = ["leaderboard", "load_records"]


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
