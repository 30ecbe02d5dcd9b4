"""The record of a second test of a run, and the files of these records: `retests.jsonl`, a line each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import with_config

from lra.files import write_atomically, writing
from lra.records.forms import STRICT, Amount, Count, Data, Environment, Form, Name, Object, Share, Title
from lra.records.identity import fingerprint
from lra.records.reading import read_lines
from lra.records.record import Schema

SCHEMA = 1
RETESTS_NAME = "retests.jsonl"


@with_config(STRICT)
@dataclass(frozen=True)
class Retest:
    """The record of a second test; fields that a run's record has too mean the same.

    Attributes:
        run: key of the run whose best weights were tested.
        changes: what the task's settings were changed to.
        loss: mean cross-entropy, in nats.
        floors: accuracy on these examples of rules without a model, fitted on the train split of the changed task.
        same_as_floors: share of the examples that the model puts into the class that such a rule does.
        trained_on: how many of the examples the run was trained on.
    """

    run: Name
    changes: Object
    data: Data
    accuracy: Share
    loss: Amount
    floors: dict[Title, Share]
    same_as_floors: dict[Title, Share]
    trained_on: Count
    device: Name
    environment: Environment = field(default_factory=dict)
    commit: str | None = None
    command: str | None = None
    date: str | None = None
    schema: Schema = SCHEMA

    @property
    def key(self) -> str:
        """The same for the same weights, examples and type of device."""
        return key_of(self.run, self.data, self.device)

    @classmethod
    def parse(cls, text: str | bytes) -> Retest:
        """Make a retest of its JSON.

        Raises:
            ValueError: the text is none, or one that no table could be made with.
        """
        retest = FORM.parse(text)
        if not retest.floors or retest.floors.keys() != retest.same_as_floors.keys():
            raise ValueError("it must have floors, and the same in same_as_floors")
        return retest


FORM: Form[Retest] = Form(Retest)


def key_of(run: str, data: dict[str, Any], device: str) -> str:
    """Hash what the result of a second test depends on."""
    return fingerprint({"run": run, "data": data, "device": device})


def read_retests(paths: Iterable[Path]) -> tuple[dict[str, Retest], list[str]]:
    """Read files of retests. A file that is not there has none.

    Returns:
        The retests by key, the first of two with one key; and a sentence for each line or file that is left out.
    """
    retests: dict[str, Retest] = {}
    refused: list[str] = []
    for path in paths:
        for name, retest in read_lines(path, Retest.parse, refused.append):
            if retests.setdefault(retest.key, retest) != retest:
                refused.append(f"{name}: it is another test of {retest.run} on the same examples.")
    return retests, refused


def write_retests(path: Path, retests: Iterable[Retest]) -> None:
    """Write a file of retests, a line each, sorted by changes, run and key.

    Raises:
        InputError: it cannot be written.
    """
    ordered = sorted(retests, key=lambda retest: (json.dumps(retest.changes, sort_keys=True), retest.run, retest.key))
    with writing(path):
        write_atomically(path, "".join(json.dumps(dataclasses.asdict(retest)) + "\n" for retest in ordered))
