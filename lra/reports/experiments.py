"""Sets of training runs as `configs/experiment/` has them, and how much of each there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from lra.errors import InputError


class Experiment(NamedTuple):
    """A sweep: every task with every mechanism and every seed, under one protocol."""

    name: str
    protocol: str
    tasks: tuple[str, ...]
    attns: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def command(self) -> str:
        """What runs it."""
        return f"python run.py experiment={self.name}"


def load_experiments(folder: Path) -> dict[str, Experiment]:
    """Read the sweeps of a folder of Hydra configurations; their values are names with commas between them."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        params = {
            key: str(value) for key, value in yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"].items()
        }
        tasks, attns, seeds = ([word.strip() for word in params[key].split(",")] for key in ("task", "attn", "seed"))
        found[path.stem] = Experiment(path.stem, params["protocol"], tuple(tasks), tuple(attns), tuple(map(int, seeds)))
    return found


def choose(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """Return one by its name.

    Raises:
        InputError: there is none.
    """
    if name not in experiments:
        raise InputError(f"There is no experiment {name!r}. Choose from {', '.join(experiments)}.")
    return experiments[name]
