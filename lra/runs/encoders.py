"""Where pre-trained encoders are found, or made: by the loop that trains runs, into folders of their own keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lra.files import writing
from lra.machine.environment import current_commit, describe_environment, now
from lra.machine.meter import Meter
from lra.machine.seeds import mixed_seed
from lra.machine.source import changed, in_words
from lra.machine.stopping import StopRequest
from lra.records.folder import REMEDY
from lra.records.identity import run_key
from lra.records.pretrained import PretrainedFolder, PretrainedRecord
from lra.runs.pretraining import Pretraining
from lra.tasks import Task
from lra.training import storage
from lra.training.checkpoint import Checkpoints
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings

log = logging.getLogger(__name__)

DRAWS = 1  # sets the draws of this stage apart from those of the next, which has the same seed


class Encoders:
    """Where pre-trained encoders are found, or made.

    Args:
        pretraining: how they are made.
        task: a prepared task.
        device: where.
        results_dir: the encoder's folder is `<results_dir>/pretrained/<task>/<attn>/<key>/`.
        checkpoint_seconds: time from one checkpoint to the next.
        command: what repeats the run that needs the encoder.
        source: of the mechanism, as `lra.machine.source` gives it; {} where it is unknown.
        force: whether an encoder of other source is made anew, and not only named.
    """

    def __init__(
        self,
        pretraining: Pretraining,
        task: Task,
        *,
        device: torch.device,
        results_dir: Path,
        checkpoint_seconds: float,
        command: str,
        source: Mapping[str, str],
        force: bool,
    ) -> None:
        self.pretraining, self.task, self.device, self.command = pretraining, task, device, command
        self.checkpoint_seconds, self.source, self.force = checkpoint_seconds, source, force
        self.config = {**pretraining.config, "device": device.type, "prepared": task.describe()}
        self.key = run_key(self.config)
        names = self.config["task"]["name"], self.config["attn"]["name"]
        self.folder = PretrainedFolder.of(results_dir, *names, self.key)

    def get(self, stop: StopRequest) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return an encoder's weights by name, and what a run's record holds of its pre-training.

        One that was stopped goes on from its last checkpoint. One that does not fit its key is named and made anew.

        Raises:
            InputError: the folder cannot be written.
            DivergedError: the loss is not finite any more.
            StoppedError: a stop was requested; a checkpoint was written.
        """
        with suppress(OSError, ValueError):  # without a lock, which others may hold, or the right to write
            return self._found()
        with self.folder.claimed(stop.check):
            try:
                return self._found()  # by another process meanwhile
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                self.folder.set_aside(error)
            record, weights = self._make(stop)
        return weights, record.summary(reused=False)

    def _found(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the encoder, and return what `get` does.

        Raises:
            FileNotFoundError: there is none.
            ValueError, OSError: it cannot be read, or is not what its key says.
        """
        record = self.folder.read()
        modules = changed(record.environment.get("source", {}), self.source)
        if modules and self.force:
            raise ValueError(in_words(modules))
        try:
            weights = storage.load(self.folder.weights, self.device)
        except FileNotFoundError:
            raise ValueError("it has no weights") from None
        shapes = {name: tensor.shape for name, tensor in self._encoder_of(self.pretraining.build()).items()}
        found = {name: tensor.shape for name, tensor in weights.items()} if isinstance(weights, dict) else {}
        if odd := [name for name in {**shapes, **found} if shapes.get(name) != found.get(name)]:
            raise ValueError(f"its weights are of another encoder, for example {odd[0]}")
        if modules:
            log.warning(
                "Pre-trained before, but %s: force=true pre-trains again. The encoder is read from %s.",
                in_words(modules),
                self.folder,
            )
        else:
            log.info("The pre-trained encoder is read from %s.", self.folder)
        return weights, record.summary(reused=True)

    def _make(self, stop: StopRequest) -> tuple[PretrainedRecord, dict[str, Tensor]]:
        """Pre-train, and write the encoder and its record."""
        trainer, seed = self.pretraining.trainer, self.config["seed"]
        log.info("%s pre-training, %d steps, into %s", self.config["pretrain"]["kind"], trainer.steps, self.folder)
        meter, outcome = Meter(self.device), Outcome()
        checkpoints = Checkpoints(self.folder.path, self.key, self.checkpoint_seconds, self.source, self.force)
        torch.manual_seed(seed)
        model = self.pretraining.build().to(self.device)
        torch.manual_seed(mixed_seed(DRAWS, seed))
        surroundings = Surroundings(self.device, stop=stop, checkpoints=checkpoints, meter=meter)
        objective = self.pretraining.objective
        trainer.fit(model, self.task, outcome, seed=seed, surroundings=surroundings, objective=objective)
        weights = self._encoder_of(model)
        record = self._record(model, outcome, checkpoints.source)
        with writing(f"The folder of a pre-trained encoder {self.folder}", REMEDY):
            storage.save(weights, self.folder.weights)
            record.write(self.folder.path)
        checkpoints.clear()
        return record, weights

    def _record(self, model: nn.Module, outcome: Outcome, source: Mapping[str, str]) -> PretrainedRecord:
        environment = describe_environment(self.device, self.config["attn"].get("_target_"))
        best = next(point for point in outcome.curve if point["step"] == outcome.best_step)
        cost = {name: outcome.cost[name] for name in ("train_seconds", "ms_per_step", "peak_memory_bytes")}
        return PretrainedRecord(
            key=self.key,
            task=self.config["task"]["name"],
            attn=self.config["attn"]["name"],
            seed=self.config["seed"],
            kind=self.config["pretrain"]["kind"],
            config=self.config,
            score="token_accuracy" if self.pretraining.objective.numbers is None else "r2",  # type: ignore[attr-defined]
            steps=outcome.steps,
            best_step=best["step"],
            val_score=best["val_accuracy"],
            val_loss=best["val_loss"],
            train_loss=outcome.curve[-1]["train_loss"],
            wall_seconds=outcome.elapsed(),
            compile_seconds=outcome.compile_seconds,
            **cost,
            num_params=sum(parameter.numel() for parameter in model.parameters()),
            batch_size=self.pretraining.trainer.batch_size,
            micro_batch=outcome.micro_batch,
            curve=[_renamed(point) for point in outcome.curve],
            resumptions=outcome.resumptions,
            device=self.device.type,
            environment={**environment, **({"source": dict(source)} if source else {})},
            commit=current_commit(),
            command=self.command,
            date=now(),
        )

    @staticmethod
    def _encoder_of(model: nn.Module) -> dict[str, Tensor]:
        encoder = model.encoder
        assert isinstance(encoder, nn.Module)
        return {name: tensor.detach() for name, tensor in encoder.state_dict().items()}


def _renamed(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point of the learning curve with scores for accuracies, as R^2 is none."""
    return {name.replace("accuracy", "score"): value for name, value in point.items()}
