"""One go at a run, which may be the second after an interruption: from a record that says what to one that says how."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lra.files import write_atomically
from lra.machine.distributed import World
from lra.machine.flops import count_flops
from lra.machine.memory import is_out_of_memory
from lra.machine.meter import Meter
from lra.machine.stopping import StopRequest
from lra.records.record import FLOOR, LABELS, PREDICTIONS_NAME, WEIGHTS_NAME, RunRecord, Status
from lra.runs.diagnostics import diagnose
from lra.tasks import Task
from lra.training.checkpoint import Checkpoints
from lra.training.outcome import DivergedError, Outcome
from lra.training.surroundings import Surroundings
from lra.training.trainer import Trainer

log = logging.getLogger(__name__)

EXAMINED = 8  # validation examples: mechanisms may compare themselves with exact attention, which is quadratic


@dataclass
class Attempt:
    """What one process does to fill a record.

    Attributes:
        record: says what the run is; what it produces is put in.
        task, build_model, trainer, device, folder: as in `lra.runs.run.run`.
        checkpoints: where to go on from.
        world: the processes that train together; the first one writes.
        mirror: is told every point of the curve.
        profile: whether to leave a trace in the folder.
    """

    record: RunRecord
    task: Task
    build_model: Callable[[], nn.Module]
    trainer: Trainer
    device: torch.device
    folder: Path
    checkpoints: Checkpoints
    world: World
    mirror: Callable[[dict[str, Any]], None]
    profile: bool
    outcome: Outcome = field(default_factory=Outcome)
    model: nn.Module | None = None

    def train(self, stop: StopRequest) -> None:
        """Fill the record; raise only what is neither a result (diverged, out of memory) nor success."""
        record = self.record
        try:
            self._fit(stop)
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
        self._examine()

    def _fit(self, stop: StopRequest) -> None:
        record = self.record
        record.floors = self.task.floors()
        meter = Meter(self.device)
        torch.manual_seed(record.seed)
        self.model = model = self.build_model().to(self.device)
        record.num_params = sum(parameter.numel() for parameter in model.parameters())
        # The same weights everywhere, but draws of its own for each process.
        torch.manual_seed((self.world.rank << 32) + record.seed)
        surroundings = Surroundings(
            self.device,
            world=self.world,
            stop=stop,
            checkpoints=self.checkpoints,
            meter=meter,
            report=self._report,
            trace=self.folder / "trace.json" if self.profile and self.world.leads else None,
        )
        self.trainer.fit(model, self.task, self.outcome, seed=record.seed, surroundings=surroundings)
        if self.world.leads:
            torch.save(self.outcome.weights, self.folder / WEIGHTS_NAME)
            classes = {
                LABELS: self.task.split("test").labels.astype(np.uint8),
                **{FLOOR + name: predicted for name, predicted in self.task.floor_predictions().items()},
                **self.outcome.predictions,
            }
            np.savez_compressed(self.folder / PREDICTIONS_NAME, allow_pickle=False, **classes)

    def _report(self, values: dict[str, Any]) -> None:
        if not self.world.leads:
            return
        # Whole every time, so that what an interrupted attempt wrote after its last checkpoint is gone.
        lines = (json.dumps(point) + "\n" for point in self.outcome.curve)
        write_atomically(self.folder / "metrics.jsonl", "".join(lines))
        self.mirror(values)

    def _examine(self) -> None:
        """Measure what is known of the model without training, once nothing waits for it any more."""
        if self.model is None or not self.world.leads:
            return
        try:
            counts = count_flops(self.model, self.task.num_inputs, self.task.max_len)
            self.record.forward_flops, self.record.training_flops = counts
            index = np.arange(min(EXAMINED, len(self.task.split("val").labels)))
            batch = self.trainer.batching.gather(self.task.split("val"), index, self.task.max_len)
            torch.manual_seed(self.record.seed)
            self.record.diagnostics = diagnose(self.model, batch.tokens.to(self.device), batch.mask.to(self.device))
        except Exception as error:  # the run is none the worse
            log.warning("The model could not be examined: %s", error)


def _status_of(error: BaseException) -> Status:
    if isinstance(error, DivergedError):
        return "diverged"
    if is_out_of_memory(error):
        return "out_of_memory"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
