"""One run from its configuration to its record: its key, its folder, its seed, and what happens when it fails."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from lra.errors import InputError
from lra.record import (
    RECORD_NAME,
    RunRecord,
    Status,
    command_line,
    current_commit,
    describe_environment,
    fingerprint,
    write_atomically,
)
from lra.tasks import Task
from lra.tracking import WandbMirror
from lra.trainer import DivergedError, Outcome, Trainer

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device.

    Raises:
        InputError: the name is another one, or asks for a GPU where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda. Got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device=cuda was asked for, but torch sees no CUDA device. Use device=cpu or device=auto, or install a "
            "build of torch with CUDA and check `nvidia-smi`."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run(
    config: Mapping[str, Any],
    *,
    task: Task,
    build_model: Callable[[], nn.Module],
    trainer: Trainer,
    device: torch.device,
    results_dir: Path,
    wandb: Mapping[str, Any],
) -> tuple[RunRecord, Path]:
    """Train one model on one task, unless a finished record of the same run exists, and leave its record.

    Args:
        config: what determines the run, and nothing else: plain values under `task`, `attn` and `protocol` (each with
            a `name` and a `version`), `scale`, `seed`, and whatever else changes its numbers. Its hash, together with
            the data's description and the type of the device, is the run's key.
        task: where the data come from.
        build_model: is called once torch is seeded.
        trainer: how to train.
        device: where to train.
        results_dir: the run's folder is `<results_dir>/runs/<task>/<attn>/<key>/`.
        wandb: `mode`, `project` and `entity`.

    Returns:
        The record, whose status says how the run went, and the folder it is in.

    Raises:
        InputError: the data or the run's folder cannot be used.
        Exception: whatever made the run fail, once its record is written.
    """
    task.prepare()
    data = task.describe()
    config = {**config, "device": device.type, "prepared": data}
    key = fingerprint(config)
    folder = results_dir / "runs" / config["task"]["name"] / config["attn"]["name"] / key
    record = RunRecord(
        key=key,
        group=fingerprint({name: value for name, value in config.items() if name != "seed"}),
        task=config["task"]["name"],
        attn=config["attn"]["name"],
        protocol=config["protocol"]["name"],
        scale=config["scale"],
        seed=config["seed"],
        config=dict(config),
        data=data,
        status="failed",
        batch_size=trainer.batch_size,
        micro_batch=trainer.micro_batch or trainer.batch_size,
        dtype=trainer.precision,
        device=device.type,
        environment=describe_environment(device),
        commit=current_commit(),
        command=command_line(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with _claimed(folder, config):
        earlier = _finished(folder)
        if earlier is not None:
            log.info("This run is finished already; its record is read from %s.", folder / RECORD_NAME)
            return earlier, folder
        log.info("%s · %s · %s · %s · seed %d · %s", *_title(record), device.type)
        mirror = WandbMirror(
            **wandb,
            folder=folder,
            key=key,
            name=f"{record.task}-{record.attn}-{record.seed}",
            group=record.group,
            config=config,
        )
        try:
            _train(record, task, build_model, trainer, device, folder, mirror.log)
        finally:
            record.write(folder)
            mirror.finish(_summary(record), failed=not record.is_final)
    return record, folder


def _train(
    record: RunRecord,
    task: Task,
    build_model: Callable[[], nn.Module],
    trainer: Trainer,
    device: torch.device,
    folder: Path,
    mirror: Callable[[dict[str, Any]], None],
) -> None:
    """Fill the record; raise only what is neither a result (diverged, out of memory) nor success."""
    curve = folder / "metrics.jsonl"
    curve.unlink(missing_ok=True)

    def report(values: dict[str, Any]) -> None:
        with curve.open("a") as stream:
            stream.write(json.dumps(values) + "\n")
        mirror(values)

    outcome = Outcome()
    started = time.perf_counter()
    try:
        record.floors = task.floors()
        torch.manual_seed(record.seed)
        model = build_model().to(device)
        record.num_params = sum(parameter.numel() for parameter in model.parameters())
        trainer.fit(model, task, seed=record.seed, device=device, report=report, outcome=outcome)
        torch.save(outcome.weights, folder / "weights.pt")
        np.savez_compressed(folder / "predictions.npz", allow_pickle=False, **outcome.predictions)
        record.status = "ok"
    except BaseException as error:
        record.status = _status_of(error)
        record.error = traceback.format_exc()
        if not record.is_final:
            raise
        log.warning("The run ended as %s: %s", record.status, error)
    finally:
        record.wall_seconds = time.perf_counter() - started
        for name, value in {**outcome.cost, **_numbers(outcome)}.items():
            setattr(record, name, value)


def _status_of(error: BaseException) -> Status:
    if isinstance(error, DivergedError):
        return "diverged"
    # On a CPU torch says it in a plain RuntimeError.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error):
        return "out_of_memory"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _numbers(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of the outcome that the record holds too."""
    apart = ("cost", "weights", "predictions")
    return {name: value for name, value in vars(outcome).items() if name not in apart}


@contextmanager
def _claimed(folder: Path, config: Mapping[str, Any]):
    """Hold the run's folder against other processes and other configurations."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"Another process is training this very run in {folder}. Wait for it, or give this one another seed or "
            "another results_dir=."
        ) from None
    except OSError as error:
        raise InputError(
            f"The run's folder {folder} cannot be written: {error.strerror or error}. "
            "Choose a folder that can be with results_dir=."
        ) from error
    try:
        path = folder / "config.json"
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        if path.exists() and path.read_text() != text:
            raise InputError(
                f"{path} holds another configuration than this run's, although the folder bears its key. The folder "
                "was altered or copied there: move it away, or choose another results_dir=."
            )
        write_atomically(path, text)
        yield
    finally:
        lock.release()


def _finished(folder: Path) -> RunRecord | None:
    """Return the folder's record if it is one that a repetition would only repeat."""
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    try:
        record = RunRecord.read(path)
    except ValueError as error:
        raise InputError(f"{error}. Move it away to run this again, or choose another results_dir=.") from error
    return record if record.is_final else None


def _title(record: RunRecord) -> tuple[str, str, str, str, int]:
    return record.task, record.attn, record.protocol, record.scale, record.seed


def _summary(record: RunRecord) -> dict[str, Any]:
    """Return the record without what wandb holds elsewhere."""
    return {name: value for name, value in record.as_dict().items() if name not in ("config", "schema")}
