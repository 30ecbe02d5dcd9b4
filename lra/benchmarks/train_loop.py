"""What the training loop adds to a step: `Trainer.fit` against forward, backward and optimiser, on the same batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from io import StringIO
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import nn

from lra.configuration import compose_config, to_plain
from lra.machine.meter import Meter
from lra.records.benchmark_rows import TrainRow
from lra.runs.factory import make_model, make_trainer
from lra.tasks import Task
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings
from models.classifier import Classifier

TARGET_PER_CENT = 2.0
WARMUP = 10  # steps of either loop that are not compared


def measure(name: str, steps: int, rounds: int) -> Iterator[TrainRow]:
    """Train a backbone on ListOps at scale=mini in both ways, in turn."""
    overrides = ["task.num_val=100", "task.num_test=100", f"trainer.steps={steps}", f"trainer.eval_every={steps}"]
    cfg = compose_config("task=listops", f"attn={name}", "scale=mini", *overrides)
    cfg.optimizer.warmup_steps = min(cfg.optimizer.warmup_steps, steps // 2)
    with tempfile.TemporaryDirectory() as folder:
        task: Task = instantiate(cfg.task)(cache_dir=folder)
        task.prepare()
        laps = _train_both(to_plain(cfg), task, steps, rounds)
    # The same step has the same batch in every round: its fastest round is the one that nothing else disturbed.
    ours, plain = (np.array(laps[which])[:, WARMUP:] for which in laps)
    by_round = 100 * (ours.sum(1) / plain.sum(1) - 1)
    value = 100 * (ours.min(0).sum() / plain.min(0).sum() - 1)
    yield TrainRow(
        part="loop overhead", backbone=name, name=f"{name}, ListOps at scale=mini", value=float(value),
        unit="% of a bare step", quartiles=np.quantile(by_round, [0.25, 0.75]).tolist(),
        ms=float(1e3 * ours.min(0).mean()), bare_ms=float(1e3 * plain.min(0).mean()),
        target_text=f"< {TARGET_PER_CENT:g}", met=bool(value < TARGET_PER_CENT),
    )  # fmt: skip


def _train_both(resolved: Mapping[str, Any], task: Task, steps: int, rounds: int) -> dict[str, list[list[float]]]:
    """Train in turn in the harness and bare; return the seconds of every step of every round."""
    cpu = torch.device("cpu")
    trainer = make_trainer(resolved)
    split = task.split("train")
    indices = islice(trainer.batching.training(split, trainer.batch_size, seed=0), steps)
    batches = [trainer.batching.gather(split, index, task.max_len) for index in indices]

    def build() -> Classifier:
        torch.manual_seed(0)
        return make_model(resolved, task).train()

    def harness() -> list[float]:
        meter = Meter(cpu)
        with redirect_stderr(StringIO()):  # the progress bar
            trainer.fit(build(), task, Outcome(), seed=0, surroundings=Surroundings(cpu, meter=meter))
        return meter.laps

    def bare() -> list[float]:
        model = build()
        optimizer, _ = trainer.optimization.build(model, steps)
        return [_bare_step(model, optimizer, batch) for batch in batches]

    laps: dict[str, list[list[float]]] = {"harness": [], "bare": []}
    for number in range(rounds):
        for which, run in (("harness", harness), ("bare", bare))[:: 1 if number % 2 == 0 else -1]:
            laps[which].append(run())
    return laps


def _bare_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch.tokens, batch.mask), batch.labels).backward()
    optimizer.step()
    return time.perf_counter() - start
