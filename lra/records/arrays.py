"""Learning curves and predictions of collected runs, in parquet files beside their records."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lra.errors import InputError
from lra.files import write_atomically
from lra.records.folder import RunFolder
from lra.records.record import FLOOR, WEIGHTS, RunRecord

log = logging.getLogger(__name__)

CURVES, PREDICTIONS = "curves.parquet", "predictions.parquet"


@dataclass
class Packed:
    """Curves and predictions of many runs.

    Attributes:
        curves: points by key.
        predictions: predicted classes by a run's key and `best` or `last`; and by a test split's checksum the true
            classes, as `labels`, and those that a floor predicts, as `floor_` and its name.
    """

    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    predictions: dict[tuple[str, str], NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Packed:
        """Read what a folder of collected records has; nothing where the files are not there.

        Raises:
            InputError: a file cannot be read.
        """
        packed = cls()
        curves, predictions = (_read(folder / name) for name in (CURVES, PREDICTIONS))
        for key, points in curves.groupby("key", sort=False) if len(curves) else ():
            rows = points.drop(columns="key").to_dict("records")
            packed.curves[str(key)] = [{str(n): v for n, v in row.items() if not pd.isna(v)} for row in rows]
        for row in predictions.to_dict("records"):
            packed.predictions[row["key"], row["name"]] = np.frombuffer(row["classes"], np.uint8)
        return packed

    def merge(self, other: Packed) -> None:
        """Add from another what is not there yet."""
        self.curves = {**other.curves, **self.curves}
        self.predictions = {**other.predictions, **self.predictions}

    def floors(self, digest: str) -> dict[str, NDArray[np.uint8]]:
        """Return what rules without a model predict for a test split, given its checksum."""
        named = {name: classes for (owner, name), classes in self.predictions.items() if owner == digest}
        return {name.removeprefix(FLOOR): classes for name, classes in named.items() if name.startswith(FLOOR)}

    def add_run(self, record: RunRecord, folder: RunFolder) -> None:
        """Add what a run's folder has; a file that cannot be read is named in a warning and left out."""
        try:
            path = folder.metrics
            if path.exists():
                self.curves[record.key] = [json.loads(line) for line in path.read_text().splitlines()]
            path = folder.predictions
            if path.exists():
                with np.load(path) as arrays:
                    for name, values in arrays.items():
                        owner = record.key if name in WEIGHTS else record.data["sha256"]["test"]
                        self.predictions[owner, name] = values.astype(np.uint8)
        except (OSError, ValueError, EOFError) as error:
            log.warning("Left out: %s: %s", path, error)

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
        for name, rows in ((CURVES, curves), (PREDICTIONS, predictions)):
            if rows:
                frame = pd.DataFrame(rows)
                leading = [column for column in ("key", "step", "name") if column in frame]
                frame = frame[[*leading, *sorted(map(str, set(frame) - set(leading)))]]
                buffer = io.BytesIO()
                frame.to_parquet(buffer, index=False, compression="zstd", compression_level=15)
                write_atomically(folder / name, buffer.getvalue())
            else:
                (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.exists() else pd.DataFrame()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. Restore it with git, or remove it.") from error
