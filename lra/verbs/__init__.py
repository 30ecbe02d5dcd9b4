"""The verbs of `scripts/report.py`: a file each, whose name is the verb; adding the file adds the verb.

Such a file has
- a docstring, whose first paragraph `--help` prints,
- `OPTIONS`: the options that it takes besides `results_dir=`,
- either `answer(request)`, which returns a report and is then printed as `format=` says, or `act(request)`, which does
  something and returns the exit code.

Where the verb is a keyword of Python, an underscore follows it in the file's name.
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
# The options that choose records: by their names, and by where they are.
CHOICE = (*FILTERS, "wandb")


@dataclass(frozen=True)
class Request:
    """The options that were typed after a verb."""

    results_dir: Path
    options: Mapping[str, str]

    def __getitem__(self, option: str) -> str:
        """Return the value of an option; "" where it was not given."""
        return self.options.get(option, "")

    def records(self) -> list[RunRecord]:
        """Read the records that the options name.

        Raises:
            InputError: there is no such folder, or no record or configuration of such a name.
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
    modules = {name: load_verb(name) for name in verbs()}
    options = {name: options_of(module) for name, module in modules.items()}
    defaults = dict.fromkeys((option for names in options.values() for option in names), "")
    verb, values = parse(arguments, verbs=list(modules), options={**defaults, "results_dir": "results"})
    for option, value in values.items():
        if value and option not in options[verb]:
            takers = ", ".join(name for name, names in options.items() if option in names)
            own = " ".join(f"{name}=" for name in options[verb])
            raise InputError(f"{verb} takes no {option}=, only {own}. It is an option of {takers}.")
    return modules[verb], Request(Path(values.pop("results_dir")), values)


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
