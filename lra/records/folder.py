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

from filelock import FileLock, Timeout

from lra.errors import InputError
from lra.files import write_atomically, writing
from lra.machine.environment import now
from lra.records.identity import run_key
from lra.records.record import RECORD_NAME, RunRecord
from lra.records.retest_record import RETESTS_NAME

log = logging.getLogger(__name__)

RUNS = "runs"  # the part of a results folder that holds the folders of runs


@dataclass(frozen=True)
class Holder:
    """The process that trains a run, or was the last to do so.

    Attributes:
        process: its number.
        host: the name of its machine.
        since: when it took the folder.
    """

    process: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


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
        folders = [cls(path) for path in sorted((results_dir / RUNS).glob("*/*/*"))]
        return [folder for folder in folders if folder.config.exists() or folder.record.exists()]

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
        lock = self.lock()
        with writing(f"The run's folder {self}", "Choose a folder that can be with results_dir=."):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise InputError(
                    f"Another process is training this run in {self}: {self.holder() or 'it has just begun'}. "
                    "Wait for it, or give this one another seed or another results_dir=."
                ) from None
        try:
            if self.config.exists():
                self._check_config(config)
            else:
                write_atomically(self.config, json.dumps(config, indent=2, sort_keys=True) + "\n")
            holder = Holder(os.getpid(), socket.gethostname(), now())
            write_atomically(self._holder, json.dumps(asdict(holder)) + "\n")
            yield
        finally:
            lock.release()

    def holder(self) -> Holder | None:
        """Return the process that holds the folder or held it last; None where the folder names none."""
        try:
            return Holder(**json.loads(self._holder.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def finished(self) -> RunRecord | None:
        """Return the record if it is a result, so that there is no need to run again.

        Raises:
            InputError: there is a record that cannot be read.
        """
        if not self.record.exists():
            return None
        try:
            record = RunRecord.read(self.record)
        except ValueError as error:
            raise InputError(f"{error}. Move it away to run this again, or choose another results_dir=.") from error
        return record if record.is_final else None

    def _check_config(self, config: Mapping[str, Any]) -> None:
        """Compare the key of the configuration that the folder was begun with; classes may have moved since.

        Raises:
            InputError: it has another key, or cannot be read.
        """
        try:
            earlier = json.loads(self.config.read_text())
        except ValueError:
            earlier = {}
        if run_key(earlier) != run_key(config):
            raise InputError(
                f"{self.config} holds another configuration than this run's, although the folder bears its key. The "
                "folder was altered or copied there: move it away, or choose another results_dir=."
            )
        for node in ("task", "attn"):
            before, present = earlier[node].get("_target_"), config[node].get("_target_")
            if before != present:
                log.warning(
                    "%s was begun with %s, which is now %s. If that is another class, and not the same one moved, give "
                    "it a name or a version of its own: the key has nothing else to tell them apart.",
                    self.config,
                    before,
                    present,
                )
