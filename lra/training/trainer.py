"""The only training loop: every task, every backbone, the same steps, the same evaluation."""

from __future__ import annotations

import logging
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from lra.errors import InputError
from lra.machine.environment import current_commit, now
from lra.machine.meter import Meter
from lra.machine.profiling import WHOLE, Mark, profiled
from lra.machine.stopping import StoppedError
from lra.tasks import Part, Split, Task
from lra.training.batching import Batching
from lra.training.checkpoint import random_state, set_random_state
from lra.training.evaluation import Evaluation, evaluate
from lra.training.objectives import CLASSES, Objective
from lra.training.optimizer import Optimization
from lra.training.outcome import Outcome
from lra.training.progress import Choice, Window
from lra.training.stepper import Stepper
from lra.training.surroundings import Surroundings

log = logging.getLogger(__name__)

# Losses are read back from the device this often: for the progress bar, and to stop a diverged run.
READ_EVERY = 20
QUIET_SECONDS = 2.0  # an evaluation that takes longer shows how far it is
LONG_ON_CPU_SECONDS = 15 * 60
ESTIMATED_AFTER = 3  # steps, since the first is slower than any other
STATEFUL = ("outcome", "stepper", "window", "choice", "meter")  # attributes of a fit that a checkpoint holds


@dataclass(frozen=True)
class Trainer:
    """How to train; the fields, except the last two, are the `trainer` node of the configuration.

    What a single field takes is said, and checked, in `lra.runs.schema`; here is only how they go together.

    Attributes:
        steps: optimiser steps.
        batch_size: examples in one optimiser step, over all processes.
        micro_batch: examples in one forward pass; None for the whole batch, "auto" for as many as memory holds.
        compile: whether to use torch.compile; "auto" does on a GPU.
        precision: "fp32", or "bf16" or "fp16" for autocast, with "fp16" on scaled gradients.
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
        self.optimization.check(self.steps)
        if isinstance(self.micro_batch, int) and self.micro_batch > self.batch_size:
            raise InputError(
                f"trainer.micro_batch must be auto, null, or a number from 1 to trainer.batch_size={self.batch_size}. "
                f"Got {self.micro_batch}."
            )

    def fit(
        self,
        model: nn.Module,
        task: Task,
        outcome: Outcome,
        *,
        seed: int,
        surroundings: Surroundings,
        objective: Objective = CLASSES,
    ) -> None:
        """Train, keep the best weights on validation, and test both them and the last ones if the objective has a test.

        Args:
            model: maps what the objective shows it to what the objective scores; it is left with the best weights.
            task: a prepared task.
            outcome: is filled as training goes on.
            seed: of the order of the examples and of the draws at evaluation; the caller seeds the draws of training.
            surroundings: the device, and who watches or interrupts.
            objective: what the model is trained for.

        Raises:
            DivergedError: the loss is not finite any more.
            StoppedError: a stop was requested; a checkpoint was written.
        """
        torch.use_deterministic_algorithms(self.deterministic)
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without
        fit = Fit(self, model, task, outcome, seed, surroundings, objective)
        fit.begin()
        fit.train()
        fit.end()

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        max_len: int,
        seed: int,
        surroundings: Surroundings,
        name: str,
        objective: Objective = CLASSES,
    ) -> Evaluation:
        """Pass once over every example of a split; see `evaluate`. A long pass shows how far it is, under its name."""
        batches = self.batching.evaluation(split, self.eval_batch_size, max_len)
        count = -(-len(split.labels) // self.eval_batch_size)
        options = {"iterable": batches, "delay": QUIET_SECONDS, "leave": False}
        with _progress_bar(name, "batch", count, shown=surroundings.world.leads, **options) as bar:
            return evaluate(model, bar, len(split.labels), self.precision, seed, surroundings, objective)


class Fit:
    """One training under way: `begin`, then `train`, then `end`. The arguments are those of `Trainer.fit`."""

    def __init__(
        self,
        trainer: Trainer,
        model: nn.Module,
        task: Task,
        outcome: Outcome,
        seed: int,
        surroundings: Surroundings,
        objective: Objective,
    ) -> None:
        self.trainer, self.model, self.task, self.outcome = trainer, model, task, outcome
        self.seed, self.surroundings, self.objective = seed, surroundings, objective
        self.device, self.world = surroundings.device, surroundings.world
        self.meter = surroundings.meter or Meter(self.device)
        self.window, self.choice = Window(), Choice(trainer.patience)
        self.splits = {part: task.split(part) for part in objective.parts}
        self.stepper = Stepper(
            model=model,
            split=self.splits["train"],
            max_len=task.max_len,
            device=self.device,
            world=self.world,
            steps=trainer.steps,
            batch_size=trainer.batch_size,
            micro_batch=trainer.micro_batch,
            precision=trainer.precision,
            optimization=trainer.optimization,
            batching=trainer.batching,
            objective=objective,
        )

    def begin(self) -> None:
        """Go on from a checkpoint, if there is one, and get ready for the first step."""
        outcome, checkpoints = self.outcome, self.surroundings.checkpoints
        if checkpoints and checkpoints.resume(self, self.device, self.world):
            outcome.resumptions.append({"step": outcome.steps, "date": now(), "commit": current_commit()})
            log.info("Going on from step %d of %d.", outcome.steps, self.trainer.steps)
        self.model.train()
        try:
            outcome.compile_seconds += self.stepper.prepare(self.trainer.compile)
        finally:
            outcome.micro_batch = self.stepper.size

    def train(self) -> None:
        """Take all steps, with their validation passes; however this ends, the outcome has what was measured."""
        trace, total, steps = self.surroundings.trace, self.trainer.steps, self.outcome.steps
        try:
            with (
                _progress_bar(self.objective.name, "step", total, shown=self.world.leads, initial=steps) as bar,
                profiled(trace, self.device) as (mark, tick),
                self.meter.running(),
            ):
                self._loop(bar, mark, tick)
        except StoppedError:
            self._read()
            self._keep()
            raise
        finally:
            self.outcome.micro_batch = self.stepper.size
            self.outcome.cost = self.meter.summary(self.world.size)

    def end(self) -> None:
        """Give the model its best weights; before, test the last ones and then these, if there is a test."""
        outcome = self.outcome
        self._keep()  # the model changes weights from here on
        if "test" not in self.objective.parts:
            self.model.load_state_dict(outcome.weights)
            return
        last = best = self._evaluate("test", "test")
        self.model.load_state_dict(outcome.weights)
        if outcome.best_step != outcome.steps:
            best = self._evaluate("test", "test")
        outcome.last_test_accuracy, outcome.test_accuracy = last.accuracy, best.accuracy
        outcome.predictions = {"last": last.predictions, "best": best.predictions}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs to be bit for bit this one; between two steps, after `_read`."""
        states = {name: getattr(self, name).state_dict() for name in STATEFUL}
        return {**states, "random": self.world.gather(random_state(self.device))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, on every process of the world."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        if not 0 <= self.outcome.steps <= self.trainer.steps:
            raise ValueError(f"it is of step {self.outcome.steps}, and there are {self.trainer.steps}")
        set_random_state(state["random"][self.world.rank], self.device)

    def _loop(self, bar: tqdm, mark: Mark, tick: Callable[[], None]) -> None:
        trainer, outcome = self.trainer, self.outcome
        batches = trainer.batching.training(
            self.splits["train"], trainer.batch_size, self.seed, first_step=outcome.steps
        )
        self._validate_if_due()
        while not self._ended():
            with mark(WHOLE):
                step = self.stepper.take(next(batches), mark)
                outcome.steps += 1
                self.window.add(step)
                self.meter.lap(step.real_tokens, step.padded_tokens)
            bar.update()
            tick()
            if outcome.steps == ESTIMATED_AFTER and self.device.type == "cpu":
                bar.clear()
                self._warn_if_long()
            if outcome.steps % READ_EVERY == 0:
                self._read()
                bar.set_postfix_str(f"{self.window.recent}  {_best(outcome)}", refresh=False)
            # Processes must stop and save together; agreeing on it takes time, so several do so less often.
            if self.world.size == 1 or outcome.steps % READ_EVERY == 0:
                self._stop_or_keep()
            self._validate_if_due()

    def _ended(self) -> bool:
        return self.outcome.steps == self.trainer.steps or self.outcome.stopped_early

    def _validate_if_due(self) -> None:
        outcome = self.outcome
        is_last = outcome.steps == self.trainer.steps
        due = is_last or (outcome.steps > 0 and outcome.steps % self.trainer.eval_every == 0)
        if due and not outcome.evaluated():
            with self.meter.paused():
                self._read()
                self._validate()

    def _validate(self) -> None:
        """Evaluate on the validation split, and add a point to the curve."""
        trainer, outcome = self.trainer, self.outcome
        evaluation = self._evaluate("val", "validation")
        self.choice.consider(evaluation, self.model, outcome)
        outcome.curve.append(
            {
                "step": outcome.steps,
                "epoch": outcome.steps * trainer.batch_size / len(self.splits["train"].labels),
                **self.window.close(),
                "val_loss": evaluation.loss,
                "val_accuracy": evaluation.accuracy,
                "learning_rate": self.window.rate,
                "train_seconds": self.meter.summary(self.world.size)["train_seconds"],
            }
        )
        self.surroundings.report(outcome.curve[-1])

    def _evaluate(self, part: Part, name: str) -> Evaluation:
        split, max_len = self.splits[part], self.task.max_len
        return self.trainer.evaluate(self.model, split, max_len, self.seed, self.surroundings, name, self.objective)

    def _stop_or_keep(self) -> None:
        """Stop here if that was asked for, and keep a checkpoint if it is time to; all processes alike."""
        stop, checkpoints = self.surroundings.stop, self.surroundings.checkpoints
        if any(self.world.gather(stop.cause is not None)):
            raise StoppedError(f"stopped after step {self.outcome.steps} of {self.trainer.steps}")
        if self.world.agree(checkpoints is not None and checkpoints.due()):
            with self.meter.paused():
                self._read()
                self._keep()

    def _read(self) -> None:
        """Fetch the numbers of the last steps from the device.

        Raises:
            DivergedError: the loss, or the gradients in fp16, are not finite any more.
        """
        self.window.read(self.outcome.steps)
        self.stepper.check_scale(self.outcome.steps)

    def _keep(self) -> None:
        """Write a checkpoint; after `_read`."""
        checkpoints = self.surroundings.checkpoints
        if checkpoints is None:
            return
        state = self.state_dict()
        if self.world.leads:
            checkpoints.save(self.outcome.steps, state)

    def _warn_if_long(self) -> None:
        """Say at the start how long a run on a CPU will take, if that is long."""
        with self.meter.paused():
            step, steps = statistics.median(self.meter.laps), self.trainer.steps
            if step * steps > LONG_ON_CPU_SECONDS:
                log.warning(
                    "A step takes %.1f s: %d of them about %.1f hours on this CPU, evaluations aside. "
                    "scale=mini is made for a CPU and takes minutes.",
                    step,
                    steps,
                    step * steps / 3600,
                )


def _best(outcome: Outcome) -> str:
    return "" if outcome.val_accuracy is None else f"best val {outcome.val_accuracy:.1%}"


def _progress_bar(name: str, unit: str, total: int, *, shown: bool, **options: Any) -> tqdm:
    # In a log file every refresh is a line of its own: a few of them will do.
    seconds = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        desc=name, unit=unit, total=total, file=sys.stderr, mininterval=seconds, maxinterval=2 * seconds,
        disable=not shown, **options,
    )  # fmt: skip
