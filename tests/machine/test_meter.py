"""The meter against known waits and known allocations."""

import os
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

from lra.machine.memory import peak_memory, reset_peak_memory
from lra.machine.meter import WARMUP_STEPS, Meter

CPU = torch.device("cpu")


def test_laps_leave_out_the_warm_up_and_what_happens_in_a_pause():
    meter = Meter(CPU)
    with meter.running():
        for _ in range(WARMUP_STEPS):
            time.sleep(0.05)
            meter.lap(1, 1)
        with meter.paused():
            time.sleep(0.2)  # an evaluation
        for _ in range(4):
            time.sleep(0.02)
            meter.lap(30, 40)
    summary = meter.summary()
    assert summary["warmup_seconds"] >= 0.05 * WARMUP_STEPS
    assert summary["train_seconds"] >= 0.08
    assert summary["train_seconds"] == pytest.approx(sum(meter.laps[WARMUP_STEPS:]))
    assert len(meter.laps) == WARMUP_STEPS + 4  # none spans the evaluation
    assert summary["ms_per_step"] >= 20
    low, high = summary["ms_per_step_quartiles"]
    assert low <= summary["ms_per_step"] <= high
    assert summary["tokens_per_second"] == pytest.approx(120 / summary["train_seconds"])
    assert summary["padded_tokens_per_second"] == pytest.approx(160 / summary["train_seconds"])


def test_a_run_shorter_than_its_warm_up_has_no_times():
    meter = Meter(CPU)
    with meter.running():
        meter.lap(1, 1)
    assert meter.summary()["train_seconds"] is None
    assert meter.summary()["ms_per_step"] is None


@pytest.mark.parametrize("where", ["step", "pause"])
def test_an_error_keeps_the_laps_before_it_and_adds_none(where):
    meter = Meter(CPU)
    with suppress(KeyError), meter.running():
        meter.lap(1, 1)
        meter.lap(1, 1)
        if where == "step":
            raise KeyError
        with meter.paused():
            raise KeyError
    assert len(meter.laps) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak of memory")
def test_the_peak_is_that_of_the_stretch_alone():
    size = 300 * 2**20
    code = f"""
import torch
from lra.machine.meter import peak_memory, reset_peak_memory
cpu = torch.device("cpu")
before, _ = peak_memory(cpu)
block = torch.ones({size}, dtype=torch.uint8)
with_block, _ = peak_memory(cpu)
del block
reset_peak_memory(cpu)
after, _ = peak_memory(cpu)
print(with_block - before, with_block - after)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    grown, fallen = map(int, out.split())
    assert grown == pytest.approx(size, rel=0.1)
    assert fallen == pytest.approx(size, rel=0.1)


@pytest.mark.gpu
def test_the_peak_on_a_gpu_is_that_of_the_known_allocation():
    device = torch.device("cuda")
    held, _ = peak_memory(device)
    torch.empty(100 * 2**20, dtype=torch.uint8, device=device)
    assert peak_memory(device)[0] >= 100 * 2**20
    reset_peak_memory(device)
    assert peak_memory(device)[0] <= held


def test_the_load_of_the_system_is_noted_at_the_end_of_training():
    meter = Meter(torch.device("cpu"))
    assert meter.summary()["load_average"] is None
    with meter.running():
        meter.lap(1, 1)
    assert meter.summary()["load_average"] == pytest.approx(os.getloadavg()[0], abs=0.5)
