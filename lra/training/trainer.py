"""The only training loop: every task, every backbone, the same steps, the same evaluation."""

from __future__ import annotations

import logging
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.amp import GradScaler
from tqdm import tqdm

from lra.errors import InputError, check_integer
from lra.machine.distributed import World
from lra.machine.environment import current_commit, now
from lra.machine.meter import Meter
from lra.machine.profiling import profiled
from lra.machine.stopping import StoppedError, StopRequest
from lra.tasks import Split, Task
from lra.training import compilation
from lra.training.batching import Batching
from lra.training.checkpoint import Checkpoints
from lra.training.evaluation import Evaluation, evaluate
from lra.training.objectives import PRECISIONS
from lra.training.optimizer import Optimization
from lra.training.outcome import Outcome
from lra.training.progress import Choice, Training, Window
from lra.training.stepper import Stepper

log = logging.getLogger(__name__)

# Losses are read back from the device this often: for the progress bar, and to stop a diverged run.
READ_EVERY = 20
QUIET_SECONDS = 2.0  # an evaluation that takes longer shows how far it is
LONG_ON_CPU_SECONDS = 15 * 60
ESTIMATED_AFTER = 3  # steps, of which the first is slower than any other


@dataclass(frozen=True)
class Trainer:
    """How to train; the fields are the `trainer` node of the configuration, but for the last two.

    Attributes:
        steps: optimiser steps.
        batch_size: examples in one optimiser step, over all processes.
        micro_batch: examples in one forward pass; None for the whole batch, "auto" for as many as memory holds.
        compile: whether torch.compile makes the training step; "auto" for on a GPU.
        precision: "fp32", or "bf16" or "fp16" for autocast, the latter with scaled gradients.
        deterministic: let torch refuse kernels whose result depends on timing.
        eval_every: steps from one validation pass to the next; the last step always has one.
        patience: validation passes without a lower loss before training stops, None for never.
        eval_batch_size: examples in one forward pass of an evaluation.
        optimization: how weights are updated; a node of its own, `optimizer`.
        batching: how examples become batches; a node of its own, `data`.
    """

    steps: int
    batch_size: int
    micro_batch: int | Literal["auto"] | None
    compile: bool | Literal["auto"]
    precision: str
    deterministic: bool
    eval_every: int
    patience: int | None
    eval_batch_size: int
    optimization: Optimization
    batching: Batching

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "eval_batch_size"):
            check_integer(f"trainer.{name}", getattr(self, name), 1)
        if self.precision not in PRECISIONS:
            raise InputError(f"trainer.precision must be one of {', '.join(PRECISIONS)}. Got {self.precision!r}.")
        if self.compile not in compilation.MODES:
            raise InputError(f"trainer.compile must be true, false or auto. Got {self.compile!r}.")
        self.optimization.check(self.steps)
        size = self.micro_batch
        if not (size is None or size == "auto" or (isinstance(size, int) and 1 <= size <= self.batch_size)):
            raise InputError(
                f"trainer.micro_batch must be auto, null, or a number from 1 to trainer.batch_size={self.batch_size}. "
                f"Got {size!r}."
            )

    def fit(
        self,
        model: nn.Module,
        task: Task,
        *,
        seed: int,
        device: torch.device,
        report: Callable[[dict[str, Any]], None],
        outcome: Outcome,
        meter: Meter | None = None,
        checkpoints: Checkpoints | None = None,
        stop: StopRequest | None = None,
        world: World | None = None,
        trace: Path | None = None,
    ) -> None:
        """Train, keep the best weights on validation, and test both them and the last ones.

        Args:
            model: maps tokens (B, I, L) and mask (B, I, L) to logits; it is left with the best weights.
            task: a prepared task.
            seed: of the order of the examples and of the draws at evaluation; the caller seeds those of training.
            device: where the model is.
            report: is handed a flat dict of numbers after every evaluation, which is also the last of `outcome.curve`.
            outcome: is filled on the way.
            meter: made before the model, so that it counts the model's memory; None for one made here.
            checkpoints: where to go on from, and where to keep what there is; None to keep nothing.
            stop: is looked at after every step and between batches of an evaluation; None for never.
            world: the processes that train together; None for this one alone.
            trace: a file for the profile of a few steps; None for no profile.

        Raises:
            DivergedError: the loss is not finite any more.
            StoppedError: a stop was requested; a checkpoint holds what there is.
        """
        torch.use_deterministic_algorithms(self.deterministic)
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without
        world, stop, meter = world or World(), stop or StopRequest(), meter or Meter(device)
        train, val, test = task.split("train"), task.split("val"), task.split("test")
        optimizer, schedule = self.optimization.build(model.parameters(), self.steps)
        scaler = GradScaler(device.type, enabled=self.precision == "fp16")
        training = Training(
            model, optimizer, schedule, scaler, Window(), Choice(self.patience), meter, outcome, self.batching, device,
            world,
        )  # fmt: skip
        saved = checkpoints.load(device) if checkpoints else None
        if saved is not None:
            training.load_state_dict(saved)
            outcome.resumptions.append({"step": outcome.steps, "date": now(), "commit": current_commit()})
            log.info("Going on from step %d of %d.", outcome.steps, self.steps)
        model.train()
        stepper = Stepper(
            training, train, task.max_len, self.steps, self.batch_size, self.micro_batch, self.precision,
            self.optimization.clip_norm,
        )  # fmt: skip
        stepper.prepare(self.compile)

        def keep() -> None:
            state = training.state_dict()
            if checkpoints and world.leads:
                checkpoints.save(outcome.steps, state)

        batches = self.batching.training(train, self.batch_size, seed, first_step=outcome.steps)
        bar = _progress_bar("train", "step", self.steps, shown=world.leads, initial=outcome.steps)
        with bar, profiled(trace, device) as (training.mark, tick):
            try:
                meter.start()
                while True:
                    ended = outcome.steps == self.steps
                    if (ended or outcome.steps % self.eval_every == 0) and outcome.steps and not training.evaluated():
                        meter.stop()
                        training.read()
                        result = self.evaluate(model, val, task.max_len, device, seed, stop, world, "validation")
                        self._note(result, training, len(train.labels))
                        report(outcome.curve[-1])
                        meter.start()
                    if ended or outcome.stopped_early:
                        break
                    with training.mark("step"):
                        stepper.take(next(batches))
                    bar.update()
                    tick()
                    if outcome.steps == ESTIMATED_AFTER:
                        bar.clear()
                        self._warn_if_long(meter, device)
                    if outcome.steps % READ_EVERY == 0:
                        training.read()
                        bar.set_postfix_str(f"{training.window.recent}  {_best(outcome)}", refresh=False)
                    # Processes must stop and save together, and to agree on it has its price.
                    if world.size == 1 or outcome.steps % READ_EVERY == 0:
                        if any(world.gather(stop.cause is not None)):
                            raise StoppedError(f"stopped after step {outcome.steps} of {self.steps}")
                        if world.agree(checkpoints is not None and checkpoints.due()):
                            meter.stop()
                            training.read()
                            keep()
                            meter.start()
            except StoppedError:
                meter.stop()
                training.read()
                keep()
                raise
            finally:
                meter.stop()
                outcome.cost = meter.summary(world.size)
        keep()  # the model changes weights from here on
        last = best = self.evaluate(model, test, task.max_len, device, seed, stop, world, "test")
        model.load_state_dict(outcome.weights)
        if outcome.best_step != outcome.steps:
            best = self.evaluate(model, test, task.max_len, device, seed, stop, world, "test")
        outcome.last_test_accuracy, outcome.test_accuracy = last.accuracy, best.accuracy
        outcome.predictions = {"last": last.predictions, "best": best.predictions}

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        max_len: int,
        device: torch.device,
        seed: int,
        stop: StopRequest | None = None,
        world: World | None = None,
        name: str = "evaluation",
    ) -> Evaluation:
        """Pass once over every example of a split; see `evaluate`. A long pass shows how far it is."""
        batches = self.batching.evaluation(split, self.eval_batch_size, max_len)
        count = -(-len(split.labels) // self.eval_batch_size)
        leads = world is None or world.leads
        about = {"iterable": batches, "delay": QUIET_SECONDS, "leave": False}
        with _progress_bar(name, "batch", count, shown=leads, **about) as shown:
            return evaluate(model, split.labels, shown, device, self.precision, seed, stop, world)

    def _note(self, result: Evaluation, training: Training, num_train: int) -> None:
        """Put a validation pass into the outcome."""
        outcome = training.outcome
        training.choice.consider(result, training.model, outcome)
        outcome.curve.append(
            {
                "step": outcome.steps,
                "epoch": outcome.steps * self.batch_size / num_train,
                **training.window.close(),
                "val_loss": result.loss,
                "val_accuracy": result.accuracy,
                "learning_rate": training.last_rate,
                "train_seconds": training.meter.summary(training.world.size)["train_seconds"],
            }
        )

    def _warn_if_long(self, meter: Meter, device: torch.device) -> None:
        """Say at the start how long a run on a CPU will take, if that is long."""
        if device.type != "cpu":
            return
        meter.stop()
        step = statistics.median(meter.laps)
        if step * self.steps > LONG_ON_CPU_SECONDS:
            log.warning(
                "A step takes %.1f s: %d of them about %.1f hours on this CPU, evaluations aside. "
                "scale=mini is made for a CPU and takes minutes.",
                step,
                self.steps,
                step * self.steps / 3600,
            )
        meter.start()


def _best(outcome: Outcome) -> str:
    return "" if outcome.val_accuracy is None else f"best val {outcome.val_accuracy:.1%}"


def _progress_bar(name: str, unit: str, total: int, *, shown: bool, **about: Any) -> tqdm:
    # In a log file every refresh is a line of its own: a few of them will do.
    seconds = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        desc=name, unit=unit, total=total, file=sys.stderr, mininterval=seconds, maxinterval=2 * seconds,
        disable=not shown, **about,
    )  # fmt: skip
