"""A training step on real batches: length-bucketed and fused against padded and written out; bf16 against fp32.

Model: two layers of width 64, two heads of 32, batches of 8, budget 256, as arXiv 2112.05359 trains it. Data: ListOps
to 2,048 tokens and Text to 4,096 bytes, as its code reads them. The plain path pads every batch to that length, draws
batches at random and runs `transcriptions.py`; ours is the harness's: batches of about equal length, padded to their
longest, and the backbones of `models/attention`. Both take every step of the same stretch of training, and the mean
over it is the figure, since batches differ in length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig

from lra.benchmarks.mechanisms import Factory, factory
from lra.benchmarks.timing import Progress
from lra.benchmarks.transcriptions import transcription
from lra.configuration import compose_config, to_plain
from lra.errors import MissingDataError
from lra.machine.memory import is_out_of_memory, limit_memory
from lra.records.benchmark_rows import TrainCase, TrainRow
from lra.runs.factory import make_classifier
from lra.statistics import student_interval
from lra.tasks import Task
from lra.training.batching import Batch, Batching
from lra.training.objectives import compute_logits
from models.classifier import Classifier

METHODS = ("softmax", "skeinformer", "nystromformer", "linformer", "performer")
TASKS = {"listops": ["task.num_train=2000", "task.num_val=100", "task.num_test=100"], "text": []}
LEAST_RATIO = {
    ("skeinformer", "text"): 5.0, ("skeinformer", "listops"): 3.0,
    ("softmax", "text"): 10.0, ("softmax", "listops"): 10.0,
}  # fmt: skip
# Seconds a step of the authors' own code (github.com/pkuzengqi/Skeinformer, models of two layers, batches of 8) on this
# class of CPU: measured for the design of this project, not by this benchmark.
AUTHORS_CODE = {
    "softmax": {"listops": 4.17, "text": 18.8}, "skeinformer": {"listops": 0.53, "text": 1.41},
    "nystromformer": {"listops": 0.28, "text": 0.51}, "linformer": {"listops": 0.20, "text": 0.38},
    "performer": {"listops": 0.29, "text": 0.79}, "fused softmax in that model": {"listops": 0.37, "text": 1.25},
    "identity in the place of attention": {"listops": 0.11, "text": 0.22},
}  # fmt: skip
BATCH, BUDGET = 8, 256
BUCKET = 32  # batches drawn together, whose mean stands for an epoch
PLAIN_STEPS = 3
CPU = torch.device("cpu")


def measure(tasks: Sequence[str], names: Sequence[str], memory_gib: float, progress: Progress) -> Iterator[TrainCase]:
    """Measure every task and method, in at most so much memory."""
    for task_name in tasks:
        overrides = TASKS[task_name]
        cfg = compose_config(f"task={task_name}", "protocol=skeinformer", *overrides)
        task: Task = instantiate(cfg.task)(cache_dir=cfg.cache_dir)
        try:
            task.prepare()
        except MissingDataError:
            progress.done += len(names)
            yield TrainCase(status="skipped: no raw data; set LRA_DATA", part="step", name=task_name)
            continue
        for name in names:
            progress.say(f"training step, {task_name}, {name}")
            limit_memory(memory_gib * 2**30, CPU)
            try:
                yield from against_plain(task_name, name, task, cfg)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                status = f"out of memory in {memory_gib:g} GiB"
                yield TrainCase(status=status, part="step", name=f"{task_name}, {name}")
            finally:
                limit_memory(None, CPU)
            progress.done += 1


def batches(task: Task, batching: Batching, count: int) -> list[Batch]:
    """Gather the first batches of a training."""
    split = task.split("train")
    return [batching.gather(split, index, task.max_len) for index in islice(batching.training(split, BATCH, 0), count)]


def against_plain(task_name: str, name: str, task: Task, cfg: DictConfig) -> Iterator[TrainCase]:
    """Time our path in fp32 and bf16, and the plain one."""
    longest = cfg.data.padded_length
    ours = batches(task, Batching(padding="batch", bucket_batches=BUCKET, mask_zero=False), BUCKET)
    padded = batches(task, Batching("max", 1, mask_zero=False, padded_length=longest), PLAIN_STEPS + 1)
    plain = transcription(name, BUDGET)
    assert plain is not None
    # Ours before and after the plain path, so that a drift of the machine does not flatter either.
    before = _steps(factory(name, BUDGET), ours, task, cfg)
    plain_seconds = _steps(plain, padded[1:], task, cfg)
    after = _steps(factory(name, BUDGET), ours, task, cfg)
    rounds = [fmean(before), fmean(after)]
    mean = fmean(rounds)
    about: dict[str, Any] = {"backbone": name, "task": task_name, "n": longest, "batch": BATCH, "budget": BUDGET}
    least = LEAST_RATIO.get((name, task_name))
    ratio = fmean(plain_seconds) / mean
    yield TrainRow(
        **about, part="step", name=f"{task_name}, {name}: plain over ours", value=ratio, unit="x", ms=1e3 * mean,
        plain_ms=1e3 * fmean(plain_seconds), plain_ms_half_width=1e3 * student_interval(plain_seconds)[1],
        rounds_ms=[1e3 * seconds for seconds in rounds],
        target_text=f">= {least:g}" if least else "", met=ratio >= least if least else None,
    )  # fmt: skip
    half: dict[str, Any] = {**about, "part": "bf16", "name": f"{task_name}, {name}: fp32 over bf16", "unit": "x"}
    if not torch.cpu._is_avx512_bf16_supported():
        yield TrainCase(status="skipped: this CPU has no bf16 arithmetic", **half)
        return
    bf16 = fmean(_steps(factory(name, BUDGET), ours, task, cfg, "bf16"))
    yield TrainRow(**half, value=mean / bf16, ms=1e3 * bf16)


def _steps(make: Factory, drawn: Sequence[Batch], task: Task, cfg: DictConfig, precision: str = "fp32") -> list[float]:
    """Train a new model on these batches; return the seconds of each step."""
    torch.manual_seed(0)
    model = make_classifier(
        make, to_plain(cfg.model), vocab_size=task.vocab_size, max_len=cfg.data.padded_length,
        num_classes=task.num_classes, num_inputs=task.num_inputs,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return [_step(model, optimizer, batch, precision) for batch in (drawn[0], *drawn)][1:]


def _step(model: Classifier, optimizer: torch.optim.Optimizer, batch: Batch, precision: str) -> float:
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(compute_logits(model, batch, CPU, precision), batch.labels).backward()
    optimizer.step()
    return time.perf_counter() - start
