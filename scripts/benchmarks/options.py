"""Reading the options of benchmarks, and naming what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lra.errors import InputError

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def compose_config(*overrides: str) -> DictConfig:
    """Compose the shipped configuration."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def resolved(node: DictConfig) -> dict[str, Any]:
    """Turn a node of the configuration into plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def count(options: Mapping[str, str], name: str, least: int = 1) -> int:
    """Read an option that counts something."""
    return _count(name, options[name], least)


def counts(options: Mapping[str, str], name: str, least: int = 1) -> list[int]:
    """Read several numbers, in ascending order, each once."""
    return sorted({_count(name, word, least) for word in options[name].split(",")})


def amount(options: Mapping[str, str], name: str) -> float:
    """Read a positive number."""
    try:
        value = float(options[name])
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InputError(f"{name} must be a positive number. Got {options[name]!r}.")
    return value


def chosen(options: Mapping[str, str], name: str, known: Sequence[str]) -> list[str]:
    """Read several names of known things; `all` is all of them."""
    names = list(known) if options[name] == "all" else list(dict.fromkeys(options[name].split(",")))
    if unknown := [word for word in names if word not in known]:
        raise InputError(f"{name} has no {', '.join(map(repr, unknown))}. Choose all, or from {', '.join(known)}.")
    return names


def backbones() -> list[str]:
    """Name every backbone there is."""
    return sorted(path.stem for path in (CONFIGS / "attn").glob("*.yaml"))


def _count(name: str, word: str, least: int) -> int:
    if not word.isdecimal() or int(word) < least:
        raise InputError(f"{name} must be an integer, at least {least}. Got {word!r}.")
    return int(word)
