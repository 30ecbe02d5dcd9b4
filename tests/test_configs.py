"""The shipped configuration: every pair composes and builds, names are checked, published values are the sources'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, HydraException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from lra.data import Batching
from lra.optimization import Optimization
from lra.trainer import Trainer
from models.encoder import Classifier

CONFIGS = Path(__file__).parent.parent / "configs"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=list(overrides))


SCALES = [pytest.param(scale, marks=[] if scale == "smoke" else pytest.mark.slow) for scale in choices("scale")]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("attn", choices("attn"))
@pytest.mark.parametrize("task", choices("task"))
def test_every_pair_composes_and_builds(task, attn, scale, tmp_path):
    cfg = composed(f"task={task}", f"attn={attn}", f"scale={scale}")
    made = instantiate(cfg.task)(cache_dir=tmp_path)
    Trainer(**cfg.trainer, optimization=Optimization(**cfg.optimizer), batching=Batching(**cfg.data))
    model = Classifier(
        instantiate(cfg.attn), vocab_size=made.vocab_size, max_len=made.max_len, num_classes=made.num_classes,
        num_inputs=made.num_inputs, **cfg.model,
    )  # fmt: skip
    tokens = torch.ones(1, made.num_inputs, 9, dtype=torch.uint8)
    assert model(tokens, tokens.bool()).shape == (1, made.num_classes)


@pytest.mark.parametrize("scale", choices("scale"))
@pytest.mark.parametrize("task", choices("task"))
def test_no_approximate_method_falls_back_to_exact_attention(task, scale, tmp_path):
    """A budget as long as the sequences would make every approximation exact, and the comparison empty."""
    cfg = composed(f"task={task}", f"scale={scale}")
    assert cfg.budget <= 0.3 * instantiate(cfg.task)(cache_dir=tmp_path).max_len
    if task == "listops":  # whose sequences may be much shorter than the longest
        assert cfg.budget <= cfg.task.min_length


@pytest.mark.parametrize("attn", choices("attn"))
def test_targets_stay_inside_the_project_and_have_a_version(attn):
    cfg = composed(f"attn={attn}")
    assert cfg.attn._target_.startswith("models.attention.")
    assert get_class(cfg.attn._target_).version >= 1


def test_the_skeinformer_protocol_is_the_released_one():
    """Values of hyperparameters.csv, rows pkuzengqi/Skeinformer, listops and all."""
    resolved: Any = OmegaConf.to_container(
        composed("protocol=skeinformer", "task=listops", "attn=skeinformer"), resolve=True
    )
    expected = {
        "steps": 20000, "batch_size": 256, "learning_rate": 1e-4, "warmup_steps": 1000, "weight_decay": 0,
        "eval_every": 500, "patience": 10, "adam_eps": 1e-6, "cycle_momentum": True, "clip_norm": None,
    }  # fmt: skip
    given = {**resolved["trainer"], **resolved["optimizer"]}
    assert {name: given[name] for name in expected} == expected
    assert resolved["model"] == {
        "dim": 64, "depth": 2, "num_heads": 2, "head_dim": 32, "mlp_dim": 128, "dropout": 0.1, "attention_dropout": 0.1,
        "real_valued": None,
    }  # fmt: skip
    assert resolved["attn"]["num_samples"] == resolved["budget"] == 256
    sizes = ("num_train", "num_val", "num_test", "max_depth", "max_args", "min_length", "max_length")
    assert [resolved["task"][name] for name in sizes] == [96000, 2000, 2000, 10, 10, 500, 2000]


def test_the_budget_reaches_the_method():
    assert composed("attn=skeinformer", "budget=77").attn.num_samples == 77


@pytest.mark.parametrize("override", ["attn=skienformer", "task=listop", "protocol=skein", "scale=tiny"])
def test_a_wrong_name_lists_the_right_ones(override):
    group = override.split("=")[0]
    with pytest.raises(HydraException) as error:
        composed(override)
    assert all(name in str(error.value) for name in choices(group))


@pytest.mark.parametrize("override", ["trainer.step=3", "attn.num_sample=3", "batch_size=4"])
def test_a_wrong_key_is_refused(override):
    with pytest.raises(ConfigCompositionException):
        composed("attn=skeinformer", override)
