"""From a resolved configuration, as plain values, to a task, a trainer and a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from lra.errors import InputError
from lra.records.identity import ADDED, material
from lra.tasks import Task
from lra.training.batching import Batching
from lra.training.optimizer import Optimization
from lra.training.trainer import Trainer
from models.encoder import Classifier


def make_task(resolved: Mapping[str, Any]) -> Task:
    """Make the task that the node `task` describes, not prepared yet.

    Raises:
        InputError: a value is not possible.
    """
    return instantiate(resolved["task"])(cache_dir=resolved["cache_dir"])


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
    return Trainer(
        **material("trainer", resolved["trainer"]),
        optimization=Optimization(**resolved["optimizer"]),
        batching=Batching(**resolved["data"]),
    )


def make_model(resolved: Mapping[str, Any], task: Task) -> Classifier:
    """Make the model that the nodes `attn`, `model` and `data` describe, to be trained on a task.

    Raises:
        InputError: a value is not possible.
    """
    attn = {key: value for key, value in resolved["attn"].items() if key not in ADDED}
    try:
        return Classifier(
            instantiate(attn),
            vocab_size=task.vocab_size,
            max_len=task.max_len,
            num_classes=task.num_classes,
            num_inputs=task.num_inputs,
            padded_length=resolved["data"]["padded_length"],
            **resolved["model"],
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"The model cannot be built from model.* and attn.*: {error}") from error
