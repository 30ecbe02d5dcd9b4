"""The peak of memory, and its limit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lra.files import ROOT
from lra.machine.memory import peak_of
from tests.helpers.training import CPU


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak of memory")
def test_the_peak_is_that_of_the_known_allocation():
    size = 64 * 2**20
    assert peak_of(lambda: torch.ones(size, dtype=torch.uint8), CPU) == pytest.approx(size, rel=0.1)


def test_the_limit_of_memory_is_torchs_to_report():
    code = (
        "import torch; from lra.machine.memory import limit_memory\n"
        "limit_memory(2**28, torch.device('cpu'))\n"
        "try: torch.ones(2**30)\n"
        "except RuntimeError as error: print('cannot' if \"can't allocate\" in str(error) else error)"
    )
    if sys.platform != "linux":
        pytest.skip("only Linux limits a process's memory")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "cannot"
