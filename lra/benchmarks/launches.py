"""The target `launches`: what a training step asks of the device, backbone by backbone, and how often the host waits.

It is a step of the training loop on full batches, of the small classifier of `scale=mini`. A CPU is asked for nearly
what a GPU is: for four operations instead of one in dropout, and the gradients that are clipped one by one. What torch
checks inside of an operation is in no count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lra.benchmarks import options as read
from lra.benchmarks.mechanisms import factory
from lra.benchmarks.timing import Progress
from lra.configuration import backbones, compose_config, to_plain
from lra.errors import InputError
from lra.machine.distributed import World
from lra.machine.launches import LaunchCounter
from lra.records.benchmark_rows import OK, BenchmarkRow, LaunchesRow, load_rows
from lra.reports.report import terminal
from lra.runs.factory import make_classifier, make_trainer
from lra.tasks import Split
from lra.training.objectives import PRECISIONS
from lra.training.stepper import Stepper

OPTIONS = {
    "attn": "all", "length": "512", "batch": "2", "budget": "128", "precision": "fp32", "device": "cpu", "against": "",
}  # fmt: skip
PARTS = ("forward", "backward", "optimizer")
HEAD = ("backbone", *PARTS, "launches", "before", "waits", "waits before")
VOCABULARY = 256


def measure(options: Mapping[str, str]) -> Iterator[LaunchesRow]:
    """Read the options; return a row for each backbone."""
    names = read.chosen(options, "attn", backbones())
    if (precision := options["precision"]) not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}. Got {precision!r}.")
    length, batch, budget = (read.count(options, name) for name in ("length", "batch", "budget"))
    former = _former(options["against"])
    return _rows(names, length, batch, budget, precision, torch.device(options["device"]), former)


def _former(path: str) -> dict[str, LaunchesRow]:
    """Read the rows to compare with, by backbone."""
    rows = load_rows(Path(path)) if path else []
    if path and not all(isinstance(row, LaunchesRow) for row in rows):
        raise InputError(f"against={path} must be a file of the target launches.")
    return {row.backbone: row for row in rows if isinstance(row, LaunchesRow)}


def _rows(
    names: Sequence[str], length: int, batch: int, budget: int, precision: str, device: torch.device,
    former: Mapping[str, LaunchesRow],
) -> Iterator[LaunchesRow]:  # fmt: skip
    for name in Progress("launches", len(names)).over(names):
        row = count(name, length, batch, budget, precision, device)
        if before := former.get(name):
            row = replace(row, launches_before=sum(before.launches.values()), waits_before=sum(before.waits.values()))
        yield row


def count(name: str, length: int, batch: int, budget: int, precision: str, device: torch.device) -> LaunchesRow:
    """Count for the second step of a training, since the first makes what the optimiser keeps."""
    config = to_plain(compose_config("scale=mini"))
    sizes = {"vocab_size": VOCABULARY, "max_len": length, "num_classes": 2, "num_inputs": 1}
    trainer = make_trainer(config)
    stepper = Stepper(
        model=make_classifier(factory(name, budget), {**config["model"], "num_positions": None}, **sizes).to(device),
        split=_full(batch, length), max_len=length, device=device, world=World(), steps=trainer.steps,
        batch_size=batch, micro_batch=None, precision=precision, optimization=trainer.optimization,
        batching=trainer.batching,
    )  # fmt: skip
    stepper.prepare(compile=False)
    stepper.take(np.arange(batch))
    with LaunchCounter(device) as counter:
        stepper.take(np.arange(batch), counter.mark)
    launched, waited = ({part: counts[part] for part in PARTS} for counts in (counter.launched, counter.waited))
    return LaunchesRow(
        backbone=name, n=length, batch=batch, budget=budget, precision=precision, launches=launched, waits=waited
    )


def _full(examples: int, length: int) -> Split:
    """Make examples that need no padding."""
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, examples * length).astype(np.uint8)
    return Split(tokens, np.arange(examples + 1) * length, np.zeros(examples, np.int64))


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out a line for each backbone."""
    counted = [row for row in rows if isinstance(row, LaunchesRow) and row.status == OK]
    if not counted:
        return ""
    first = counted[0]
    return (
        f"A training step of two layers on {first.batch} sequences of {first.n:,} tokens, budget {first.budget}, "
        f"{first.precision}: operations that launch something on the device, and that the host waits for.\n"
        + terminal(HEAD, [_line(row) for row in counted])
    )


def _line(row: LaunchesRow) -> list[str]:
    launched, waited = sum(row.launches.values()), sum(row.waits.values())
    numbers = [*(row.launches[part] for part in PARTS), launched, row.launches_before, waited, row.waits_before]
    return [row.backbone, *("-" if one is None else f"{one:,}" for one in numbers)]
