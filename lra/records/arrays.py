"""Learning curves and predictions of collected runs, and what makes the examples hard that they were tested on, in
parquet files beside their records.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lra.files import write_atomically
from lra.records.folder import RunFolder
from lra.records.reading import leaving_out, warn
from lra.records.record import FLOOR, WEIGHTS, RunRecord

CURVES, PREDICTIONS, DIFFICULTY = "curves.parquet", "predictions.parquet", "difficulty.parquet"


@dataclass
class Packed:
    """Curves and predictions of many runs, and the difficulty of their test examples.

    Attributes:
        curves: points by key.
        predictions: predicted classes by a run's key and `best` or `last`; and by a test split's checksum the true
            classes, as `labels`, and those that a floor predicts, as `floor_` and its name.
        difficulty: by a test split's checksum and the name of a measure a whole number for each example, see
            `lra.tasks.Task.difficulties`.
    """

    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    predictions: dict[tuple[str, str], NDArray[np.uint8]] = field(default_factory=dict)
    difficulty: dict[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, refuse: Callable[[str], None] = warn) -> Packed:
        """Read what a folder of collected records has; nothing where the files are not there.

        Args:
            folder: where they are.
            refuse: is told of each file that cannot be read, in a sentence.
        """
        packed = cls()
        with leaving_out(folder / CURVES, refuse):
            packed.curves = _curves(pd.read_parquet(folder / CURVES))
        with leaving_out(folder / PREDICTIONS, refuse):
            packed.predictions = _predictions(pd.read_parquet(folder / PREDICTIONS))
        with leaving_out(folder / DIFFICULTY, refuse):
            packed.difficulty = _difficulty(pd.read_parquet(folder / DIFFICULTY))
        return packed

    def merge(self, other: Packed) -> None:
        """Add from another what is not there yet."""
        self.curves = {**other.curves, **self.curves}
        self.predictions = {**other.predictions, **self.predictions}
        self.difficulty = {**other.difficulty, **self.difficulty}

    def floors(self, digest: str) -> dict[str, NDArray[np.uint8]]:
        """Return what rules without a model predict for a test split, given its checksum."""
        named = {name: classes for (owner, name), classes in self.predictions.items() if owner == digest}
        return {name.removeprefix(FLOOR): classes for name, classes in named.items() if name.startswith(FLOOR)}

    def measures(self, digest: str) -> dict[str, NDArray[np.int64]]:
        """Return what makes the examples of a test split hard, given its checksum; {} where that is not known."""
        return {name: values for (owner, name), values in self.difficulty.items() if owner == digest}

    def add_run(self, record: RunRecord, folder: RunFolder) -> None:
        """Add what a run's folder has; a file that cannot be read is named in a warning and left out."""
        with leaving_out(folder.metrics):
            if points := list(folder.read_curve()):
                best = {point["step"]: point.get("val_accuracy") for point in points}.get(record.best_step)
                if record.best_step is not None and best != record.val_accuracy:
                    raise ValueError(
                        f"its accuracy at step {record.best_step} is {best}, the record has {record.val_accuracy}"
                    )
                self.curves[record.key] = points
        with leaving_out(folder.predictions):
            for name, classes in folder.read_predictions(record).items():
                self.predictions[record.key if name in WEIGHTS else record.data["sha256"]["test"], name] = classes
        with leaving_out(folder.difficulty):
            for name, values in folder.read_difficulty(record).items():
                self.difficulty.setdefault((record.data["sha256"]["test"], name), values)

    def save(self, folder: Path, records: Iterable[RunRecord]) -> None:
        """Write what belongs to these records, in their order: the same bytes for the same content."""
        records = list(records)
        curves = [{"key": run.key, **point} for run in records for point in self.curves.get(run.key, [])]
        splits = {run.data["sha256"]["test"] for run in records}
        names = [(run.key, name) for run in records for name in WEIGHTS]
        names += sorted((owner, name) for owner, name in self.predictions if owner in splits)
        predictions = [
            {"key": key, "name": name, "classes": self.predictions[key, name].tobytes()}
            for key, name in names
            if (key, name) in self.predictions
        ]
        difficulty = [
            {"key": owner, "name": name, "values": self.difficulty[owner, name].astype(np.int32)}
            for owner, name in sorted(self.difficulty)
            if owner in splits
        ]
        for name, rows in ((CURVES, curves), (PREDICTIONS, predictions), (DIFFICULTY, difficulty)):
            if rows:
                frame = pd.DataFrame(rows)
                leading = [column for column in ("key", "step", "name") if column in frame]
                frame = frame[[*leading, *sorted(map(str, set(frame) - set(leading)))]]
                buffer = io.BytesIO()
                frame.to_parquet(buffer, index=False, compression="zstd", compression_level=15)
                write_atomically(folder / name, buffer.getvalue())
            else:
                (folder / name).unlink(missing_ok=True)


def _curves(frame: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    curves = {}
    if not all(pd.api.types.is_numeric_dtype(frame[name]) for name in {"step", *frame} - {"key"}):
        raise ValueError("it must have a column of keys, and numbers in all others")
    for key, points in frame.groupby("key", sort=False):
        rows = points.drop(columns="key").to_dict("records")
        curves[str(key)] = [{str(name): value for name, value in row.items() if not pd.isna(value)} for row in rows]
    return curves


def _predictions(frame: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.uint8]]:
    rows = frame[["key", "name", "classes"]].itertuples(index=False)
    return {(key, name): np.frombuffer(classes, np.uint8) for key, name, classes in rows}


def _difficulty(frame: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.int64]]:
    rows = frame[["key", "name", "values"]].itertuples(index=False)
    return {(key, name): np.asarray(values).astype(np.int64, casting="safe") for key, name, values in rows}
