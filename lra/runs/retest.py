"""A trained run's best weights, tested again on other examples of its task: more of them, harder ones or longer ones.

A generated task has any number of test examples, and with ten times as many an accuracy is three times as sure. Each
test is a line of `retests.jsonl` in the run's folder; collecting merges those lines into `measured/`. For sequences
longer than the run's model was built for, the model is built again for these, as if it were trained on them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from numpy.typing import NDArray

from lra.errors import InputError
from lra.files import writing
from lra.machine.environment import current_commit, describe_environment, now
from lra.machine.source import in_words
from lra.machine.stopping import StopRequest
from lra.records.folder import RunFolder
from lra.records.identity import ADDED
from lra.records.reading import refuse_to_rewrite
from lra.records.record import RunRecord
from lra.records.retest_record import Retest, key_of, read_retests, write_retests
from lra.runs.factory import make_trainer
from lra.runs.trained_model import built_for, check_reach, load_model
from lra.tasks import Split, Task
from lra.training.evaluation import Evaluation
from lra.training.surroundings import Surroundings

log = logging.getLogger(__name__)


@dataclass
class Pair:
    """The task that a run was trained on, and the one to test it on, both prepared.

    What depends on these two alone is computed once for all runs.
    """

    own: Task
    changed: Task

    @cached_property
    def data(self) -> dict[str, Any]:
        """The description of the changed task, as JSON gives it back."""
        return _plain(self.changed.describe())

    @cached_property
    def trained_on(self) -> int:
        """How many test examples of the changed task are in the train split of the run's own."""
        return count_common(self.own.split("train"), self.changed.split("test"))

    @cached_property
    def by_rule(self) -> dict[str, NDArray[np.uint8]]:
        """The classes that rules without a model predict, by the name of the rule."""
        return self.changed.floor_predictions()


class Tasks:
    """The task of a run, and the changed one, made once for all runs that have the same.

    Args:
        changes: of the task's settings.
        data_dir: of raw files; None as for a run.
        cache_dir: of prepared data; None as for a run.
    """

    def __init__(self, changes: Mapping[str, Any], data_dir: str | None = None, cache_dir: str | None = None) -> None:
        self.changes = dict(changes)
        self.cache_dir = cache_dir
        self.location = {} if data_dir is None else {"data_dir": data_dir}
        self._pairs: dict[str, Pair] = {}

    def of(self, record: RunRecord) -> Pair:
        """Return the tasks for a run.

        Raises:
            InputError: the task has no such setting, or a setting cannot have this value; the run's own data are not at
                hand; its model cannot read these examples; or they are the run's own in spite of the changes.
        """
        settings = json.dumps(record.config["task"], sort_keys=True)
        if settings not in self._pairs:
            self._pairs[settings] = self._make(record)
        pair = self._pairs[settings]
        own = pair.own
        if _plain(own.describe()) != record.data:
            raise InputError(
                f"Run {record.key} had other data than are at hand: {_name(record.data)}. Here are "
                f"{_name(own.describe())}. Name the folder that it had with task.data_dir=, or unset LRA_DATA."
            )
        check_reach(record, own, pair.changed)
        return pair

    def _make(self, record: RunRecord) -> Pair:
        settings = {name: value for name, value in record.config["task"].items() if name not in ADDED}
        for name, value in self.changes.items():
            if name.startswith("_") or name not in (*settings, "length"):
                listed = ", ".join(name for name in settings if not name.startswith("_"))
                raise InputError(f"task.{name} is no setting of {record.task}. It has: {listed}, data_dir.")
            kind, present = type(settings.get(name)), settings.get(name)
            if present is not None and not (type(value) is kind or (kind is float and type(value) is int)):
                raise InputError(f"task.{name} must be of type {kind.__name__}, as the run's {present}. Got {value!r}.")
        length = self.changes.get("length")
        of_length = {} if length is None else get_class(settings["_target_"]).at_length(length)  # type: ignore[attr-defined]
        changed_settings = {**settings, **of_length, **self.changes}
        makers = [instantiate({**chosen, **self.location}) for chosen in (settings, changed_settings)]
        own, changed = (make(cache_dir=self.cache_dir) for make in makers)
        for name in ("vocab_size", "num_classes", "num_inputs"):
            if getattr(own, name) != getattr(changed, name):
                raise InputError(
                    f"A model of {record.task} has {name}={getattr(own, name)}, but with these changes the task has "
                    f"{getattr(changed, name)}. Change other settings."
                )
        own.prepare()
        changed.prepare()
        # Its own length is the first point of a curve over lengths, and repeats what the run's record says.
        if self.changes and length is None and changed.describe() == own.describe():
            raise InputError(
                f"The examples of {record.task} ({_name(own.describe())}) are the same with "
                f"{' '.join(f'task.{name}=' for name in self.changes)} as without. Give a value that changes them."
            )
        return Pair(own, changed)


def retest(
    record: RunRecord,
    folder: RunFolder,
    tasks: Tasks,
    *,
    device: torch.device,
    command: str,
    stop: StopRequest | None = None,
) -> Retest:
    """Test the best weights of a run on the test split of a changed task, and leave a line in the run's folder.

    A test of the same weights on the same examples and type of device is read from the folder if it is there.

    Args:
        record: of the run, which ended ok.
        folder: the run's.
        tasks: with the changes.
        device: where to test.
        command: what repeats the test.
        stop: is looked at between batches.

    Raises:
        InputError: the examples or the weights cannot be used, or the folder cannot be written.
        StoppedError: a stop was requested.
    """
    pair = tasks.of(record)
    with _opened(folder) as earlier:
        key = key_of(record.key, pair.data, device.type)
        if key in earlier:
            log.info("%s · %s · %s: tested on these already.", record.task, record.attn, record.key)
            return earlier[key]
    model = load_model(record, folder, *built_for(record, pair.own, pair.changed), device)
    _warn_of_differences(record, pair)
    evaluation = _evaluate(record, pair, model, device, stop)
    changes = {name: value for name, value in tasks.changes.items() if record.config["task"].get(name) != value}
    retested = _retested(record, changes, pair, evaluation, device, command)
    with _opened(folder) as earlier:  # another process may have tested this run meanwhile
        write_retests(folder.retests, {retested.key: retested, **earlier}.values())
    return retested


def _retested(
    record: RunRecord, changes: dict[str, Any], pair: Pair, evaluation: Evaluation, device: torch.device, command: str
) -> Retest:
    return Retest(
        run=record.key,
        changes=changes,
        data=pair.data,
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
        floors=_shares(pair.by_rule, pair.changed.split("test").labels),
        same_as_floors=_shares(pair.by_rule, evaluation.predictions),
        trained_on=pair.trained_on,
        device=device.type,
        environment=describe_environment(device, record.config["attn"].get("_target_")),
        commit=current_commit(),
        command=command,
        date=now(),
    )


def _shares(predictions: Mapping[str, NDArray[Any]], classes: NDArray[Any]) -> dict[str, float]:
    """Return the share of the examples that each rule puts into these classes."""
    return {name: float((predicted == classes).mean()) for name, predicted in predictions.items()}


def _warn_of_differences(record: RunRecord, pair: Pair) -> None:
    """Say in what the test differs from the run's own: newer code, or examples that the run was trained on."""
    commit = current_commit()
    if commit != record.commit:
        log.warning("%s was trained by commit %s; the code is now %s.", record.key, record.commit, commit)
    if modules := record.changed_modules:
        log.warning("%s was trained by other source: %s.", record.key, in_words(modules))
    if pair.trained_on and pair.data != record.data:
        log.warning(
            "%d of these %d examples are among those that %s was trained on. Another task.data_seed has others.",
            pair.trained_on,
            len(pair.changed.split("test").labels),
            record.key,
        )


def _evaluate(
    record: RunRecord, pair: Pair, model: torch.nn.Module, device: torch.device, stop: StopRequest | None
) -> Evaluation:
    test = pair.changed.split("test")
    log.info("%s · %s · %s · %d examples · %s", record.task, record.attn, record.key, len(test.labels), device.type)
    # The longer of both tasks, so that rows padded to it are at least as long as in training.
    longest = max(pair.own.max_len, pair.changed.max_len)
    surroundings = Surroundings(device, stop=stop or StopRequest())
    trainer = make_trainer(record.config)
    # Not more pairs of tokens at once than in training, so that exact attention takes no more memory either.
    share = (longest / pair.own.max_len) ** 2
    fitting = dataclasses.replace(trainer, eval_batch_size=max(1, int(trainer.eval_batch_size / share)))
    return fitting.evaluate(model, test, longest, record.seed, surroundings, "test")


def count_common(train: Split, test: Split) -> int:
    """Count the test examples that are in the train split too, whatever their labels."""
    trained_on = set(_hashes(train))
    return sum(example in trained_on for example in _hashes(test))


def _hashes(split: Split) -> Iterator[int]:
    inputs = (len(split.offsets) - 1) // len(split.labels)
    bounds = split.offsets.tolist()
    for start in range(0, len(bounds) - 1, inputs):
        yield hash(tuple(split.tokens[bounds[i] : bounds[i + 1]].tobytes() for i in range(start, start + inputs)))


@contextmanager
def _opened(folder: RunFolder) -> Iterator[dict[str, Retest]]:
    """Lock a run's folder for a moment and read its retests; a folder that cannot be written fails here, early."""
    lock = folder.lock()
    with writing(f"The run's folder {folder}", "Make it writable, or copy it into another results_dir=."):
        lock.acquire()
    try:
        retests, refused = read_retests([folder.retests])
        refuse_to_rewrite(refused)
        yield retests
    finally:
        lock.release()


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Return a description as JSON gives it back."""
    return json.loads(json.dumps(data))


def _name(data: Mapping[str, Any]) -> str:
    return f"{data['source']}, {data['variant']}, {data['sizes']['test']:,} in test, {data['sha256']['test'][:8]}"
