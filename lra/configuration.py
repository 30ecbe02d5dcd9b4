"""The configurations in `configs/`, from Python, and what a command line says about them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lra.files import ROOT

CONFIGS = ROOT / "configs"


def compose_config(*overrides: str) -> DictConfig:
    """Compose the shipped configuration."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def to_plain(node: DictConfig) -> dict[str, Any]:
    """Turn a node of the configuration into plain values.

    Raises:
        OmegaConfBaseException: a value is missing, or refers to one that there is not.
    """
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True))


def options_of(group: str) -> list[str]:
    """Name the choices of a group: the files in its folder."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def backbones() -> list[str]:
    """Name every backbone there is."""
    return options_of("attn")


def is_sweep(words: Sequence[str]) -> bool:
    """Say whether run.py does several jobs with these words."""
    return bool({"-m", "--multirun"} & {*words}) or any(each.key_or_group == "experiment" for each in parse(words))


def results_dir_of(words: Sequence[str]) -> Path:
    """Return the results folder of a run.py with these words."""
    given = [each for each in parse(words) if each.key_or_group == "results_dir" and each.type == OverrideType.CHANGE]
    return Path(compose_config(*(str(each.input_line) for each in given)).results_dir)


def parse(words: Sequence[str]) -> list[Override]:
    """Read the `key=value` of a command line as Hydra does; flags, and what Hydra cannot read, are left out."""
    parser = OverridesParser.create()
    overrides = []
    for word in words:
        with suppress(HydraException):
            overrides.append(parser.parse_override(word))
    return overrides


def explain_unknown_keys(words: Sequence[str]) -> str:
    """Name the keys there are, where Hydra only says that one is unknown.

    Args:
        words: of a command line.

    Returns:
        A line for each unknown key, with those that stand at its place; "" if all keys are known.
    """
    changes = [each for each in parse(words) if each.type == OverrideType.CHANGE]
    groups = [str(each.input_line) for each in changes if _is_group(each) and not each.is_sweep_override()]
    try:
        cfg = compose_config(*groups)
    except HydraException:  # a choice that there is not: Hydra names those there are
        return ""
    keys = [each.key_or_group for each in changes if not _is_group(each) and not each.key_or_group.startswith("hydra")]
    return "\n".join(filter(None, (_explain_unknown_key(cfg, key) for key in keys)))


def _is_group(override: Override) -> bool:
    return (CONFIGS / override.key_or_group).is_dir()


def _explain_unknown_key(cfg: DictConfig, key: str) -> str:
    """Name the keys of the innermost node that a key goes through; "" if it is one of them."""
    path, _, name = key.rpartition(".")
    while path and not isinstance(OmegaConf.select(cfg, path), DictConfig):
        path, _, name = path.rpartition(".")
    node = OmegaConf.select(cfg, path) if path else cfg
    known = [str(each) for each in node if not str(each).startswith("_")]
    if name in known:
        return ""
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{key} is no key.{hint} Keys of {path or 'the top level'}: {', '.join(known) or 'none'}."
