"""One run from its configuration to its record: its key, its folder, its seed, and what happens when it fails."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from lra.errors import InputError
from lra.files import write_atomically
from lra.machine.distributed import joined
from lra.machine.environment import current_commit, describe_environment, now
from lra.machine.stopping import stoppable
from lra.records.identity import run_group, run_key
from lra.records.record import RECORD_NAME, RunRecord
from lra.records.wandb_mirror import WandbMirror
from lra.runs.attempt import Attempt
from lra.tasks import Task
from lra.training.checkpoint import Checkpoints
from lra.training.trainer import Trainer

log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any],
    *,
    task: Task,
    build_model: Callable[[], nn.Module],
    trainer: Trainer,
    device: torch.device,
    results_dir: Path,
    checkpoint_seconds: float,
    profile: bool,
    command: str,
    wandb: Mapping[str, Any],
) -> tuple[RunRecord, Path]:
    """Train one model on one task, unless a finished record of the same run exists, and leave its record.

    A run that was interrupted goes on from its last checkpoint. Every process that torchrun started calls this; the
    first one writes.

    Args:
        config: what determines the run, and nothing else: plain values under `task`, `attn` and `protocol` (each with
            a `name` and a `version`), `scale`, `seed`, and whatever else changes its numbers. Together with the data's
            description, the type of the device and the number of processes it makes the run's key.
        task: where the data come from.
        build_model: is called once torch is seeded.
        trainer: how to train.
        device: where to train.
        results_dir: the run's folder is `<results_dir>/runs/<task>/<attn>/<key>/`.
        checkpoint_seconds: time from one checkpoint to the next.
        command: what repeats the run.
        profile: whether to profile a few steps; the trace is `trace.json` in the run's folder.
        wandb: `mode`, `project` and `entity`.

    Returns:
        The record, whose status says how the run went, and the folder it is in.

    Raises:
        InputError: the data or the run's folder cannot be used.
        Exception: whatever made the run fail, once its record is written.
    """
    task.prepare()
    data = task.describe()
    with stoppable() as stop, joined(device) as world:
        if world.size > trainer.batch_size:
            raise InputError(f"{world.size} processes cannot share batches of trainer.batch_size={trainer.batch_size}.")
        config = {**config, "device": device.type, "prepared": data}
        if world.size > 1:
            config["num_processes"] = world.size
        key = run_key(config)
        folder = results_dir / "runs" / config["task"]["name"] / config["attn"]["name"] / key
        record = RunRecord(
            key=key,
            group=run_group(config),
            task=config["task"]["name"],
            attn=config["attn"]["name"],
            protocol=config["protocol"]["name"],
            scale=config["scale"],
            seed=config["seed"],
            config=dict(config),
            data=data,
            status="failed",
            batch_size=trainer.batch_size,
            num_processes=world.size,
            dtype=trainer.precision,
            device=device.type,
            environment=describe_environment(device, config["attn"].get("_target_")),
            commit=current_commit(),
            command=command,
            date=now(),
        )
        with _claimed(folder, config) if world.leads else nullcontext():
            earlier = world.agree(_finished(folder) if world.leads else None)
            if earlier is not None:
                log.info("This run is finished already; its record is read from %s.", folder / RECORD_NAME)
                return earlier, folder
            checkpoints = Checkpoints(folder, key, checkpoint_seconds)
            attempt = Attempt(
                record, task, build_model, trainer, device, folder, checkpoints, world, lambda _: None, profile
            )
            if not world.leads:
                attempt.train(stop)
                return record, folder
            log.info("%s · %s · %s · %s · seed %d · %s", *_title(record), device.type)
            mirror = WandbMirror(
                **wandb,
                folder=folder,
                key=key,
                name=f"{record.task}-{record.attn}-{record.seed}",
                group=record.group,
                config=config,
            )
            attempt.mirror = mirror.log
            mistaken = False
            try:
                attempt.train(stop)
            except InputError:
                mistaken = True  # what cannot be begun has no record, and replaces none
                raise
            finally:
                if not mistaken:
                    record.write(folder)
                if record.is_final:
                    checkpoints.clear()
                mirror.finish(_summary(record), failed=not record.is_final)
    return record, folder


@contextmanager
def _claimed(folder: Path, config: Mapping[str, Any]):
    """Hold the run's folder against other processes and other configurations."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"Another process is training this very run in {folder}: {_holder(folder)}. Wait for it, or give this one "
            "another seed or another results_dir=."
        ) from None
    except OSError as error:
        raise InputError(
            f"The run's folder {folder} cannot be written: {error.strerror or error}. "
            "Choose a folder that can be with results_dir=."
        ) from error
    try:
        path = folder / "config.json"
        if path.exists():
            _check_config(path, config)
        else:
            write_atomically(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
        (folder / ".holder").write_text(f"process {os.getpid()} on {socket.gethostname()}, since {now()}")
        yield
    finally:
        lock.release()


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Compare the configuration that the folder was begun with by its key: classes may have moved since.

    Raises:
        InputError: it has another key, or cannot be read.
    """
    try:
        known = json.loads(path.read_text())
    except ValueError:
        known = {}
    if run_key(known) != run_key(config):
        raise InputError(
            f"{path} holds another configuration than this run's, although the folder bears its key. The folder "
            "was altered or copied there: move it away, or choose another results_dir=."
        )
    for node in ("task", "attn"):
        before, present = (each[node].get("_target_") for each in (known, config))
        if before != present:
            log.warning(
                "%s was begun with %s, which is now %s. If that is another class and not the same one moved, give it "
                "a name or a version of its own: the key has nothing else to tell them apart.",
                path,
                before,
                present,
            )


def _holder(folder: Path) -> str:
    try:
        return (folder / ".holder").read_text()
    except OSError:
        return "it has just begun"


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
    return {name: value for name, value in record.as_dict().items() if name != "config"}
