"""The verbs of `scripts/report.py`: a file each, whose name is the verb; adding the file adds the verb.

Such a file has
- a docstring, whose first paragraph `--help` prints,
- `OPTIONS`: the options that it takes besides `results_dir=`,
- either `answer(request)`, which returns a report and is then printed as `format=` says, or `act(request)`, which does
  something and returns the exit code.

A verb that is a word of Python's has an underscore behind its file's name.
"""

from __future__ import annotations

import inspect
import pkgutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from lra.arguments import parse
from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.records.collection import FILTERS, load_records, select
from lra.records.record import RunRecord
from lra.records.wandb_mirror import load_online
from lra.reports.experiments import Experiment, load_experiments

DEFAULT = "show"
# What chooses among the records: by name, and where they are.
CHOICE = (*FILTERS, "wandb")


@dataclass(frozen=True)
class Request:
    """What was typed behind a verb."""

    results_dir: Path
    options: Mapping[str, str]

    def __getitem__(self, option: str) -> str:
        """Return the value of an option; "" where it was not given."""
        return self.options.get(option, "")

    def records(self) -> list[RunRecord]:
        """Read the records that the options name.

        Raises:
            InputError: there is no such folder, or nothing of such a name.
        """
        records = load_online(self["wandb"]) if self["wandb"] else load_records(self.results_dir)
        return select(records, {name: self[name] for name in FILTERS})

    def experiments(self) -> dict[str, Experiment]:
        """Read the experiments of `configs/`."""
        return load_experiments(CONFIGS / "experiment")


def verbs() -> list[str]:
    """Name every verb, the default first."""
    names = sorted(module.name.rstrip("_") for module in pkgutil.iter_modules(__path__))
    return sorted(names, key=lambda name: name != DEFAULT)


def load_verb(name: str) -> ModuleType:
    """Import the file of a verb."""
    (module,) = (module.name for module in pkgutil.iter_modules(__path__) if module.name.rstrip("_") == name)
    return import_module(f"{__name__}.{module}")


def understand(arguments: Sequence[str]) -> tuple[ModuleType, Request]:
    """Read a command line.

    Raises:
        InputError: there is no such verb, or the verb takes no such option.
    """
    known = {name: load_verb(name) for name in verbs()}
    taken = {name: options_of(verb) for name, verb in known.items()}
    every = dict.fromkeys(option for options in taken.values() for option in options)
    name, given = parse(arguments, verbs=list(known), options={**dict.fromkeys(every, ""), "results_dir": "results"})
    for option, value in given.items():
        if value and option not in taken[name]:
            takers = ", ".join(other for other, options in taken.items() if option in options)
            takes = " ".join(f"{other}=" for other in taken[name])
            raise InputError(f"{name} takes no {option}=, only {takes}. It is an option of {takers}.")
    return known[name], Request(Path(given.pop("results_dir")), given)


def options_of(verb: ModuleType) -> tuple[str, ...]:
    """Name the options that a verb takes."""
    return (*verb.OPTIONS, *(["format"] if hasattr(verb, "answer") else []), "results_dir")


def explain() -> str:
    """Say what every verb does: first those that answer, then those that act."""
    loaded = {name: load_verb(name) for name in verbs()}
    order = sorted(loaded, key=lambda name: not hasattr(loaded[name], "answer"))
    texts = [inspect.cleandoc(loaded[name].__doc__ or "").partition("\n\n")[0] for name in order]
    return "\n".join(
        f"{name:<20}{textwrap.indent(text, ' ' * 20).strip()}" for name, text in zip(order, texts, strict=True)
    )
