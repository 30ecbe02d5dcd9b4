"""From the command to the end of the first training step: `run.py` in a fresh process, its data prepared already.

The process is this file as a program: it runs `run.py` as the command line would, and leaves at the first step.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median

import numpy as np

from lra.files import ROOT
from lra.records.benchmark_rows import TrainRow

TARGET_SECONDS = 5.0


def measure(attn: str, repeats: int) -> Iterator[TrainRow]:
    """Start a run of each scale several times; the first time warms every cache, and is not counted."""
    for scale in ("smoke", "mini"):
        seconds = [first_step(f"task=listops attn={attn} scale={scale}") for _ in range(repeats + 1)][1:]
        yield TrainRow(
            part="to the first step", backbone=attn, name=f"{attn}, ListOps at scale={scale}, warm cache",
            value=median(seconds), unit="s from the command", quartiles=np.quantile(seconds, [0.25, 0.75]).tolist(),
            target_text=f"< {TARGET_SECONDS:g}", met=median(seconds) < TARGET_SECONDS,
        )  # fmt: skip


def first_step(command: str) -> float:
    """Return the seconds from starting `python run.py` to the end of its first optimiser step."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*command.split(), f"results_dir={folder}", "wandb.mode=disabled", "device=cpu"]
        start = time.time()
        done = subprocess.run(
            [sys.executable, "-m", "lra.benchmarks.train_start", *words], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        try:
            return float(done.stdout.split("first step at ")[1].split()[0]) - start
        except IndexError:
            raise RuntimeError(f"run.py took no step:\n{done.stdout}\n{done.stderr}") from None


def _leave(*_: object) -> None:
    print(f"\nfirst step at {time.time()}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(_leave)
    sys.argv[0] = str(ROOT / "run.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
