"""The peak of memory in a record is the run's own, whatever ran in the process before it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from lra.files import ROOT
from lra.machine.meter import Meter
from lra.runs.factory import make_classifier
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings
from models.attention.softmax import SoftmaxAttention
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, changed

# On a CPU the peak is that of resident pages, of which the allocator and the libraries keep some.
RELATIVE, ABSOLUTE = 0.05, 64 * 2**20


def peak(mlp_dim: int) -> int:
    """Train a model whose activations take about 12 * 256 * mlp_dim floats, and return the peak."""
    task, outcome, meter = ToyTask(), Outcome(), Meter(CPU)
    torch.manual_seed(0)
    shape = {
        "dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": mlp_dim, "dropout": 0.0,
        "attention_dropout": 0.0,
    }  # fmt: skip
    model = make_classifier(SoftmaxAttention, shape, vocab_size=8, max_len=12, num_classes=3, num_inputs=1)
    trainer = changed(steps=5, eval_every=5, batch_size=256)
    trainer.fit(model, task, outcome, seed=0, surroundings=Surroundings(CPU, meter=meter))
    return outcome.cost["peak_memory_bytes"]


def in_a_process(*widths: int) -> list[int]:
    code = (
        f"import json; from tests.machine.test_peak_memory import peak; print(json.dumps([peak(w) for w in {widths}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak of memory")
def test_two_runs_in_one_process_peak_as_in_two_processes():
    large, small = 16384, 2048
    (alone_large,), (alone_small,) = in_a_process(large), in_a_process(small)
    together = in_a_process(large, small, large)
    assert alone_large > 3 * alone_small
    for found, expected in zip(together, [alone_large, alone_small, alone_large], strict=True):
        assert found == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE)
