"""The stage before a run: an encoder learns to predict the tokens of the task's training inputs, without labels.

Amos, Berant, Gupta 2024, "Never Train from Scratch", arXiv 2310.02980. The stage is the training loop with another
objective and another head. What determines the encoder has a key of its own, in which nothing of the training that
follows counts, so that many runs begin with one encoder: the first of them pre-trains it, the others find it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lra.configuration import CONFIGS, backbones
from lra.errors import InputError, UnsuitedError
from lra.files import writing
from lra.machine.environment import current_commit, describe_environment, now
from lra.machine.meter import Meter
from lra.machine.seeds import mixed_seed
from lra.machine.source import changed, in_words
from lra.machine.stopping import StopRequest
from lra.records.folder import REMEDY
from lra.records.identity import run_key
from lra.records.pretrained import PretrainedFolder, PretrainedRecord
from lra.runs.factory import make_token_predictor, mechanism_of
from lra.tasks import Task
from lra.training import storage
from lra.training.batching import Batching
from lra.training.checkpoint import Checkpoints
from lra.training.objectives import MaskedTokens, NextTokens, Objective
from lra.training.optimizer import Optimization
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings
from lra.training.trainer import Trainer

log = logging.getLogger(__name__)

VERSION = 1  # raised by hand when a change of this file, or of an objective, changes the encoders
WARMUP_SHARE, WEIGHT_DECAY, CLIP_NORM = 0.1, 0.01, 1.0
DRAWS = 1  # sets the draws of this stage apart from those of the next, which has the same seed
# Keys of the node `model` that are the classifier's alone, and of `trainer` that say how any step is computed.
OF_CLASSIFIER = ("pooling", "padding_in_mean", "pair_features", "head_depth", "match_params")
OF_ANY_STEP = ("micro_batch", "compile", "precision", "deterministic")
OF_THIS_STAGE = ("kind", "rate", "number_loss", "steps", "batch_size", "learning_rate", "eval_every")


def staged(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with what its pre-training makes of other nodes.

    With `causal` the backbone has its causal settings; with a share the steps of the stage are counted out.

    Raises:
        InputError: the pre-training is impossible, or a setting of it has no effect.
    """
    node = resolved["pretrain"]
    _check_settings(node)
    if node["kind"] == "none":
        return dict(resolved)
    if (reducer := resolved["model"]["reducer"]["kind"]) != "none":
        raise InputError(
            f"pretrain={node['kind']} predicts every token, and model.reducer.kind={reducer} leaves rows of some of "
            "them. Set model.reducer.kind=none, or pretrain=none."
        )
    attn = resolved["attn"]
    if node["kind"] == "causal":
        _check_causal(resolved)
        attn = {**attn, **(mechanism_of(attn).causal_settings or {})}
    return {**resolved, "attn": attn, "pretrain": {**node, "steps": _steps(resolved)}}


def _check_settings(node: Mapping[str, Any]) -> None:
    """Refuse settings of another kind of pre-training."""
    kind = node["kind"]
    without = {"none": [name for name in node if name != "kind"], "causal": ["rate"], "masked": []}[kind]
    given = [name for name in without if node[name] is not None]
    if given:
        raise InputError(
            f"pretrain.{given[0]}={node[given[0]]} has no effect with pretrain={kind}. Leave it out, or choose "
            f"{'pretrain=masked' if kind == 'causal' else 'pretrain=masked or pretrain=causal'}."
        )
    lacking = [name for name in node if name not in (*without, "kind", "share") and node[name] is None]
    if lacking:
        raise InputError(
            f"pretrain.{lacking[0]} must not be null with pretrain.kind={kind}. Choose pretrain={kind}, which sets it, "
            "or give a value."
        )


def _check_causal(resolved: Mapping[str, Any]) -> None:
    """Refuse a model in which a token would see later ones, or a result that sees none."""
    if mechanism_of(resolved["attn"]).causal_settings is None:
        raise UnsuitedError(
            f"pretrain=causal needs a backbone that can hide later tokens, and {resolved['attn']['_target_']} sees "
            f"every token. Choose pretrain=masked, or one of these: attn={', '.join(causal_backbones())}."
        )
    if resolved["model"]["pooling"] == "cls":
        raise InputError(
            "pretrain=causal needs model.pooling=mean or max: the vector of model.pooling=cls stands in front of all "
            "tokens and would see none of them."
        )
    if resolved["model"]["stem"]["kind"] != "none":
        raise InputError(
            "pretrain=causal needs model.stem.kind=none: the stem shows every token those on either side of it. Choose "
            "pretrain=masked with it."
        )
    if resolved["model"]["block"]["norm"] == "batch":
        raise InputError(
            "pretrain=causal needs model.block.norm=layer or scale: the statistics of batch would tell every token of "
            "later ones."
        )


def causal_backbones() -> list[str]:
    """Name the backbones that have a causal form."""
    files = {name: OmegaConf.to_container(OmegaConf.load(CONFIGS / "attn" / f"{name}.yaml")) for name in backbones()}
    return [name for name, attn in files.items() if mechanism_of(attn).causal_settings is not None]  # type: ignore[arg-type]


def _steps(resolved: Mapping[str, Any]) -> int:
    """Count the steps of the stage; with a share, they are taken from those of the training that follows.

    Raises:
        InputError: the share leaves one of both without a step, or the other without its warm-up, or steps were set.
    """
    node, total, optimizer = resolved["pretrain"], resolved["trainer"]["steps"], resolved["optimizer"]
    if (share := node["share"]) is None:
        return node["steps"]
    if node["steps"] != resolved["size"].get("steps", resolved["row"].get("steps")):
        raise InputError(
            f"pretrain.steps={node['steps']} has no effect with pretrain.share={share}, which takes so much of "
            "trainer.steps. Leave out one of them."
        )
    steps = round(share * total)
    left = total - steps
    if (share > 0 and steps == 0) or left == 0:
        raise InputError(
            f"pretrain.share={share} of trainer.steps={total} leaves {'this' if left else 'the other'} stage without a "
            "step. Choose another share, or more steps."
        )
    if optimizer["warmup_steps"] > left and optimizer["schedule"] != "inverse_sqrt":
        raise InputError(
            f"pretrain.share={share} leaves {left} of trainer.steps={total}, and optimizer.warmup_steps must not be "
            f"more. Got {optimizer['warmup_steps']}. Choose a smaller share, or a shorter warm-up."
        )
    return steps


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How an encoder is pre-trained.

    Attributes:
        config: what determines it, the data and the type of the device aside.
        build: makes the model that predicts tokens; it is called once torch is seeded.
        objective: what the model is trained for.
        trainer: how.
    """

    config: Mapping[str, Any]
    build: Callable[[], nn.Module]
    objective: Objective
    trainer: Trainer


def make_pretraining(
    resolved: Mapping[str, Any], task_name: str, task: Task, attn: Mapping[str, Any]
) -> Pretraining | None:
    """Make the pre-training that a configuration asks for; None where it asks for none, or for no step of it.

    Args:
        resolved: as `staged` returns it.
        task_name: the name of its choice of task.
        task: the task that this choice makes.
        attn: the mechanism's `name`, `version` and own settings.
    """
    node, real_valued = resolved["pretrain"], resolved["model"]["real_valued"]
    if node["kind"] == "none" or node["steps"] == 0:
        return None
    numbers = real_valued if node["number_loss"] == "l1" else None
    objective = MaskedTokens(node["rate"], numbers) if node["kind"] == "masked" else NextTokens(numbers)
    of_stage = {name: node[name] for name in OF_THIS_STAGE if name != "number_loss" or real_valued is not None}
    of_encoder = {name: value for name, value in resolved["model"].items() if name not in OF_CLASSIFIER}
    sizes = {"vocab_size": task.vocab_size, "max_len": task.max_len}  # which the same data may have in another task
    return Pretraining(
        config={
            "task": {"name": task_name, "version": task.version, **sizes},
            "attn": dict(attn),
            "model": {**of_encoder, "with_cls": resolved["model"]["pooling"] == "cls"},
            "data": resolved["data"],
            "trainer": {name: resolved["trainer"][name] for name in OF_ANY_STEP},
            "pretrain": {**of_stage, "version": VERSION},
            "seed": resolved["seed"],
        },
        build=lambda: make_token_predictor(resolved, task, 1 if numbers else task.vocab_size),
        objective=objective,
        trainer=_trainer(resolved),
    )


def _trainer(resolved: Mapping[str, Any]) -> Trainer:
    node, any_step = resolved["pretrain"], {name: resolved["trainer"][name] for name in OF_ANY_STEP}
    if isinstance(any_step["micro_batch"], int):
        any_step["micro_batch"] = min(any_step["micro_batch"], node["batch_size"])
    return Trainer(
        **any_step,
        steps=node["steps"],
        batch_size=node["batch_size"],
        eval_batch_size=node["batch_size"],  # not the other stage's, which follows that one's trainer.batch_size
        eval_every=node["eval_every"],
        patience=None,
        optimization=Optimization(
            learning_rate=node["learning_rate"],
            warmup_steps=int(WARMUP_SHARE * node["steps"]),
            weight_decay=WEIGHT_DECAY,
            adam_eps=1e-8,
            cycle_momentum=False,
            clip_norm=CLIP_NORM,
            schedule="cosine_to_zero",
        ),
        batching=Batching(**resolved["data"]),
    )


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
