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
        OmegaConfBaseException: a value is missing, or refers to another that does not exist.
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
    has_experiment = any(override.key_or_group == "experiment" for override in parse(words))
    return has_experiment or bool({"-m", "--multirun"} & {*words})


def results_dir_of(words: Sequence[str]) -> Path:
    """Return the results folder of run.py with these words."""
    changes = [
        str(override.input_line)
        for override in parse(words)
        if override.key_or_group == "results_dir" and override.type == OverrideType.CHANGE
    ]
    return Path(compose_config(*changes).results_dir)


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
        A line for each unknown key, with the keys that its node has; "" if all keys are known.
    """
    changes = [override for override in parse(words) if override.type == OverrideType.CHANGE]
    groups = [
        str(change.input_line)
        for change in changes
        if change.key_or_group == "hydra.searchpath" or (_is_group(change) and not change.is_sweep_override())
    ]
    try:
        cfg = compose_config(*groups)
    except HydraException:  # an unknown choice, for which Hydra itself names the others
        return ""
    keys = [change.key_or_group for change in changes if not _is_group(change)]
    explanations = (_explain_unknown_key(cfg, key) for key in keys if not key.startswith("hydra"))
    return "\n".join(filter(None, explanations))


def _is_group(override: Override) -> bool:
    return (CONFIGS / override.key_or_group).is_dir()


def _explain_unknown_key(cfg: DictConfig, key: str) -> str:
    """Name the keys of the innermost node that a key goes through; "" if it is one of them."""
    path, _, name = key.rpartition(".")
    while path and not isinstance(OmegaConf.select(cfg, path), DictConfig):
        path, _, name = path.rpartition(".")
    node = OmegaConf.select(cfg, path) if path else cfg
    names = [str(child) for child in node if not str(child).startswith("_")]
    if name in names:
        return ""
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{key} is no key.{hint} Keys of {path or 'the top level'}: {', '.join(names) or 'none'}."
