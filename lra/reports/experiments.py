"""Experiments: the sets of training runs in `configs/experiment/`, read in Hydra's own grammar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from lra.errors import InputError
from lra.records.identity import as_typed, at
from lra.records.record import RunRecord

GROUPS = ("protocol", "task", "attn", "seed")


class Experiment(NamedTuple):
    """A sweep: every task with every mechanism and every seed, under one protocol.

    Attributes:
        factor: the key of another setting that is swept, too, or "".
        levels: its values, as they are typed.
        settings: the keys of all settings that its command has, the factor's among them.
    """

    name: str
    protocol: str
    tasks: tuple[str, ...]
    attns: tuple[str, ...]
    seeds: tuple[int, ...]
    factor: str = ""
    levels: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command that runs it."""
        return f"python run.py experiment={self.name}"

    @property
    def runs_a_cell(self) -> int:
        """How many runs it has of each mechanism on each task."""
        return len(self.seeds) * max(1, len(self.levels))

    def has(self, run: RunRecord) -> bool:
        """Whether a run, at any scale, is one of these."""
        return (
            run.protocol == self.protocol
            and run.task in self.tasks
            and run.attn in self.attns
            and run.seed in self.seeds
            and self.level(run.config) in (self.levels or ("",))
        )

    def level(self, config: Mapping[str, Any]) -> str:
        """Return the value of the factor in the configuration of a run, as it is typed."""
        return as_typed(at(config, self.factor)) if self.factor else ""


def load_experiments(folder: Path) -> dict[str, Experiment]:
    """Read the sweeps of `configs/experiment`, in Hydra's own grammar: `a,b`, `range(3)`, `glob(*)`.

    Args:
        folder: the experiments; the folders beside it hold what a glob chooses from.

    Raises:
        InputError: a sweep cannot be read, or is over several protocols or over several other settings.
    """
    experiments = {}
    for path in sorted(folder.glob("*.yaml")):
        params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
        try:
            overrides = OverridesParser.create().parse_overrides([f"{key}={params[key]}" for key in params])
            swept = {override.key_or_group: _swept(override, folder.parent) for override in overrides}
        except HydraException as error:
            raise InputError(f"The sweep of {path} cannot be read: {error}. Mend the file.") from error
        if len(swept["protocol"]) != 1:
            raise InputError(
                f"An experiment must have one protocol. Got {', '.join(swept['protocol'])}: make one of each in "
                f"{folder}."
            )
        settings = tuple(key for key in swept if key not in GROUPS)
        if len(factors := [key for key in settings if len(swept[key]) > 1]) > 1:
            raise InputError(f"An experiment may sweep one more setting. {path} sweeps {', '.join(factors)}.")
        seeds = tuple(int(seed) for seed in swept["seed"])
        factor = factors[0] if factors else ""
        experiments[path.stem] = Experiment(
            path.stem, *swept["protocol"], swept["task"], swept["attn"], seeds, factor, swept.get(factor, ()), settings
        )
    return experiments


def _swept(override: Override, configs: Path) -> tuple[str, ...]:
    """List the values that Hydra's sweeper gives a key, in its order."""
    values = override.value()
    if isinstance(values, Glob):
        return tuple(values.filter(sorted(path.stem for path in (configs / override.key_or_group).glob("*.yaml"))))
    return tuple(override.sweep_string_iterator()) if override.is_sweep_override() else (str(values),)


def choose(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        InputError: there is none.
    """
    if name not in experiments:
        raise InputError(f"There is no experiment {name!r}. Choose from {', '.join(experiments)}.")
    return experiments[name]
