"""A trained run's best weights, tested again on other examples of its task: on more of them, or on harder ones.

A generated task has any number of test examples, and with ten times as many an accuracy is three times as sure. What
was found is a line of `retests.jsonl` in the run's folder; collecting merges those lines into `measured/`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate

from lra.errors import InputError
from lra.record import RunRecord, current_commit, describe_environment, fingerprint, now, write_atomically
from lra.settings import ADDED, make_model, make_trainer
from lra.stopping import StopRequest
from lra.tables import BASELINE
from lra.tasks import Task

log = logging.getLogger(__name__)

SCHEMA = 1
RETESTS_NAME, WEIGHTS_NAME = "retests.jsonl", "weights.pt"


@dataclass(frozen=True)
class Retest:
    """What a second test found; the fields of these names mean what they do in a run's record.

    Attributes:
        run: key of the run whose best weights were tested.
        changes: what the task's settings were changed to.
        loss: mean cross-entropy, in nats.
        floors: accuracy on these examples of rules without a model, fitted on the train split of the changed task.
        same_as_floors: share of the examples that the model puts into the class that such a rule does.
    """

    run: str
    changes: dict[str, Any]
    data: dict[str, Any]
    accuracy: float
    loss: float
    floors: dict[str, float]
    same_as_floors: dict[str, float]
    device: str
    environment: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    command: str | None = None
    date: str | None = None
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The same for the same weights, examples and type of device."""
        return key_of(self.run, self.data, self.device)


def key_of(run: str, data: dict[str, Any], device: str) -> str:
    """Hash what decides what a second test finds."""
    return fingerprint({"run": run, "data": data, "device": device})


def change_task(record: RunRecord, changes: Mapping[str, Any], cache_dir: str | None = None) -> Task:
    """Make the task of a run with some of its settings changed.

    Raises:
        InputError: the task has no such setting, or not this value, or examples that its model cannot read.
    """
    settings = {name: value for name, value in record.config["task"].items() if name not in ADDED}
    known = [name for name in settings if not name.startswith("_")]
    if unknown := [name for name in changes if name not in (*known, "data_dir")]:
        raise InputError(f"task.{unknown[0]} is no setting of {record.task}. It has: {', '.join(known)}, data_dir.")
    own, changed = (instantiate({**settings, **more})(cache_dir=cache_dir) for more in ({}, changes))
    for name in ("vocab_size", "num_classes", "num_inputs"):
        if getattr(own, name) != getattr(changed, name):
            raise InputError(
                f"A model of {record.task} has {name}={getattr(own, name)}, but with these changes the task has "
                f"{getattr(changed, name)}."
            )
    longest = record.config["model"]["num_positions"] or own.max_len
    if changed.max_len > longest:
        raise InputError(
            f"Run {record.key} reads sequences of up to {longest} tokens, and these have up to {changed.max_len}: "
            "choose shorter ones, or train with model.num_positions=."
        )
    return changed


def load_model(record: RunRecord, folder: Path, device: torch.device) -> torch.nn.Module:
    """Make the model of a finished run with its best weights.

    Raises:
        InputError: it has none, or they are of other code than this.
    """
    attn, path = record.config["attn"], folder / WEIGHTS_NAME
    if record.attn.startswith(BASELINE):
        raise InputError(f"Run {record.key} is a {record.attn}: only attention mechanisms can be tested again.")
    if not path.exists():
        raise InputError(f"Run {record.key} has no {path}: a run leaves it there, and collected records have none.")
    version = get_class(attn["_target_"]).version  # type: ignore[attr-defined]
    if version != attn["version"]:
        raise InputError(
            f"Run {record.key} trained version {attn['version']} of {record.attn}, which is at version {version} now: "
            f"check out commit {record.commit}, or train it again."
        )
    model = make_model(record.config, change_task(record, {}))
    try:
        model.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:
        raise InputError(f"{path} does not fit the model of its run: {error}. Move it away and train again.") from error
    return model.to(device)


def retest(
    record: RunRecord,
    folder: Path,
    changes: Mapping[str, Any],
    task: Task,
    *,
    device: torch.device,
    command: str,
    stop: StopRequest | None = None,
) -> Retest:
    """Test the best weights of a run on the test split of a task, and leave a line in the run's folder.

    What the folder has of the same weights, examples and type of device is not done again.

    Args:
        record: of the run, which ended ok.
        folder: the run's.
        changes: of the task's settings.
        task: with these changes, as `change_task` makes it.
        device: where to test.
        command: what repeats it.
        stop: is looked at between batches.

    Raises:
        InputError: there are no weights that fit, or the folder cannot be written.
        StoppedError: a stop was requested.
    """
    path = folder / RETESTS_NAME
    earlier = read_retests([path])
    key = key_of(record.key, task.describe(), device.type)
    if key in earlier:
        log.info("%s · %s is tested on these already.", record.attn, record.key)
        return earlier[key]
    model, test = load_model(record, folder, device), task.split("test")
    log.info("%s · %s · %d examples · %s", record.attn, record.key, len(test.labels), device.type)
    trainer = make_trainer(record.config)
    result = trainer.evaluate(model, test, task.max_len, device, record.seed, stop, name="test")
    found = Retest(
        run=record.key,
        data=task.describe(),
        device=device.type,
        changes=dict(changes),
        accuracy=result.accuracy,
        loss=result.loss,
        floors=task.floors(),
        same_as_floors={
            name: float((predicted == result.predictions).mean())
            for name, predicted in task.floor_predictions().items()
        },
        environment=describe_environment(device),
        commit=current_commit(),
        command=command,
        date=now(),
    )
    write_retests(path, [*earlier.values(), found])
    return found


def read_retests(paths: Iterable[Path]) -> dict[str, Retest]:
    """Read files of them, by key; of two with one key the first. A file that is not there has none.

    Raises:
        InputError: a line cannot be read; it names the file and the line.
    """
    found: dict[str, Retest] = {}
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), start=1):
            try:
                values = json.loads(line)
                if values["schema"] != SCHEMA:
                    raise ValueError(f"its schema is {values['schema']}, and this program reads {SCHEMA}")
                one = Retest(**values)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number}, is no retest: {error}. Mend or remove that line.") from error
            found.setdefault(one.key, one)
    return found


def write_retests(path: Path, retests: Iterable[Retest]) -> None:
    """Write a file of them, a line each, in an order of its own.

    Raises:
        InputError: it cannot be written.
    """
    ordered = sorted(retests, key=lambda one: (json.dumps(one.changes, sort_keys=True), one.run, one.key))
    try:
        write_atomically(path, "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in ordered))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
