"""Measures what makes the test examples of finished runs hard, where their data are at hand.

A run does so itself when it ends; this is for runs that ended before they did, and for collected records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from hydra.utils import get_class
from numpy.typing import NDArray

from lra.errors import InputError
from lra.files import write_atomically, writing
from lra.records.collection import MEASURED, load_to_rewrite, read_to_rewrite
from lra.records.folder import RunFolder
from lra.records.identity import ADDED, TARGET_KEYS
from lra.records.reading import reason_of
from lra.records.record import RunRecord
from lra.tasks import Task, difficulty


def measure_difficulty(
    results_dir: Path, records: Sequence[RunRecord], cache_dir: str | None = None
) -> tuple[list[str], list[str]]:
    """Measure the test splits of runs, each once, and write them into their folders and beside collected records.

    What is beside the collected records already is not measured again.

    Args:
        results_dir: of the records.
        records: the runs whose test splits to measure.
        cache_dir: of prepared data; None as for a run.

    Returns:
        A sentence for each split that was measured, and one for each that could not be.

    Raises:
        InputError: a collected file cannot be read, and would be lost; or a file cannot be written.
    """
    by_split: dict[str, list[RunRecord]] = {}
    for run in records:
        by_split.setdefault(run.data["sha256"]["test"], []).append(run)
    collected, _ = read_to_rewrite(results_dir)
    packed = load_to_rewrite((results_dir / MEASURED).parent)
    done, failures = [], []
    for digest, runs in by_split.items():
        name = f"{runs[0].task} ({runs[0].data['source']}, {runs[0].data['variant']}, {digest[:8]})"
        measures = {measure: values for (key, measure), values in packed.difficulty.items() if key == digest}
        if measures:
            _write_into_folders(results_dir, runs, measures)
            continue
        try:
            measures = _measured(runs[0], cache_dir)
        except InputError as error:
            failures.append(f"{name}: {error}")
            continue
        if measures:
            packed.difficulty.update({(digest, measure): values for measure, values in measures.items()})
            _write_into_folders(results_dir, runs, measures)
        done.append(f"{name}: {', '.join(measures) or 'the task measures nothing'}.")
    if collected.records:
        with writing(results_dir / MEASURED.parent, "Make it writable."):
            packed.save((results_dir / MEASURED).parent, collected.records.values())
    return done, failures


def _measured(run: RunRecord, cache_dir: str | None) -> dict[str, NDArray[np.int64]]:
    """Make the task of a run, and measure its test examples.

    Raises:
        InputError: its task is not there, or other data are at hand than the run had, or none.
    """
    node = dict(run.config.get("task", {}))
    settings = {name: value for name, value in node.items() if name not in (*ADDED, *TARGET_KEYS)}
    try:
        # Records may be somebody else's: of what they name, only a task is called.
        kind = get_class(node["_target_"])
        if not (isinstance(kind, type) and issubclass(kind, Task)):
            raise TypeError(f"{node['_target_']} is no task")
        make: Callable[..., Task] = kind
        task = make(cache_dir=cache_dir, **settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"Its task cannot be made: {reason_of(error)}. Check out commit {run.commit}.") from error
    task.prepare()
    if json.loads(json.dumps(task.describe())) != run.data:
        raise InputError(
            f"Here are other data, {task.describe()['source']}, {task.describe()['variant']}. Set LRA_DATA to the "
            "folder that the run had, or unset it."
        )
    return task.difficulties()


def _write_into_folders(results_dir: Path, runs: Sequence[RunRecord], measures: dict[str, NDArray[np.int64]]) -> None:
    for run in runs:
        folder = RunFolder.of(results_dir, run)
        if folder.predictions.exists():
            with writing(folder.difficulty, "Make it writable."):
                write_atomically(folder.difficulty, difficulty.packed(measures))
