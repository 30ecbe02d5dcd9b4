"""The shipped configuration: every pair of task and backbone composes and builds, and names are checked."""

from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException, HydraException
from hydra.utils import get_class, instantiate

from tests.helpers.configurations import build_and_classify, choices, composed, resolved, stacked

SCALES = [pytest.param(scale, marks=[] if scale == "smoke" else pytest.mark.slow) for scale in choices("scale")]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("attn", choices("attn"))
@pytest.mark.parametrize("task", choices("task"))
def test_every_pair_composes_and_builds(task, attn, scale, tmp_path):
    build_and_classify(stacked(task=task, attn=attn, scale=scale), tmp_path)


@pytest.mark.parametrize("protocol", choices("protocol"))
def test_files_laid_over_one_another_are_what_hydra_composes(protocol):
    """What these tests use in place of Hydra, seven times faster."""
    changed = [name.partition("_")[2] for name in choices("protocol_attn") if name.startswith(f"{protocol}_")]
    for task, scale, attn in zip(choices("task"), 2 * choices("scale"), [*changed, *choices("attn")], strict=False):
        names = {"task": task, "attn": attn, "protocol": protocol, "scale": scale}
        assert resolved(composed(*(f"{key}={value}" for key, value in names.items()))) == resolved(stacked(**names))


@pytest.mark.parametrize("task", choices("task"))
def test_a_task_knows_its_name(task):
    """Protocols look up what they have for a task by it."""
    assert stacked(task=task).task_name == task


MINE = """# @package _global_
task_name: mine
task: {_target_: lra.tasks.image.Image, _partial_: true, side: "${size.side}"}
sizes:
  full: {side: 32}
  smoke: {side: 8, budget: 16, steps: 3, batch_size: 2, learning_rate: 1.0e-3, warmup_steps: 2, eval_every: 2}
tasks:
  mine:
    {steps: 70, batch_size: 8, learning_rate: 1.0e-2, warmup_steps: 7, eval_every: 10, patience: 5, padded_length: null}
"""


def test_a_task_that_no_protocol_knows_brings_its_row(tmp_path):
    (conf := tmp_path / "conf" / "task").mkdir(parents=True)
    (conf / "mine.yaml").write_text(MINE)
    for protocol in ("skeinformer", "controlled"):
        overrides = (f"hydra.searchpath=[file://{conf.parent}]", "task=mine", f"protocol={protocol}")
        full, smoke = (composed(*overrides, f"scale={scale}") for scale in ("full", "smoke"))
        assert (full.trainer.steps, full.trainer.batch_size, full.optimizer.warmup_steps) == (70, 8, 7)
        assert smoke.trainer.steps == 3
        for cfg in (full, smoke):
            build_and_classify(cfg, tmp_path)


def test_every_pair_of_protocol_and_attn_exists():
    pairs = {f"{protocol}_{attn}" for protocol in choices("protocol") for attn in choices("attn")}
    assert set(choices("protocol_attn")) <= pairs


@pytest.mark.parametrize("scale", choices("scale"))
@pytest.mark.parametrize("task", choices("task"))
def test_no_approximate_method_falls_back_to_exact_attention(task, scale, tmp_path):
    """A budget as long as the sequences would make every approximation exact, and the comparison empty."""
    cfg = stacked(task=task, scale=scale)
    assert cfg.budget <= 0.3 * instantiate(cfg.task)(cache_dir=tmp_path).max_len
    if task == "listops":  # whose sequences may be much shorter than the longest
        assert cfg.budget <= cfg.task.min_length


@pytest.mark.parametrize("attn", choices("attn"))
def test_targets_stay_inside_the_project_and_have_a_version(attn):
    cfg = stacked(attn=attn)
    assert cfg.attn._target_.startswith(("models.attention.", "models.mixers."))
    assert get_class(cfg.attn._target_).version >= 1


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
