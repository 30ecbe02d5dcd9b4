"""The record of a second test of a run, and the files of these records: `retests.jsonl`, a line each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lra.files import write_atomically, writing
from lra.records.identity import fingerprint

SCHEMA = 1
RETESTS_NAME = "retests.jsonl"
REWRITTEN = "Mend or remove it first: the file is about to be rewritten."


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
        """Raise ValueError for a record that no table could be made with."""
        shares = [self.accuracy, *self.floors.values(), *self.same_as_floors.values()]
        possible = all(0 <= share <= 1 for share in shares) and self.floors.keys() == self.same_as_floors.keys()
        data = self.data
        names = (data["source"], data["variant"], data["sha256"]["test"])
        described = data["sizes"]["test"] > 0 and all(isinstance(name, str) for name in names)
        if not (possible and described and self.floors):
            raise ValueError("it has an accuracy that is no fraction, or no floors, or data without size or name")


def key_of(run: str, data: dict[str, Any], device: str) -> str:
    """Hash what the result of a second test depends on."""
    return fingerprint({"run": run, "data": data, "device": device})


def read_retests(paths: Iterable[Path]) -> tuple[dict[str, Retest], list[str]]:
    """Read files of retests. A file that is not there has none.

    Returns:
        The retests by key, the first of two with one key; and a sentence for each line or file that is left out.
    """
    retests: dict[str, Retest] = {}
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
                retest = Retest(**values)
                retest.check()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                refused.append(f"{path}, line {number}, is no retest: {error!r}.")
                continue
            if retests.setdefault(retest.key, retest) != retest:
                refused.append(f"{path}, line {number}, is another test of {retest.run} on the same examples.")
    return retests, refused


def write_retests(path: Path, retests: Iterable[Retest]) -> None:
    """Write a file of retests, a line each, sorted by changes, run and key.

    Raises:
        InputError: it cannot be written.
    """
    ordered = sorted(retests, key=lambda retest: (json.dumps(retest.changes, sort_keys=True), retest.run, retest.key))
    with writing(path):
        write_atomically(path, "".join(json.dumps(dataclasses.asdict(retest)) + "\n" for retest in ordered))
