"""The shipped configuration, composed as Hydra does it: by Hydra itself, or a hundred times faster by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lra.configuration import CONFIGS
from lra.reports.experiments import load_experiments
from lra.runs.factory import make_model, make_trainer


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    """What a command line with these overrides gives."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def stacked(
    *, task: str = "listops", attn: str = "softmax", protocol: str = "skeinformer", scale: str = "full"
) -> DictConfig:
    """The same for the four choices, their files laid over one another; test_configs.py holds it to Hydra."""
    files = [f"task/{task}", f"attn/{attn}", f"protocol/{protocol}", f"scale/{scale}", "pretrain/none"]
    if (CONFIGS / "protocol_attn" / f"{protocol}_{attn}.yaml").exists():
        files.insert(3, f"protocol_attn/{protocol}_{attn}")
    cfg = OmegaConf.merge(*(_placed(name) for name in ("config", *files)))
    del cfg["defaults"], cfg["hydra"]
    assert isinstance(cfg, DictConfig)
    return cfg


def resolved(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def build_and_classify(cfg: DictConfig, cache_dir: Path) -> None:
    """Make everything that a run needs of a configuration, and classify nine tokens."""
    task = instantiate(cfg.task)(cache_dir=cache_dir)
    make_trainer(resolved(cfg))
    model = make_model(resolved(cfg), task).eval()
    tokens = torch.ones(1, task.num_inputs, 9, dtype=torch.uint8)
    assert model(tokens, tokens.bool()).shape == (1, task.num_classes)


@cache
def _placed(name: str) -> Any:
    path = CONFIGS / f"{name}.yaml"
    content = OmegaConf.load(path)
    if name != "config" and "defaults" in content:  # files of the same group, laid over this one
        siblings = content.pop("defaults")
        content = OmegaConf.merge(content, *(_placed(f"{name.partition('/')[0]}/{sibling}") for sibling in siblings))
    first = path.read_text().partition("\n")[0]
    package = first.removeprefix("# @package ") if first.startswith("# @package ") else name.partition("/")[0]
    return content if package == "_global_" or name == "config" else OmegaConf.create({package: content})


EXPERIMENTS = load_experiments(CONFIGS / "experiment")
