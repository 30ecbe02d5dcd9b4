"""The profile of a few steps, and what it prints."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch

from lra.machine.profiling import PARTS
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, changed, model_for


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_shares_of_a_step_and_a_trace(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "trace.json"
    changed(steps=20, eval_every=9).fit(
        model_for(ToyTask()), ToyTask(), Outcome(), seed=0, surroundings=Surroundings(CPU, trace=path)
    )
    assert {"forward", "optimizer"} <= {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    shares = dict(re.findall(r"^(\w+) .* ([\d.]+)%$", caplog.text, flags=re.MULTILINE))
    assert set(shares) == {*PARTS, "rest"}
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.5)


def test_a_profile_changes_no_number(tmp_path):
    curves = []
    for trace in (None, tmp_path / "trace.json"):
        torch.manual_seed(0)
        outcome = Outcome()
        changed(steps=20, eval_every=10).fit(
            model_for(ToyTask(), dropout=0.1), ToyTask(), outcome, seed=0, surroundings=Surroundings(CPU, trace=trace)
        )
        curves.append([point["val_loss"] for point in outcome.curve])
    assert curves[0] == curves[1]
