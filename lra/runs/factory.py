"""From a resolved configuration, as plain values, to a trainer, a model, and what identifies the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from lra.errors import InputError, check_integer
from lra.tasks import Task
from lra.training.batching import Batching
from lra.training.optimizer import Optimization
from lra.training.trainer import Trainer
from models.encoder import Classifier

# Keys of a node that change no number: where files are, and how often they are written.
IMMATERIAL = {"task": ("data_dir",), "trainer": ("checkpoint_seconds", "profile")}
# What `identify` adds to the settings of a task and of a mechanism.
ADDED = ("name", "version")


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
        **_material("trainer", resolved["trainer"]),
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


def identify(resolved: Mapping[str, Any], task_name: str, task: Task, attn: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines the numbers of a run, for its key and its record.

    Of the tables of sizes and schedules only the chosen row does, and that has been resolved into the rest.

    Args:
        resolved: the whole configuration.
        task_name: the name of its choice of task.
        task: the task it makes.
        attn: the mechanism's `name`, `version` and own settings.

    Raises:
        InputError: the seed is none.
    """
    check_integer("seed", resolved["seed"], 0)
    nodes = ("protocol", "scale", "seed", "model", "data", "optimizer", "trainer")
    return {
        **{name: _material(name, resolved[name]) for name in nodes},
        "task": {**_material("task", resolved["task"]), "name": task_name, "version": task.version},
        "attn": dict(attn),
    }


def _material(name: str, node: Any) -> Any:
    return {key: node[key] for key in node if key not in IMMATERIAL[name]} if name in IMMATERIAL else node
