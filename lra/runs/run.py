"""One run: what to train, an attempt at it, and the record that it leaves, however it ends."""

from __future__ import annotations

import json
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lra.errors import InputError
from lra.files import replacing, write_atomically, writing
from lra.machine.devices import claimed_device
from lra.machine.distributed import World, joined
from lra.machine.flops import count_flops
from lra.machine.memory import is_out_of_memory
from lra.machine.meter import Meter
from lra.machine.seeds import mixed_seed
from lra.machine.source import in_words, source_of
from lra.machine.stopping import StopRequest, stoppable
from lra.records.folder import RunFolder
from lra.records.identity import identify
from lra.records.record import FLOOR, LABELS, RunRecord, Status, tested
from lra.records.wandb_mirror import WandbMirror
from lra.runs.diagnostics import diagnose
from lra.runs.encoders import Encoders
from lra.runs.factory import make_trainer
from lra.runs.pretraining import Pretraining
from lra.tasks import Task, difficulty
from lra.training import storage
from lra.training.checkpoint import Checkpoints
from lra.training.outcome import DivergedError, Outcome
from lra.training.surroundings import Surroundings
from lra.training.trainer import Trainer

log = logging.getLogger(__name__)

MARGIN_BYTES = 2**21  # of a run's folder: for its predictions, its curve and its record
EXAMINED = 8  # validation examples: mechanisms may compare themselves with exact attention, which is quadratic


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, on what, how and where.

    Attributes:
        config: what determines the run, and nothing else: plain values under `task`, `attn` and `protocol` (each with
            a `name` and a `version`), `scale`, `seed`, and whatever else changes its numbers. The run's key is the hash
            of it, the data's description, the type of the device and the number of processes.
        task: where the data come from.
        build_model: makes the model; it is called once torch is seeded.
        pretraining: how the model's encoder is pre-trained; None where it is not.
        trainer: how to train.
        device: where to train.
        results_dir: the run's folder is `<results_dir>/runs/<task>/<attn>/<key>/`.
        checkpoint_seconds: time from one checkpoint to the next.
        profile: whether to profile a few steps and leave a trace in the run's folder.
        command: what repeats the run.
        wandb: `mode`, `project` and `entity`.
        source: of what is trained, as `lra.machine.source` gives it; {} where it is unknown.
        force: whether to train again what is finished; its result is kept aside.
    """

    config: Mapping[str, Any]
    task: Task
    build_model: Callable[[], nn.Module]
    trainer: Trainer
    device: torch.device
    results_dir: Path
    checkpoint_seconds: float
    profile: bool
    command: str
    wandb: Mapping[str, Any]
    source: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    pretraining: Pretraining | None = None

    def begin(self, world: World) -> tuple[RunRecord, RunFolder]:
        """Return the record of the run, with what is known before it is trained, and its folder.

        Args:
            world: the processes that train together.

        Raises:
            InputError: there are more processes than examples in a batch, or several that would pre-train.
        """
        if world.size > 1 and self.pretraining is not None:
            kind = self.pretraining.config["pretrain"]["kind"]
            raise InputError(
                f"pretrain={kind} takes one process, and there are {world.size}. Start run.py without torchrun, or "
                "choose pretrain=none."
            )
        size = self.trainer.batch_size
        if world.size > size:
            raise InputError(
                f"{world.size} processes cannot share batches of trainer.batch_size={size}. Start fewer processes, or "
                "set it higher."
            )
        config = {**self.config, "device": self.device.type, "prepared": self.task.describe()}
        if world.size > 1:
            config["num_processes"] = world.size
        precision = self.trainer.precision
        record = RunRecord.begin(
            config, device=self.device, batch_size=size, dtype=precision, command=self.command, source=self.source
        )
        return record, RunFolder.of(self.results_dir, record)


def run_configured(
    resolved: Mapping[str, Any],
    task_name: str,
    task: Task,
    attn: Mapping[str, Any],
    build_model: Callable[[], nn.Module],
    command: str,
    pretraining: Pretraining | None = None,
) -> tuple[RunRecord, RunFolder]:
    """Do the run that a configuration describes.

    Args:
        resolved: the whole configuration, as plain values.
        task_name: the name of its choice of task.
        task: the task that this choice makes.
        attn: the name, the version and the settings of what is trained: a mechanism, or a baseline in its stead.
        build_model: makes the model.
        command: what repeats the run.
        pretraining: how the model's encoder is pre-trained; None where it is not.

    Returns:
        As `run`.

    Raises:
        InputError: the configuration has an impossible value; and whatever `run` raises.
    """
    with claimed_device(resolved["device"]) as device:
        return run(
            Job(
                config=identify(resolved, task_name, task, attn),
                task=task,
                build_model=build_model,
                trainer=make_trainer(resolved),
                device=device,
                results_dir=Path(resolved["results_dir"]),
                checkpoint_seconds=resolved["trainer"]["checkpoint_seconds"],
                profile=resolved["trainer"]["profile"],
                command=command,
                wandb=resolved["wandb"],
                source=source_of(attn.get("_target_")),
                force=resolved["force"],
                pretraining=pretraining,
            )
        )


def run(job: Job) -> tuple[RunRecord, RunFolder]:
    """Train one model on one task, unless a finished record of the same run exists, and leave its record.

    A run that was interrupted goes on from its last checkpoint. Every process that torchrun started calls this; the
    first one writes.

    Returns:
        The record, whose status says how the run went, and the folder it is in.

    Raises:
        InputError: the data or the run's folder cannot be used.
        Exception: whatever made the run fail, once its record is written.
    """
    job.task.prepare()
    with stoppable() as stop, joined(job.device) as world:
        record, folder = job.begin(world)
        log.info("%s", job.task.summary(record.task))
        earlier = folder.result_to_read() if world.leads and not job.force else None
        with folder.claimed(record.config) if world.leads and earlier is None else nullcontext():
            earlier = world.agree(earlier or (_finished(job, folder) if world.leads else None))
            if earlier is not None:
                _tell(earlier, folder)
                return earlier, folder
            names = record.task, record.attn, record.protocol, record.scale
            log.info("%s · %s · %s · %s · seed %d · %s", *names, record.seed, record.device)
            Attempt(job, record, folder, world).run(stop)
    return record, folder


def _finished(job: Job, folder: RunFolder) -> RunRecord | None:
    """Return the result of a claimed folder; with `force` it is kept aside, so that there is none."""
    earlier = folder.finished()
    if earlier is None or not job.force:
        return earlier
    folder.keep_aside()
    return None


def _tell(record: RunRecord, folder: RunFolder) -> None:
    """Say that there is a result already, and whether the present source may give another one."""
    if modules := record.changed_modules:
        log.warning(
            "Finished before, but %s: force=true trains it again and keeps that result aside. It is read from %s.",
            in_words(modules),
            folder.record,
        )
    else:
        log.info("This run is finished already; its record is read from %s.", folder.record)


class Attempt:
    """What one process does to fill the record of a run, perhaps after an earlier process was interrupted.

    Args:
        job: what to train.
        record: says what the run is; what the run produces is put in.
        folder: the run's.
        world: the processes that train together; the first one writes.

    Raises:
        InputError: wandb's mode is unknown.
    """

    def __init__(self, job: Job, record: RunRecord, folder: RunFolder, world: World) -> None:
        self.job = job
        self.record = record
        self.folder = folder
        self.world = world
        self.checkpoints = Checkpoints(folder.path, record.key, job.checkpoint_seconds, job.source, job.force)
        wandb = job.wandb if world.leads else {**job.wandb, "mode": "disabled"}
        self.mirror = WandbMirror(record, folder.path, **wandb)
        self.outcome = Outcome()
        self.model: nn.Module | None = None
        self.meter: Meter | None = None

    def run(self, stop: StopRequest) -> None:
        """Train, and leave a record however it ends.

        Args:
            stop: is looked at between steps.

        Raises:
            InputError: the run cannot be trained as it is configured; no record is left.
            BaseException: any other failure that is no result. Divergence and a lack of memory are results.
        """
        try:
            self._train(stop)
        except InputError:  # what cannot be begun has no record, and replaces none
            raise
        except BaseException:
            with suppress(OSError):  # what went wrong first is told
                self._leave_record()
            raise
        else:
            with self._keeping():
                self._leave_record()
            self._measure_difficulty()
        finally:
            self.mirror.finish()

    def _train(self, stop: StopRequest) -> None:
        record = self.record
        try:
            self._fit(stop)
            with self._keeping():
                self._save()
            record.status = "ok"
        except BaseException as error:
            record.status = _status_of(error)
            record.error = traceback.format_exc()
            if not record.is_final:
                raise
            log.warning("The run ended as %s: %s", record.status, error)
        finally:
            self.outcome.wall_seconds = self.outcome.elapsed()
            for name, value in {**self.outcome.cost, **self.outcome.in_record()}.items():
                setattr(record, name, value)
            self._name_source()
        self._examine()

    def _fit(self, stop: StopRequest) -> None:
        job, record = self.job, self.record
        record.floors = job.task.floors()
        encoder = self._pretrain(stop)
        self.meter = meter = Meter(job.device, memory=not job.profile)
        torch.manual_seed(record.seed)
        self.model = model = job.build_model().to(job.device)
        if encoder is not None:
            model.get_submodule("encoder").load_state_dict(encoder)
            encoder.clear()
        record.num_params = sum(parameter.numel() for parameter in model.parameters())
        self._check_room(model)
        # The same weights everywhere, but draws of its own for each process.
        torch.manual_seed(mixed_seed(self.world.rank, record.seed))
        surroundings = Surroundings(
            job.device,
            world=self.world,
            stop=stop,
            checkpoints=self.checkpoints,
            meter=meter,
            report=self._report,
            trace=self.folder.trace if job.profile and self.world.leads else None,
        )
        job.trainer.fit(model, job.task, self.outcome, seed=record.seed, surroundings=surroundings)

    def _pretrain(self, stop: StopRequest) -> dict[str, Tensor] | None:
        """Return the weights that the encoder begins with; None where it begins with what is drawn for it.

        The time that this takes is none of the run's.
        """
        job, began = self.job, time.perf_counter()
        if job.pretraining is None:
            return None
        encoders = Encoders(
            job.pretraining,
            job.task,
            device=job.device,
            results_dir=job.results_dir,
            checkpoint_seconds=job.checkpoint_seconds,
            command=job.command,
            source=job.source,
            force=job.force,
        )
        weights, self.record.pretraining = encoders.get(stop)
        self.outcome.started += time.perf_counter() - began
        return weights

    def _report(self, point: dict[str, Any]) -> None:
        """Write the learning curve, of which this is the last point."""
        if not self.world.leads:
            return
        # The whole curve every time: what an interrupted attempt wrote after its last checkpoint is replaced.
        lines = (json.dumps(point) + "\n" for point in self.outcome.curve)
        try:
            write_atomically(self.folder.metrics, "".join(lines))
        except OSError as error:
            log.warning("The learning curve cannot be written now (%s); it is with the next point.", error.strerror)
        cost = self.meter.summary(self.world.size) if self.meter else {}
        self.mirror.log({**cost, **point})

    def _check_room(self, model: nn.Module) -> None:
        """Refuse a disk that has no room for the weights and the predictions.

        Raises:
            InputError: it has none.
        """
        if not self.world.leads:
            return
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        needed, free = weights + MARGIN_BYTES, shutil.disk_usage(self.folder.path).free
        if free < needed:
            raise InputError(
                f"The run needs {needed / 2**20:,.0f} MiB in {self.folder}, where {free / 2**20:,.0f} are free. Make "
                "room, or choose another folder with results_dir=."
            )

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Write what the training produced; where that fails, the checkpoints stay, and no record.

        Raises:
            InputError: a file cannot be written.
        """
        outcome = self.outcome
        accuracy = outcome.last_test_accuracy if tested(self.record) == "last" else outcome.test_accuracy
        told = "" if accuracy is None else f", with a test accuracy of {accuracy:.1%},"
        with writing(
            f"The result of this run{told} in {self.folder}",
            "Make room: the same command goes on from the last checkpoint and writes it.",
        ):
            yield

    def _save(self) -> None:
        """Write the best weights and what was predicted for the test examples."""
        if not self.world.leads:
            return
        storage.save(self.outcome.weights, self.folder.weights)
        task = self.job.task
        classes = {
            LABELS: task.split("test").labels.astype(np.uint8),
            **{FLOOR + name: predicted for name, predicted in task.floor_predictions().items()},
            **self.outcome.predictions,
        }
        with replacing(self.folder.predictions) as stream:
            np.savez_compressed(stream, allow_pickle=False, **classes)

    def _name_source(self) -> None:
        """Put the source into the record: of every stretch of the training, which may have been interrupted."""
        self.record.environment.pop("source", None)
        if self.checkpoints.source:
            self.record.environment["source"] = self.checkpoints.source

    def _examine(self) -> None:
        """Measure what needs no training, the operations of a pass and the mechanisms' figures, after all else."""
        if self.model is None or not self.world.leads:
            return
        task, device = self.job.task, self.job.device
        try:
            counts = count_flops(self.model, task.num_inputs, task.max_len)
            self.record.forward_flops, self.record.training_flops = counts
            index = np.arange(min(EXAMINED, len(task.split("val").labels)))
            batch = self.job.trainer.batching.gather(task.split("val"), index, task.max_len)
            torch.manual_seed(self.record.seed)
            self.record.diagnostics = diagnose(self.model, batch.tokens.to(device), batch.mask.to(device))
        except Exception as error:  # the record stays valid without it
            log.warning("The model could not be examined: %s", error)

    def _measure_difficulty(self) -> None:
        """Write beside the predictions what makes the test examples hard; the result is kept already."""
        if not self.world.leads or not self.folder.predictions.exists():
            return
        try:
            if measures := self.job.task.difficulties():
                write_atomically(self.folder.difficulty, difficulty.packed(measures))
        except Exception as error:  # a task that this fails for is trained on all the same
            log.warning("What makes the test examples hard is not known: %s", error)

    def _leave_record(self) -> None:
        if not self.world.leads:
            return
        self.record.write(self.folder.path)
        if self.record.is_final:
            self.checkpoints.clear()


def _status_of(error: BaseException) -> Status:
    if isinstance(error, DivergedError):
        return "diverged"
    if is_out_of_memory(error):
        return "out_of_memory"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
