"""A trained run's best weights, tested again on other examples of its task: on more of them, or on harder ones.

A generated task has any number of test examples, and with ten times as many an accuracy is three times as sure. What
was found is a line of `retests.jsonl` in the run's folder; collecting merges those lines into `measured/`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.utils import get_class, instantiate

from lra.errors import InputError
from lra.record import RunRecord, current_commit, describe_environment, fingerprint, now, write_atomically
from lra.settings import ADDED, make_model, make_trainer
from lra.stopping import StopRequest
from lra.tables import BASELINE
from lra.tasks import Split, Task

log = logging.getLogger(__name__)

SCHEMA = 1
RETESTS_NAME, WEIGHTS_NAME = "retests.jsonl", "weights.pt"
REWRITTEN = "Mend or remove it first: the file is about to be rewritten."


@dataclass(frozen=True)
class Retest:
    """What a second test found; the fields of these names mean what they do in a run's record.

    Attributes:
        run: key of the run whose best weights were tested.
        changes: what the task's settings were changed to.
        loss: mean cross-entropy, in nats.
        floors: accuracy on these examples of rules without a model, fitted on the train split of the changed task.
        same_as_floors: share of the examples that the model puts into the class that such a rule does.
        trained_on: how many of the examples the run was trained on.
    """

    run: str
    changes: dict[str, Any]
    data: dict[str, Any]
    accuracy: float
    loss: float
    floors: dict[str, float]
    same_as_floors: dict[str, float]
    trained_on: int
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

    def check(self) -> None:
        """Raise ValueError for what would stop a table."""
        shares = [self.accuracy, *self.floors.values(), *self.same_as_floors.values()]
        possible = all(0 <= share <= 1 for share in shares) and self.floors.keys() == self.same_as_floors.keys()
        data = self.data
        names = (data["source"], data["variant"], data["sha256"]["test"])
        described = data["sizes"]["test"] > 0 and all(isinstance(name, str) for name in names)
        if not (possible and described and self.floors):
            raise ValueError("it has an accuracy that is no fraction, or no floors, or data without size or name")


def key_of(run: str, data: dict[str, Any], device: str) -> str:
    """Hash what decides what a second test finds."""
    return fingerprint({"run": run, "data": data, "device": device})


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
        self.place = {} if data_dir is None else {"data_dir": data_dir}
        self._made: dict[str, tuple[Task, Task]] = {}

    def of(self, record: RunRecord) -> tuple[Task, Task]:
        """Return the task that the run was trained on, and the one to test it on, both prepared.

        Raises:
            InputError: the task has no such setting, or not this value; the run's own data are not at hand; its model
                cannot read these examples; or they are the run's own in spite of the changes.
        """
        known = json.dumps(record.config["task"], sort_keys=True)
        if known not in self._made:
            self._made[known] = self._make(record)
        own, changed = self._made[known]
        if _plain(own.describe()) != record.data:
            raise InputError(
                f"Run {record.key} had other data than are at hand: {_name(record.data)}, and here are "
                f"{_name(own.describe())}. Name the folder that it had with task.data_dir=, or unset LRA_DATA."
            )
        longest = record.config["model"]["num_positions"] or own.max_len
        if changed.max_len > longest:
            raise InputError(
                f"Run {record.key} reads sequences of up to {longest} tokens, and these have up to {changed.max_len}: "
                "choose shorter ones, or train with model.num_positions=."
            )
        return own, changed

    def _make(self, record: RunRecord) -> tuple[Task, Task]:
        settings = {name: value for name, value in record.config["task"].items() if name not in ADDED}
        for name, value in self.changes.items():
            if name.startswith("_") or name not in settings:
                listed = ", ".join(name for name in settings if not name.startswith("_"))
                raise InputError(f"task.{name} is no setting of {record.task}. It has: {listed}, data_dir.")
            kind = type(settings[name])
            if settings[name] is not None and not (type(value) is kind or (kind is float and type(value) is int)):
                raise InputError(f"task.{name} must be {kind.__name__}, as the run's {settings[name]}. Got {value!r}.")
        make = [instantiate({**settings, **more, **self.place}) for more in ({}, self.changes)]
        own, changed = (each(cache_dir=self.cache_dir) for each in make)
        for name in ("vocab_size", "num_classes", "num_inputs"):
            if getattr(own, name) != getattr(changed, name):
                raise InputError(
                    f"A model of {record.task} has {name}={getattr(own, name)}, but with these changes the task has "
                    f"{getattr(changed, name)}."
                )
        own.prepare()
        changed.prepare()
        if self.changes and changed.describe() == own.describe():
            raise InputError(
                f"The examples of {record.task} ({_name(own.describe())}) are the same with "
                f"{' '.join(f'task.{name}=' for name in self.changes)} as without."
            )
        return own, changed


def load_model(record: RunRecord, folder: Path, own: Task, device: torch.device) -> torch.nn.Module:
    """Make the model of a finished run with its best weights.

    Raises:
        InputError: it has none, or they are of other code than this.
    """
    attn, path = record.config["attn"], folder / WEIGHTS_NAME
    if record.attn.startswith(BASELINE):
        raise InputError(f"Run {record.key} is a {record.attn}: only attention mechanisms can be tested again.")
    if not path.exists():
        raise InputError(f"Run {record.key} has no {path}: a run leaves it there, and collected records have none.")
    try:
        version = get_class(attn["_target_"]).version  # type: ignore[attr-defined]
    except Exception as error:
        raise InputError(f"Run {record.key} trained {record.attn}, which is not there any more: {error}.") from error
    if version != attn["version"]:
        raise InputError(
            f"Run {record.key} trained version {attn['version']} of {record.attn}, which is at version {version} now: "
            f"check out commit {record.commit}, or train it again."
        )
    again = f"To train it again, move {folder} away and run: {record.command}"
    try:
        weights = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read: {error!r}. {again}") from error
    model = make_model(record.config, own)
    try:
        model.load_state_dict(weights)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} does not fit the model of its run: {reason} {again}") from error
    return model.to(device)


def retest(
    record: RunRecord,
    folder: Path,
    tasks: Tasks,
    *,
    device: torch.device,
    command: str,
    stop: StopRequest | None = None,
) -> Retest:
    """Test the best weights of a run on the test split of a changed task, and leave a line in the run's folder.

    What the folder has of the same weights, examples and type of device is not done again.

    Args:
        record: of the run, which ended ok.
        folder: the run's.
        tasks: with the changes.
        device: where to test.
        command: what repeats it.
        stop: is looked at between batches.

    Raises:
        InputError: the examples or the weights cannot be used, or the folder cannot be written.
        StoppedError: a stop was requested.
    """
    own, changed = tasks.of(record)
    with _opened(folder) as earlier:
        key = key_of(record.key, _plain(changed.describe()), device.type)
        if key in earlier:
            log.info("%s · %s · %s: tested on these already.", record.task, record.attn, record.key)
            return earlier[key]
    model, test = load_model(record, folder, own, device), changed.split("test")
    commit = current_commit()
    if commit != record.commit:
        log.warning("%s was trained by commit %s; the code is now %s.", record.key, record.commit, commit)
    trained_on = count_common(own.split("train"), test)
    if trained_on and changed.describe() != own.describe():
        log.warning(
            "%d of these %d examples are among those that %s was trained on. Another task.data_seed has others.",
            trained_on,
            len(test.labels),
            record.key,
        )
    log.info("%s · %s · %s · %d examples · %s", record.task, record.attn, record.key, len(test.labels), device.type)
    # Rows that are padded to the longest there may be are as long as in training.
    longest = max(own.max_len, changed.max_len)
    result = make_trainer(record.config).evaluate(model, test, longest, device, record.seed, stop, name="test")
    by_rule = changed.floor_predictions()
    found = Retest(
        run=record.key,
        changes={name: value for name, value in tasks.changes.items() if record.config["task"][name] != value},
        data=_plain(changed.describe()),
        accuracy=result.accuracy,
        loss=result.loss,
        floors={name: float((predicted == test.labels).mean()) for name, predicted in by_rule.items()},
        same_as_floors={name: float((predicted == result.predictions).mean()) for name, predicted in by_rule.items()},
        trained_on=trained_on,
        device=device.type,
        environment=describe_environment(device),
        commit=commit,
        command=command,
        date=now(),
    )
    with _opened(folder) as earlier:  # another process may have tested this run meanwhile
        write_retests(folder / RETESTS_NAME, {found.key: found, **earlier}.values())
    return found


def count_common(train: Split, test: Split) -> int:
    """Count the test examples that are in the train split too, whatever their labels."""
    known = set(_hashes(train))
    return sum(example in known for example in _hashes(test))


def _hashes(split: Split) -> Iterator[int]:
    inputs = (len(split.offsets) - 1) // len(split.labels)
    bounds = split.offsets.tolist()
    for first in range(0, len(bounds) - 1, inputs):
        yield hash(tuple(split.tokens[bounds[i] : bounds[i + 1]].tobytes() for i in range(first, first + inputs)))


def read_retests(paths: Iterable[Path]) -> tuple[dict[str, Retest], list[str]]:
    """Read files of them. A file that is not there has none.

    Returns:
        Those found, by key, of two with one key the first; and a sentence for each line or file that is left out.
    """
    found: dict[str, Retest] = {}
    refused = []
    for path in paths:
        try:
            lines = path.read_text().splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            refused.append(f"{path} cannot be read: {error}.")
            continue
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                if values["schema"] != SCHEMA:
                    raise ValueError(f"its schema is {values['schema']}, and this program reads {SCHEMA}")
                one = Retest(**values)
                one.check()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                refused.append(f"{path}, line {number}, is no retest: {error!r}.")
                continue
            if found.setdefault(one.key, one) != one:
                refused.append(f"{path}, line {number}, is another test of {one.run} on the same examples.")
    return found, refused


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


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Retest]]:
    """Hold a run's folder for a moment, and read what it has; so that one that cannot be written is found early."""
    try:
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"The run's folder {folder} cannot be written: {error.strerror or error}. Make it writable, or copy it "
            "into another results_dir=."
        ) from error
    try:
        found, refused = read_retests([folder / RETESTS_NAME])
        if refused:
            raise InputError(f"{refused[0]} {REWRITTEN}")
        yield found
    finally:
        lock.release()


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Return a description as it is after a file."""
    return json.loads(json.dumps(data))


def _name(data: Mapping[str, Any]) -> str:
    return f"{data['source']}, {data['variant']}, {data['sizes']['test']:,} in test, {data['sha256']['test'][:8]}"
