"""The target `approximation`: errors that are known, orders, mixers."""

from __future__ import annotations

import pytest
import torch

from lra.benchmarks import approximation
from lra.benchmarks.mechanisms import factory
from tests.helpers.benchmark_rows import approximation_row
from tests.helpers.toy_mixer import ToyMixer


@pytest.mark.parametrize(
    "name",
    ["skeinformer", "skeinformer_no_pilot", "skeinformer_uniform", "skeinformer_simple_norm", "skeinformer_no_norm"],
)
def test_the_error_is_nought_where_the_budget_is_the_length(name):
    n = 48
    q, k, v = (torch.randn(2, 2, n, 8, dtype=torch.float64) for _ in range(3))
    errors = approximation.relative_errors(factory(name, n), q, k, v)
    assert max(errors.values()) < 1e-12
    assert approximation.relative_errors(factory(name, n // 4), q, k, v)["spectral_error"] > 0.05


def test_nothing_in_the_place_of_attention_has_error_one():
    class Zero(torch.nn.Module):
        def forward(self, q, k, v, mask):
            return torch.zeros_like(v)

        def diagnostics(self, q, k, v, mask):
            return {"captured_mass": torch.tensor(0.25)}

    q, k, v = (torch.randn(1, 2, 16, 8) for _ in range(3))
    errors = approximation.relative_errors(lambda **_: Zero(), q, k, v, diagnose=True)
    assert errors == {"spectral_error": 1.0, "frobenius_error": 1.0, "captured_mass": 0.25}


def test_agreement_counts_the_cases_that_have_an_order():
    names = ("skeinformer", "skeinformer_no_pilot", "skeinformer_uniform", "skeinformer_simple_norm", "linformer")
    rows = [
        approximation_row(name, d, error, 0.06)
        for d, errors in ((8, (0.1, 0.2, 0.3, 0.4, 0.5)), (16, (0.1, 0.3, 0.2, 0.4, 0.05)))
        for name, error in zip(names, errors, strict=True)
    ]
    # What is out of order differs by less than the intervals.
    assert [one[1:] for one in approximation.agreement(rows)] == [(0, 0, 0), (1, 0, 2), (1, 0, 2)]


def test_a_mixer_approximates_no_attention(monkeypatch):
    real = approximation.factory
    monkeypatch.setattr(approximation, "factory", lambda name, d: ToyMixer if name == "toy" else real(name, d))
    monkeypatch.setattr(approximation, "backbones", lambda: ["toy", "vmean"])
    few = {"attn": "all", "lengths": "32", "budgets": "8", "trials": "2", "inputs": "gaussian"}
    mixer, vmean = approximation.measure({**approximation.OPTIONS, **few})
    assert (mixer.backbone, mixer.status[:19]) == ("toy", "skipped: is a mixer")
    assert (vmean.backbone, vmean.status, vmean.trials) == ("vmean", "ok", 2)
    assert "is a mixer" in approximation.render([mixer, vmean])
