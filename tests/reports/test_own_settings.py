"""Which settings of a run are its own, whatever its command is."""

from __future__ import annotations

import pytest

from lra.reports.own_settings import own_settings, shown_scale
from tests.helpers.records import record

PLAIN = {"model": {"positions": "learned", "dim": 64}, "trainer": {"steps": 5}}


def run(command, attn="softmax", **config):
    made = record(attn, 0, 0.4, scale="full", command=command)
    made.config |= PLAIN | config
    return made


def test_what_is_as_configured_is_no_own_setting():
    typed = run("python run.py model.positions=rotary model.dim=64", model={"positions": "rotary", "dim": 64})
    assert own_settings([typed]) == "model.positions=rotary"
    plain = run("python run.py -m experiment=positions model.positions=learned seed=0")
    assert own_settings([plain]) == ""
    assert shown_scale(plain) == "full"
    elsewhere = run("python run.py model.positions=learned", attn="mechanism_of_elsewhere")
    assert own_settings([elsewhere]) == "model.positions=learned"


def test_what_is_compared_does_not_count():
    both = run("python run.py model.positions=rotary trainer.steps=5", model={"positions": "rotary"})
    assert own_settings([both], ("model.positions",)) == "trainer.steps=5"
    assert own_settings([both], ("model", "trainer.steps")) == ""
    assert own_settings([both], ("model.position",)) == "model.positions=rotary; trainer.steps=5"
    assert shown_scale(both, ("model.positions", "trainer")) == "full"


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ("'task': 'listops', 'scale': 'full', 'seed': 0", ""),
        ("'seed': 0, 'trainer.steps': 5, 'trainer.compile': True", "trainer.compile=true; trainer.steps=5"),
        ("'optimizer.clip_norm': inf", "settings={'optimizer.clip_norm': inf}"),
    ],
)
def test_a_run_from_python_is_read_as_one_of_the_command_line(settings, own):
    assert own_settings([run(f"lra.run(attn=softmax, settings={{{settings}}})")]) == own
