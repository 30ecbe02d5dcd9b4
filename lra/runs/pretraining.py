"""The stage before a run: an encoder learns to predict the tokens of the task's training inputs, without labels.

Amos, Berant, Gupta 2024, "Never Train from Scratch", arXiv 2310.02980. The stage is the training loop with another
objective and another head. What determines the encoder has a key of its own, in which nothing of the training that
follows counts, so that many runs begin with one encoder: the first of them pre-trains it, the others find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from lra.configuration import CONFIGS, backbones
from lra.errors import InputError, UnsuitedError
from lra.runs.factory import make_token_predictor, mechanism_of
from lra.tasks import Task
from lra.training.batching import Batching
from lra.training.objectives import MaskedTokens, NextTokens, Objective
from lra.training.optimizer import Optimization
from lra.training.trainer import Trainer

VERSION = 1  # raised by hand when a change of this file, of encoders.py or of an objective changes the encoders
WARMUP_SHARE, WEIGHT_DECAY, CLIP_NORM = 0.1, 0.01, 1.0
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
