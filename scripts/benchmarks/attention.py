"""Time and memory of every backbone's forward and backward pass, against fused softmax in the same process.

Each backbone runs in a process of its own, lengths ascending, so that its peak of memory is its own. Its repetitions
alternate with those of fused softmax; a ratio is one of medians.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from benchmarks import Figure, positive
from lra.errors import InputError
from lra.meter import peak_memory, reset_peak_memory
from models.attention import Attention
from models.attention.softmax import SoftmaxAttention

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
OPTIONS = {"attn": "all", "lengths": "512,1024,2048,4096", "budget": "256", "repeats": "5", "device": "cpu"}
BATCH, HEADS, HEAD_DIM = 4, 2, 32


def measure(options: Mapping[str, str]) -> Iterator[Figure]:
    """Yield a figure for each backbone and length, and the growth of its time."""
    known = sorted(path.stem for path in (CONFIGS / "attn").glob("*.yaml"))
    names = known if options["attn"] == "all" else options["attn"].split(",")
    if unknown := set(names) - set(known):
        raise InputError(f"There is no backbone {', '.join(sorted(unknown))}. Choose all, or from {', '.join(known)}.")
    positive(options, "repeats")
    for name in names:
        words = [sys.executable, "-m", "benchmarks.attention", name]
        words += [options[key] for key in ("lengths", "budget", "repeats", "device")]
        done = subprocess.run(words, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
        cases = [json.loads(line) for line in done.stdout.splitlines()]
        for case in cases:
            note = f"{case['ratio']:6.2f} of fused softmax's time, peak {case['peak_bytes'] / 2**20:8,.1f} MiB"
            yield Figure(f"{name}, n={case['n']}", case["ms"], f"ms, {name}", note)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"killed by signal {-done.returncode}"])[-1]
            yield Figure(f"{name}: not finished", math.nan, "", reason)
        elif len(cases) > 1:
            slope = linear_regression([math.log(case["n"]) for case in cases], [math.log(case["ms"]) for case in cases])
            yield Figure(f"{name}, growth exponent", slope.slope, f"of time in n, {name}")


def cases(name: str, lengths: list[int], budget: int, repeats: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Measure one backbone at ascending lengths, float32, no padding."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("config", overrides=[f"attn={name}", f"budget={budget}"])
    for n in lengths:
        # As in the encoder, where the heads of a token are neighbours in memory.
        q, k, v, g = (torch.randn(BATCH, n, HEADS, HEAD_DIM, device=device).transpose(1, 2) for _ in range(4))
        for x in (q, k, v):
            x.requires_grad_()
        mask = torch.ones(BATCH, n, dtype=torch.bool, device=device)
        ours, fused = (
            factory(num_heads=HEADS, head_dim=HEAD_DIM, max_len=n, dropout=0.0).to(device)
            for factory in (instantiate(cfg.attn), SoftmaxAttention)
        )

        def step(module: Attention, q=q, k=k, v=v, g=g, mask=mask) -> None:
            # Not every backbone looks at queries and keys.
            torch.autograd.grad(module(q, k, v, mask), (q, k, v, *module.parameters()), g, allow_unused=True)

        step(ours)
        step(fused)
        return_free_memory()
        reset_peak_memory(device)
        before, _ = peak_memory(device)
        step(ours)
        peak = peak_memory(device)[0] - before
        times: dict[str, list[float]] = {"ours": [], "fused": []}
        for _ in range(repeats):
            for which, module in (("ours", ours), ("fused", fused)):
                times[which].append(seconds(partial(step, module), device))
        ms, baseline = (1e3 * median(times[which]) for which in ("ours", "fused"))
        yield {"n": n, "ms": ms, "ratio": ms / baseline, "peak_bytes": peak}


def return_free_memory() -> None:
    """Give freed pages back to the system, which a peak of the resident set would otherwise hide behind."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def seconds(action: Callable[[], None], device: torch.device) -> float:
    """Time one call, device work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    backbone, lengths_given, budget_given, repeats_given, device_given = sys.argv[1:]
    ascending = sorted(int(n) for n in lengths_given.split(","))
    for found in cases(backbone, ascending, int(budget_given), int(repeats_given), torch.device(device_given)):
        print(json.dumps(found), flush=True)
