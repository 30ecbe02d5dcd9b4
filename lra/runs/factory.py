"""From a resolved configuration, as plain values, to a task, a trainer and a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, cast

import torch
import torch.distributed as dist
from hydra.utils import instantiate

from lra.errors import InputError, UnsuitedError
from lra.records.identity import ADDED, TARGET_KEYS, material
from lra.tasks import Task
from lra.training.batching import Batching
from lra.training.optimizer import Optimization
from lra.training.trainer import Trainer
from lra.values import check_arguments
from models import checks
from models.attention import Attention, Sizes
from models.block import BlockShape
from models.classifier import Classifier
from models.encoder import Encoder
from models.mechanism import Mechanism
from models.mixers import Mixer
from models.mixers.multi_head import MultiHead
from models.reducer import Reducer
from models.stem import StemShape
from models.token_predictor import TokenPredictor

# Keys of the node `model` that are not the encoder's.
OF_MIXER = ("num_heads", "head_dim", "attention_dropout")
OF_HEAD = ("pooling", "padding_in_mean", "pair_features", "head_depth")
NOT_OF_ENCODER = (*OF_MIXER, *OF_HEAD, "num_positions", "match_params")


def make_task(resolved: Mapping[str, Any]) -> Task:
    """Make the task that the node `task` describes, not prepared yet.

    Raises:
        InputError: a value is not possible.
    """
    check_arguments(task_class(resolved["task"]), _settings(resolved["task"]), "task")
    return instantiate(resolved["task"])(cache_dir=resolved["cache_dir"])


def task_class(node: Mapping[str, Any]) -> type[Task]:
    """Import the class that a node `task` names.

    Raises:
        InputError: the node names none, it cannot be imported, or it is no task.
    """
    kind = _class_named("task", node)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InputError(f"task._target_ must be a subclass of lra.tasks.Task. Got {kind!r}. See docs/task.md.")
    return kind


def make_trainer(resolved: Mapping[str, Any]) -> Trainer:
    """Make the trainer that the nodes `trainer`, `optimizer` and `data` describe.

    Raises:
        InputError: a value is not possible, or has no effect.
    """
    data, padding_in_mean = resolved["data"], resolved["model"]["padding_in_mean"]
    if data["padded_length"] is not None and data["padding"] == "batch" and padding_in_mean != "zeros":
        raise InputError(
            f"data.padded_length={data['padded_length']} pads nothing with data.padding=batch, and is divided by only "
            f"with model.padding_in_mean=zeros, which is {padding_in_mean}. Set data.padding=max, or leave it out."
        )
    settings = material("trainer", resolved["trainer"])
    pretrain = resolved.get("pretrain", {})  # which runs from before there was such a node do not have
    if pretrain.get("share") is not None:
        settings = {**settings, "steps": settings["steps"] - pretrain["steps"]}
    return Trainer(
        **settings,
        optimization=Optimization(**resolved["optimizer"]),
        batching=Batching(**resolved["data"]),
    )


def make_model(resolved: Mapping[str, Any], task: Task) -> Classifier:
    """Make the model that the nodes `attn`, `model` and `data` describe, to be trained on a task.

    Raises:
        InputError: a value is not possible.
    """
    attn = {key: value for key, value in resolved["attn"].items() if key not in ADDED}
    _check_batch_norm(resolved)
    num_positions = resolved["model"].get("num_positions") or task.max_len
    padded_length = resolved["data"]["padded_length"]
    if resolved["data"]["padding"] == "max" and (padded_length or 0) > num_positions:
        raise InputError(
            f"data.padding=max pads to data.padded_length={padded_length}, so model.num_positions must be at least as "
            f"many. Got {num_positions}."
        )
    try:
        return make_classifier(
            instantiate(attn),
            resolved["model"],
            vocab_size=task.vocab_size,
            max_len=task.max_len,
            num_classes=task.num_classes,
            num_inputs=task.num_inputs,
            padded_length=resolved["data"]["padded_length"],
        )
    except checks.UnsuitedError as error:
        raise UnsuitedError(str(error)) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"The model cannot be built from model.* and attn.*: {error}") from error


def make_token_predictor(resolved: Mapping[str, Any], task: Task, num_outputs: int) -> TokenPredictor:
    """Make the model that pre-trains the encoder of `make_model`.

    Args:
        resolved: the configuration.
        task: the task.
        num_outputs: what is predicted of each token: logits of all symbols, or one number.

    Raises:
        InputError: a value is not possible.
    """
    attn = {key: value for key, value in resolved["attn"].items() if key not in ADDED}
    model = resolved["model"]
    _check_batch_norm(resolved)
    try:
        return TokenPredictor(
            make_encoder(instantiate(attn), model, vocab_size=task.vocab_size, max_len=task.max_len),
            num_outputs=num_outputs,
            hides=resolved["pretrain"]["kind"] == "masked",
            embedding_std=model["embedding_std"],
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"The model cannot be built from model.* and attn.*: {error}") from error


def check_model(resolved: Mapping[str, Any], task: Task) -> None:
    """Make the model and throw it away, so that an impossible value is told before data are prepared.

    Raises:
        InputError: a value is not possible, or attn.* has a setting that is no argument of its class.
    """
    check_arguments(mechanism_of(resolved["attn"]), _settings(resolved["attn"]), "attn")
    try:
        sketch(resolved, task)
    except InputError:
        raise
    except Exception:  # a lack of memory, or a fault of the mechanism's own: the run leaves a record of it
        return


def sketch(resolved: Mapping[str, Any], task: Task) -> Classifier:
    """Make the model for its shapes alone; what is drawn for it leaves random state as it was.

    Raises:
        InputError: a value is not possible.
    """
    with suppress(Exception), torch.device("meta"):  # without memory, and without its time
        return make_model(resolved, task)
    with torch.random.fork_rng(devices=()):
        return make_model(resolved, task)


def _check_batch_norm(resolved: Mapping[str, Any]) -> None:
    """Refuse settings that would split a batch of which batch norm needs the whole."""
    if resolved["model"].get("block", {}).get("norm") != "batch":
        return
    if resolved["trainer"]["micro_batch"] is not None:
        raise InputError(
            "model.block.norm=batch takes its statistics over the whole batch, which "
            f"trainer.micro_batch={resolved['trainer']['micro_batch']} would split. Leave trainer.micro_batch=null."
        )
    if dist.is_initialized() and dist.get_world_size() > 1:
        raise InputError(
            "model.block.norm=batch takes its statistics over the whole batch, which "
            f"{dist.get_world_size()} processes would split. Train in one, or with model.block.norm=layer."
        )


def make_classifier(
    attn: Callable[..., Mechanism],
    model: Mapping[str, Any],
    *,
    vocab_size: int,
    max_len: int,
    num_classes: int,
    num_inputs: int,
    padded_length: int | None = None,
) -> Classifier:
    """Make a classifier around what mixes tokens.

    Args:
        attn: the class of an attention or of a mixer, alone or in a `functools.partial` with its own settings.
        model: the node `model`.
        vocab_size, max_len, num_classes, num_inputs: of the task.
        padded_length: what a mean that counts padding as zeros divides by; None for `max_len`.

    Raises:
        ValueError: a value is not possible.
        TypeError: an option does not exist.
    """
    num_positions = model.get("num_positions")
    for name, length in (("model.num_positions", num_positions), ("data.padded_length", padded_length)):
        if length is not None and length < max_len:
            raise ValueError(f"{name} must be at least {max_len}, the task's longest sequence. Got {length}.")
    return Classifier(
        make_encoder(attn, model, vocab_size=vocab_size, max_len=max_len),
        num_classes=num_classes,
        num_inputs=num_inputs,
        mlp_dim=model["mlp_dim"],
        padded_length=padded_length or max_len,
        **{name: model[name] for name in OF_HEAD if name in model},
    )


def make_encoder(attn: Callable[..., Mechanism], model: Mapping[str, Any], *, vocab_size: int, max_len: int) -> Encoder:
    """Make the encoder of `make_classifier`, whose arguments these are."""
    of_encoder = {name: value for name, value in model.items() if name not in NOT_OF_ENCODER}
    # Runs from before there were other blocks, reducers and stems have no such nodes.
    of_encoder["block"] = BlockShape(**model.get("block", {}))
    of_encoder["reducer"] = Reducer(**model.get("reducer", {}))
    of_encoder["stem"] = StemShape(**model.get("stem", {}))
    return Encoder(
        make_mixer(attn, model),
        vocab_size=vocab_size,
        max_len=model.get("num_positions") or max_len,
        mixer_dropout=model["attention_dropout"],
        with_cls=model.get("pooling") == "cls",
        **of_encoder,
    )


def make_mixer(attn: Callable[..., Mechanism], model: Mapping[str, Any]) -> Callable[..., Mixer]:
    """Return what makes a mixer from `dim`, `max_len` and `dropout`: an attention gets heads, a mixer is one already.

    Args:
        attn: as `make_classifier` takes it.
        model: the node `model`; an attention takes heads, and positions that act in it, from there.

    Raises:
        InputError: the class is neither, or attn.* has a setting that the model gives.
        models.checks.UnsuitedError: a mixer has no use for the positions.
    """
    kind = check_mechanism(attn.func if isinstance(attn, partial) else attn)
    positions = model.get("positions", "none")
    handed_in = Sizes.__annotations__ if issubclass(kind, Attention) else ("dim", "max_len", "dropout")
    for name in handed_in:
        if isinstance(attn, partial) and name in attn.keywords:
            raise InputError(
                f"attn.{name} has no effect: the model hands it in. Leave it out, and set model.* instead."
            )
    if issubclass(kind, Attention):
        make = cast(Callable[..., Attention], attn)
        return partial(
            MultiHead,
            make,
            num_heads=model["num_heads"],
            head_dim=model["head_dim"],
            positions=positions,
            with_cls=model.get("pooling") == "cls",
        )
    if positions in ("rotary", "alibi"):
        raise checks.UnsuitedError(
            f"model.positions={positions} acts in the heads of an attention, and {kind.__name__} is a mixer that is "
            "none. Choose learned, sinusoidal or none."
        )
    return cast(Callable[..., Mixer], attn)


def mechanism_of(attn: Mapping[str, Any]) -> type[Mechanism]:
    """Import the class that the node `attn` names.

    Raises:
        InputError: the node names none, it cannot be imported, or it is neither an attention nor a mixer.
    """
    return check_mechanism(_class_named("attn", attn))


def _class_named(name: str, node: Mapping[str, Any]) -> Any:
    """Import what `_target_` of a node names."""
    target = node.get("_target_")
    if not isinstance(target, str) or node.get("_partial_") is not True:
        raise InputError(
            f"{name} needs `_target_: package.module.Class` and `_partial_: true`. "
            f"Got _target_={target!r} and _partial_={node.get('_partial_')!r}."
        )
    try:
        return _import(target)
    except Exception as error:  # importing runs what the module says, which may raise anything
        raise InputError(
            f"{name}._target_={target} cannot be imported: {error!r}. It must be the path of a class that Python "
            "finds: put the folder that its package is in on PYTHONPATH, or install the package with pip install -e."
        ) from error


def _settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a node hands to its class; what Hydra makes of a node of its own is left out."""
    return {
        key: value
        for key, value in node.items()
        if key not in (*TARGET_KEYS, *ADDED) and not (isinstance(value, Mapping) and "_target_" in value)
    }


def _import(target: str) -> Any:
    """Import a module and take a name of it; Hydra's own function logs a failure beside raising it."""
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def check_mechanism(kind: Any) -> type[Mechanism]:
    """Return a class that is an attention or a mixer.

    Raises:
        InputError: it is neither.
    """
    if isinstance(kind, type) and issubclass(kind, (Attention, Mixer)):
        return kind
    raise InputError(
        f"attn._target_ must be a subclass of models.attention.Attention or of models.mixers.Mixer. Got {kind!r}. "
        "docs/attention.md and docs/mixer.md show one of each."
    )
