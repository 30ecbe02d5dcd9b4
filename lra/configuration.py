"""The configurations in `configs/`, from Python."""

from __future__ import annotations

from typing import Any, cast

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lra.files import ROOT

CONFIGS = ROOT / "configs"


def compose_config(*overrides: str) -> DictConfig:
    """Compose the shipped configuration."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def to_plain(node: DictConfig) -> dict[str, Any]:
    """Turn a node of the configuration into plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def backbones() -> list[str]:
    """Name every backbone there is."""
    return sorted(path.stem for path in (CONFIGS / "attn").glob("*.yaml"))
