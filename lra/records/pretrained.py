"""A pre-trained encoder on disk: its weights, and a record of what it is and what it cost."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import with_config

from lra.files import set_aside, write_atomically, writing
from lra.records.folder import REMEDY
from lra.records.forms import STRICT, Amount, Count, Environment, Form, Name, Object, Positive
from lra.records.identity import run_key
from lra.records.reading import reason_of
from lra.records.record import RECORD_NAME, SCHEMA, Schema

log = logging.getLogger(__name__)

PRETRAINED = "pretrained"  # the part of a results folder that holds the folders of pre-trained encoders
LOOK_SECONDS = 1.0  # how often a process that waits for another one looks whether it is to stop


@with_config(STRICT)
@dataclass
class PretrainedRecord:
    """What an encoder was pre-trained for, and what that cost. Times are seconds, sizes bytes.

    Attributes:
        key: the hash of `config`, all that determines the encoder.
        kind: what it learned to predict: `masked` or `causal`.
        score: what `val_score` is: `token_accuracy`, the share of tokens predicted right, or `r2`.
        steps: optimiser steps taken; the weights are those of `best_step`, which had the highest `val_score`.
        val_score, val_loss: of `best_step`, on validation inputs, of which always the same tokens are hidden.
        train_loss: the mean since the validation pass before the last.
        wall_seconds: of all attempts, validation and compilation included.
        curve: a point for each validation pass.
    """

    key: Name
    task: Name
    attn: Name
    seed: Count
    kind: Name
    config: Object
    score: Name
    steps: Count
    best_step: Count
    val_score: float
    val_loss: float
    train_loss: float
    train_seconds: Amount | None
    ms_per_step: Amount | None
    wall_seconds: Amount
    compile_seconds: Amount
    peak_memory_bytes: Count | None
    num_params: Count
    batch_size: Positive
    micro_batch: Positive | None
    curve: list[Object]
    resumptions: list[Object]
    device: Name
    environment: Environment
    commit: str | None
    command: str | None
    date: str | None
    schema: Schema = field(default=SCHEMA)

    def summary(self, *, reused: bool) -> dict[str, Any]:
        """Return what the record of a run holds of the encoder it began with.

        Args:
            reused: whether it was there already, from an earlier run or an earlier attempt at this one.
        """
        names = (
            "key kind score steps best_step val_score val_loss train_loss train_seconds ms_per_step wall_seconds "
            "peak_memory_bytes num_params batch_size commit date"
        )
        return {**{name: getattr(self, name) for name in names.split()}, "reused": reused}

    def write(self, folder: Path) -> None:
        """Write `record.json`, in a single step."""
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"
        write_atomically(folder / RECORD_NAME, text)


FORM: Form[PretrainedRecord] = Form(PretrainedRecord)


@dataclass(frozen=True)
class PretrainedFolder:
    """The folder `<results_dir>/pretrained/<task>/<attn>/<key>` of an encoder."""

    path: Path

    @classmethod
    def of(cls, results_dir: Path, task: str, attn: str, key: str) -> PretrainedFolder:
        """Return the folder of an encoder, which need not exist yet."""
        return cls(results_dir / PRETRAINED / task / attn / key)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def record(self) -> Path:
        """What the encoder is; it is written last."""
        return self.path / RECORD_NAME

    @property
    def weights(self) -> Path:
        """The encoder's weights of the best validation pass."""
        return self.path / "weights.pt"

    def read(self) -> PretrainedRecord:
        """Read the record.

        Raises:
            FileNotFoundError: there is none.
            ValueError, OSError: it cannot be read, or is not of this folder's encoder.
        """
        record = FORM.parse(self.record.read_bytes())
        if record.key != self.path.name:
            raise ValueError(f"it is of the encoder {record.key}")
        if run_key(record.config) != record.key:
            raise ValueError(f"its description was altered: it hashes to {run_key(record.config)}, not to its key")
        return record

    @contextmanager
    def claimed(self, check: Callable[[], None]) -> Iterator[None]:
        """Make the folder if need be, and hold it; while another process does, wait.

        Args:
            check: is called while waiting, and may raise to end it.

        Raises:
            InputError: the folder cannot be written.
        """
        lock = FileLock(self.path / ".lock", mode=0o666)
        with writing(f"The folder of a pre-trained encoder {self}", REMEDY):
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire(lock, check)
        try:
            yield
        finally:
            lock.release()

    def set_aside(self, reason: Exception) -> None:
        """Rename what is there of an encoder that cannot be used, and name it. Call this in a claimed folder."""
        for path in (self.record, self.weights):
            if path.exists():
                with writing(f"The folder of a pre-trained encoder {self}", REMEDY):
                    aside = set_aside(path)
                log.warning(
                    "The pre-trained encoder in %s cannot be used: %s. %s is %s now, and it is pre-trained anew.",
                    self,
                    reason_of(reason).rstrip("."),
                    path.name,
                    aside.name,
                )

    def _acquire(self, lock: FileLock, check: Callable[[], None]) -> None:
        told = False
        while True:
            try:
                lock.acquire(timeout=LOOK_SECONDS if told else 0)
                return
            except Timeout:
                check()
            if not told:
                log.info("Another process pre-trains this encoder in %s: waiting for it.", self)
            told = True
