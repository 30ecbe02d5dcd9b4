"""Transcriptions against the backbones that they are compared with."""

from __future__ import annotations

import pytest
import torch

from lra.benchmarks.mechanisms import factory
from lra.benchmarks.transcriptions import transcription

# Nystromformer's pseudo-inverse begins at another scale and is not quite converged; Performer's is a mean of draws.
TOLERANCES = {"nystromformer": 0.01, "performer": 0.05}


@pytest.mark.parametrize("name", ["skeinformer", "nystromformer", "linformer", "performer", "linear_transformer"])
def test_a_transcription_says_what_its_backbone_says(name):
    """Where both are exact, as exact attention; elsewhere on average over draws."""
    n, budget = 32, 32
    q, k, v = (torch.randn(2, 2, n, 8) for _ in range(3))
    mask = torch.ones(2, n, dtype=torch.bool)
    shape = {"num_heads": 2, "head_dim": 8, "max_len": n, "dropout": 0.0}
    ours, plain = factory(name, budget)(**shape), transcription(name, budget)(**shape)
    if name == "linformer":
        ours.load_state_dict(plain.state_dict())
    repeats = 600 if name == "performer" else 1
    with torch.no_grad():
        a, b = (sum(module(q / 2, k / 2, v, mask) for _ in range(repeats)) / repeats for module in (ours, plain))
    assert torch.linalg.norm(a - b) / torch.linalg.norm(a) < TOLERANCES.get(name, 1e-4)
