"""The model of a finished run, with its best weights, as it was trained or built for longer sequences.

Arguments `own` and `changed` are the task that the run was trained on, and the one that its model is to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import get_class

from lra.errors import InputError
from lra.records.folder import RunFolder
from lra.records.record import RunRecord
from lra.runs.factory import make_model, sketch
from lra.runs.schema import POSITIONS
from lra.tasks import Task
from lra.training import storage


def reach_of(record: RunRecord, own: Task) -> int:
    """Return how long a sequence the model of a run can read at most, as it was trained."""
    return record.config["model"]["num_positions"] or own.max_len


def built_for(record: RunRecord, own: Task, changed: Task) -> tuple[Mapping[str, Any], Task]:
    """Return configuration and task that the model is made of: the run's own, unless the sequences are longer."""
    if changed.max_len <= reach_of(record, own):
        return record.config, own
    return {**record.config, "model": {**record.config["model"], "num_positions": changed.max_len}}, changed


def check_reach(record: RunRecord, own: Task, changed: Task) -> None:
    """Raise InputError where sequences are too long for the weights of a run: some belong to places that it has not."""
    longest, needed = reach_of(record, own), changed.max_len
    if record.is_baseline or needed <= longest:  # a baseline is refused later, as on any examples
        return
    if record.config["model"].get("positions", "learned") == "learned":
        others = ", ".join(kind for kind in POSITIONS if kind != "learned")
        raise InputError(
            f"Run {record.key} has learned positions for {longest} tokens, and these sequences have up to {needed}. "
            f"Choose shorter ones, or train with model.num_positions={needed} or with other model.positions ({others})."
        )
    _check_version(record)
    trained, built = (
        {name: tensor.shape for name, tensor in sketch(config, task).state_dict().items()}
        for config, task in ((record.config, own), built_for(record, own, changed))
    )
    if differing := [name for name in {**trained, **built} if trained.get(name) != built.get(name)]:
        raise InputError(
            f"The weights of {record.attn} are for at most {longest} tokens in run {record.key} "
            f"({min(differing).removeprefix('encoder.')}), and these sequences have up to {needed}. Choose shorter "
            f"ones, or train with model.num_positions={needed}."
        )


def load_model(
    record: RunRecord, folder: RunFolder, config: Mapping[str, Any], task: Task, device: torch.device
) -> torch.nn.Module:
    """Make the model of a finished run with its best weights.

    Args:
        record: of the run.
        folder: the run's.
        config: that the model is made of.
        task: that the model is made for; see `built_for` for both.
        device: where the model is put.

    Raises:
        InputError: it has none, or other code than this made them.
    """
    path = folder.weights
    if record.is_baseline:
        raise InputError(f"Run {record.key} is a {record.attn}: only attention mechanisms can be tested again.")
    if not path.exists():
        raise InputError(
            f"Run {record.key} has no {path}, which a run leaves in its folder; collected records have none. "
            f"To train it here, run: {record.command}"
        )
    _check_version(record)
    again = f"To train it again, move {folder} away and run: {record.command}"
    try:
        weights = storage.load(path, device)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. {again}") from error
    model = make_model(config, task)
    try:
        model.load_state_dict(weights)
    except Exception as error:
        foreign = {*weights} ^ {*model.state_dict()} if isinstance(weights, dict) else set()
        reason = (
            f"the model has other parts than at commit {record.commit}, for example {min(foreign)}."
            if foreign
            else str(error).strip().splitlines()[-1].strip()
        )
        raise InputError(f"{path} does not fit the model of its run: {reason} {again}") from error
    return model.to(device)


def _check_version(record: RunRecord) -> None:
    """Raise InputError where the mechanism that a run trained is not there, or has another version."""
    attn = record.config["attn"]
    try:
        version = get_class(attn["_target_"]).version  # type: ignore[attr-defined]
    except Exception as error:
        raise InputError(
            f"Run {record.key} trained {record.attn}, which is not there any more. "
            f"Check out commit {record.commit}. {error}"
        ) from error
    if version != attn["version"]:
        raise InputError(
            f"Run {record.key} trained version {attn['version']} of {record.attn}, which is at version {version} now. "
            f"Check out commit {record.commit}, or train it again."
        )
