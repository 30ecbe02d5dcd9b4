"""The folder of a run: where it is, what is in it, and which process holds it."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import with_config

from lra.errors import InputError
from lra.files import set_aside, write_atomically, writing
from lra.machine.environment import now
from lra.records.forms import STRICT, BegunConfig, Form, Point, Positive
from lra.records.identity import run_key
from lra.records.reading import entries, leaving_out, reason_of
from lra.records.record import LABELS, RECORD_NAME, WEIGHTS, RunRecord
from lra.records.retest_record import RETESTS_NAME
from lra.tasks import difficulty

log = logging.getLogger(__name__)

RUNS = "runs"  # the part of a results folder that holds the folders of runs
REMEDY = "Choose a folder that can be with results_dir=."

CONFIG: Form[dict[str, Any]] = Form(BegunConfig)
POINT: Form[dict[str, int | float | None]] = Form(Point)


@with_config(STRICT)
@dataclass(frozen=True)
class Holder:
    """The process that trains a run, or was the last to do so.

    Attributes:
        process: its number.
        host: the name of its machine.
        since: when it took the folder.
    """

    process: Positive
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


HOLDER: Form[Holder] = Form(Holder)


@dataclass(frozen=True)
class RunFolder:
    """The folder `<results_dir>/runs/<task>/<attn>/<key>` of a run, or a copy of one elsewhere."""

    path: Path

    @classmethod
    def of(cls, results_dir: Path, record: RunRecord) -> RunFolder:
        """Return the folder of a run, which need not exist yet."""
        return cls(results_dir / RUNS / record.task / record.attn / record.key)

    @classmethod
    def all(cls, results_dir: Path) -> list[RunFolder]:
        """List the folders of all runs that have begun, in alphabetical order."""
        paths = [results_dir / RUNS]
        for _ in ("task", "attn", "key"):
            paths = [path for folder in paths for path in entries(folder)]
        begun = []
        for folder in map(cls, paths):
            with leaving_out(folder):
                if folder.path.is_dir() and (folder.config.exists() or folder.record.exists()):
                    begun.append(folder)
        return begun

    def __str__(self) -> str:
        return str(self.path)

    @property
    def config(self) -> Path:
        """What determines the run, written when it begins."""
        return self.path / "config.json"

    @property
    def record(self) -> Path:
        """What the run was and what it produced, written when it ends."""
        return self.path / RECORD_NAME

    @property
    def metrics(self) -> Path:
        """The learning curve, a line for each validation pass."""
        return self.path / "metrics.jsonl"

    @property
    def predictions(self) -> Path:
        """The classes that the model, and rules without one, predict for the test examples."""
        return self.path / "predictions.npz"

    @property
    def difficulty(self) -> Path:
        """What makes the test examples hard; no file where nothing is known of it."""
        return self.path / "difficulty.npz"

    @property
    def weights(self) -> Path:
        """The weights that were best on validation."""
        return self.path / "weights.pt"

    @property
    def trace(self) -> Path:
        """The profile of a few steps."""
        return self.path / "trace.json"

    @property
    def retests(self) -> Path:
        """What tests of the weights on other examples found."""
        return self.path / RETESTS_NAME

    @property
    def _holder(self) -> Path:
        return self.path / ".holder"

    def lock(self) -> FileLock:
        """Return the lock of the folder; it is not acquired yet."""
        return FileLock(self.path / ".lock", mode=0o666)  # for whoever shares the folder

    def result_to_read(self) -> RunRecord | None:
        """Return the result of a run whose folder this process may read and not write, such as another user's."""
        if not self.path.is_dir() or os.access(self.path, os.W_OK):
            return None
        try:
            record = RunRecord.read(self.record)
        except ValueError:
            return None
        own = record.key == self.path.name and not record.contradiction
        return record if own and record.is_final else None

    @contextmanager
    def claimed(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Make the folder if need be, and hold it against other processes.

        Args:
            config: what determines the run.

        Raises:
            InputError: another process holds it, it cannot be written, or it was begun with another configuration.
        """
        lock, cannot_be_written, is_new = self.lock(), f"The run's folder {self}", False
        with writing(cannot_be_written, REMEDY):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise InputError(
                    f"Another process is training this run in {self}: {self.holder() or 'it has just begun'}. "
                    "Wait for it, or give this one another seed or another results_dir=."
                ) from None
        try:
            with writing(cannot_be_written, REMEDY):
                is_new = self._begin(config)
                holder = Holder(os.getpid(), socket.gethostname(), now())
                write_atomically(self._holder, json.dumps(asdict(holder)) + "\n")
            yield
        except InputError:  # what cannot be begun has not begun
            if is_new:
                self.config.unlink(missing_ok=True)
                self._holder.unlink(missing_ok=True)
            raise
        finally:
            lock.release()

    def holder(self) -> Holder | None:
        """Return the process that holds the folder or held it last; None where the folder names none."""
        with leaving_out(self._holder):
            return HOLDER.parse(self._holder.read_bytes())
        return None

    def finished(self) -> RunRecord | None:
        """Return the record if it is a result, so that there is no need to run again.

        A damaged record, or that of another run, is set aside and named. Call this in a claimed folder.

        Raises:
            InputError: it cannot be renamed.
        """
        try:
            record = RunRecord.read(self.record)
            if record.key != self.path.name or record.contradiction:
                raise ValueError(f"it is not of this run: {record.contradiction or f'its key is {record.key}'}")
        except FileNotFoundError:
            return None
        except ValueError as error:
            self._set_aside(self.record, error)
            return None
        return record if record.is_final else None

    def keep_aside(self) -> None:
        """Give the result of a finished run, and what belongs to it, names that nothing reads. Call this when claimed.

        Raises:
            InputError: a file cannot be renamed.
        """
        why = f"replaced-{1 + len(list(self.path.glob(f'{RECORD_NAME}.replaced-*')))}"
        # The record last: what is cut off in between is still a finished run.
        files = (self.metrics, self.predictions, self.weights, self.trace, self.retests, self.record)
        with writing(f"The run's folder {self}", REMEDY):
            for path in files:
                if path.exists():
                    set_aside(path, why)
        log.info("The earlier result is kept as %s.%s.", self.record, why)

    def read_config(self) -> dict[str, Any]:
        """Return the configuration that the run was begun with.

        Raises:
            ValueError, OSError: it cannot be read.
        """
        return CONFIG.parse(self.config.read_bytes())

    def read_curve(self) -> Iterator[dict[str, int | float | None]]:
        """Yield the points of the learning curve, with numbers by name; none where no pass has ended yet.

        Raises:
            ValueError, OSError: it cannot be read any further.
        """
        for line in self.metrics.read_bytes().splitlines() if self.metrics.exists() else ():
            yield POINT.parse(line)

    def read_predictions(self, record: RunRecord) -> dict[str, NDArray[np.uint8]]:
        """Return the classes of the test examples by name: true ones, and those predicted; {} where there are none.

        Args:
            record: of the run; its accuracies must be those of what was predicted.

        Raises:
            ValueError, OSError: they cannot be read, or are those of another run.
        """
        if not self.predictions.exists():
            return {}
        with self.predictions.open("rb") as stream, np.load(stream) as arrays:
            classes = {name: values.astype(np.uint8, casting="safe") for name, values in arrays.items()}
        labels = classes.get(LABELS)
        if labels is None or any(values.shape != labels.shape or values.ndim != 1 for values in classes.values()):
            raise ValueError(f"it must hold {LABELS}, and as many predicted classes under every other name")
        for name, accuracy in zip(WEIGHTS, (record.test_accuracy, record.last_test_accuracy), strict=True):
            share = float(np.mean(classes[name] == labels)) if name in classes else accuracy
            if accuracy is not None and share is not None and abs(share - accuracy) > 1 / max(1, len(labels)):
                raise ValueError(f"its {name} classes have an accuracy of {share:.4f}, the record has {accuracy}")
        return classes

    def read_difficulty(self, record: RunRecord) -> dict[str, NDArray[np.int64]]:
        """Return the measures of the test examples by name; {} where there are none.

        Raises:
            ValueError, OSError: they cannot be read, or are those of another run.
        """
        if not self.difficulty.exists():
            return {}
        measures = difficulty.read(self.difficulty)
        size = record.data["sizes"]["test"]
        if any(len(values) != size for values in measures.values()):
            raise ValueError(f"it must hold a number for each of the {size} test examples")
        return measures

    def _set_aside(self, path: Path, reason: Exception) -> None:
        """Rename a damaged file, and name it in the log.

        Raises:
            InputError: it cannot be renamed.
        """
        with writing(f"The run's folder {self}", REMEDY):
            aside = set_aside(path)
        text = reason_of(reason)
        named = text if str(path) in text else f"{path}: {text}"
        log.warning("%s. It is set aside as %s.", named.rstrip("."), aside.name)

    def _begin(self, config: Mapping[str, Any]) -> bool:
        """Write the configuration, unless it is there; set a damaged one aside. Say whether the run is a new one.

        Raises:
            InputError: the folder was begun with another one.
        """
        is_new = not self.config.exists()
        if not is_new:
            try:
                earlier = self.read_config()
            except (OSError, ValueError) as error:
                self._set_aside(self.config, error)
            else:
                self._compare(earlier, config)
                return False
        write_atomically(self.config, json.dumps(config, indent=2, sort_keys=True) + "\n")
        return is_new

    def _compare(self, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Compare the key of the configuration that the folder was begun with; classes may have moved since.

        Raises:
            InputError: it has another key.
        """
        if run_key(earlier) != run_key(config):
            raise InputError(
                f"{self.config} holds another configuration than this run's, although the folder bears its key. The "
                "folder was altered or copied there: move it away, or choose another results_dir=."
            )
        for node in ("task", "attn"):
            before, present = earlier[node].get("_target_"), config[node].get("_target_")
            if before is not None and before != present:  # baselines named none once
                log.warning(
                    "%s was begun with %s, which is now %s. If that is another class, and not the same one moved, give "
                    "it a name or a version of its own: the key has nothing else to tell them apart.",
                    self.config,
                    before,
                    present,
                )
