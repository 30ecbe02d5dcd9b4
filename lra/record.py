"""What a run was and what it produced: one JSON file a run, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

SCHEMA = 1
RECORD_NAME, WEIGHTS_NAME, PREDICTIONS_NAME = "record.json", "weights.pt", "predictions.npz"
# Names in the last. Of a test split: its true classes, and those that a rule without a model predicts, FLOOR and
# the rule's name; of a run: the classes that these weights predict.
LABELS, FLOOR, WEIGHTS = "labels", "floor_", ("best", "last")
CODE = ("lra", "models", "configs", "scripts")

Status = Literal["ok", "diverged", "out_of_memory", "failed", "interrupted"]
FINAL_STATUSES: tuple[Status, ...] = ("ok", "diverged", "out_of_memory")


@dataclass
class RunRecord:
    """Everything known about a run. Accuracies are fractions, times seconds unless named otherwise, sizes bytes.

    `test_accuracy` and `val_accuracy` belong to the weights of `best_step`, which had the highest validation
    accuracy; the `last_` ones to the weights of the last step. `group` is the key without the seed: runs that differ
    in nothing else share it. `results/README.md` explains every field.
    """

    key: str
    group: str
    task: str
    attn: str
    protocol: str
    scale: str
    seed: int
    config: dict[str, Any]
    data: dict[str, Any]
    status: Status
    error: str | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    last_val_accuracy: float | None = None
    last_test_accuracy: float | None = None
    best_step: int | None = None
    steps: int = 0
    stopped_early: bool = False
    floors: dict[str, float] = field(default_factory=dict)
    train_seconds: float | None = None
    warmup_seconds: float | None = None
    compile_seconds: float | None = None
    wall_seconds: float | None = None
    ms_per_step: float | None = None
    ms_per_step_quartiles: list[float | None] | None = None
    tokens_per_second: float | None = None
    padded_tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_memory_reserved_bytes: int | None = None
    load_average: float | None = None
    num_params: int | None = None
    forward_flops: int | None = None
    training_flops: int | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    micro_batch: int | None = None
    num_processes: int = 1
    resumptions: list[dict[str, Any]] = field(default_factory=list)
    dtype: str | None = None
    device: str = "cpu"
    environment: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    command: str | None = None
    date: str | None = None
    schema: int = SCHEMA

    @property
    def is_final(self) -> bool:
        """Whether the run is a result, good or bad, that running it again would only repeat."""
        return self.status in FINAL_STATUSES

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self)

    def write(self, folder: Path) -> Path:
        """Write `record.json` into the run's folder, replacing an older one in a single step."""
        path = folder / RECORD_NAME
        write_atomically(path, json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def parse(cls, text: str) -> RunRecord:
        """Make a record of its JSON.

        Raises:
            ValueError: the text is no record, or one of another schema.
        """
        try:
            values = json.loads(text)
            if values["schema"] != SCHEMA:
                raise ValueError(f"its schema is {values['schema']}, and this program reads {SCHEMA}")
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"it lacks or has a field too many: {error}") from error

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a record's file.

        Raises:
            ValueError: the file holds no record of this schema; the message names it.
        """
        try:
            return cls.parse(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no readable record: {error}") from error


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Say on what a run ran: device, driver, versions, threads, and what bears on speed."""
    facts: dict[str, Any] = {
        "device_name": _cpu_name(),
        "platform": platform.platform(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "datasets", "hydra-core")},
    }
    if device.type == "cuda":
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return facts


def current_commit() -> str | None:
    """Return the commit of the code that is running, with `-dirty` where it differs; None outside git.

    What is under `results/` is no code: a benchmark that writes there leaves the next one clean. A new file is, where
    it can run: a mechanism that is not committed yet.
    """
    top = Path(__file__).parent.parent
    try:
        commit, changed, added = (
            subprocess.run(["git", *words], cwd=top, capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results"],
                ["ls-files", "--others", "--exclude-standard", "--", *CODE],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed or added else commit


def now() -> str:
    """Return the date and the time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
