"""The target `data`: preparing a task, making batches of it, padding, and the wait for a batch in training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from lra.benchmarks import options as read
from lra.benchmarks.quantities import Quantity, timed
from lra.benchmarks.timing import Progress
from lra.configuration import compose_config, to_plain
from lra.errors import InputError
from lra.runs.factory import make_model
from lra.tasks import Split, Task
from lra.training.batching import Batching
from models.classifier import Classifier

TASKS = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
OPTIONS = {"tasks": "all", "repeats": "3"}
# What would take minutes to draw is measured on fewer examples; the rest is prepared as published.
FEWER = {
    "pathfinder": ["task.num_train=2000", "task.num_val=100", "task.num_test=100"],
    "pathx": ["task.num_train=100", "task.num_val=20", "task.num_test=20"],
}
BATCH_SIZE = 32
STEP_BATCH_SIZE = 8
NUM_BATCHES = 100
PACKINGS = {
    "padded to the longest of the task": Batching(padding="max", bucket_batches=1, mask_zero=False),
    "padded to the longest of the batch": Batching(padding="batch", bucket_batches=1, mask_zero=False),
    "the same, sorted in buckets": Batching(padding="batch", bucket_batches=32, mask_zero=False),
}


def measure(options: Mapping[str, str]) -> Iterator[Quantity]:
    """Read the options; measure every task whose raw data are at hand, and name the others."""
    return _measure(read.chosen(options, "tasks", TASKS), read.count(options, "repeats"))


def _measure(names: Sequence[str], repeats: int) -> Iterator[Quantity]:
    for name in Progress("data", len(names)).over(names):
        cfg = compose_config(f"task={name}", "scale=full", *FEWER.get(name, []))
        with tempfile.TemporaryDirectory() as folder:
            task: Task = instantiate(cfg.task)(cache_dir=folder)
            start = time.perf_counter()
            try:
                task.prepare()
            except InputError as error:
                yield Quantity(f"{name}: not at hand", float("nan"), "", str(error))
                continue
            seconds = time.perf_counter() - start
            sizes = task.describe()["sizes"]
            yield Quantity(
                f"{name}: prepare", sum(sizes.values()) / seconds, f"{name} examples/s prepared", f"{seconds:.1f} s"
            )
            yield from batches(name, task, repeats)
            if np.ptp(np.diff(task.split("train").offsets)):
                yield from packing(name, task, cfg, repeats)
        yield from waiting(name)


def batches(name: str, task: Task, repeats: int) -> Iterator[Quantity]:
    """Measure random batches from a mapped cache entry, against torch's DataLoader over a list of examples."""
    split = task.split("train")
    batching = PACKINGS["padded to the longest of the batch"]
    count = min(NUM_BATCHES, len(split.labels) // BATCH_SIZE)
    index = np.random.default_rng(0).permutation(len(split.labels))[: count * BATCH_SIZE].reshape(count, BATCH_SIZE)

    def gather() -> None:
        for row in index:
            batching.gather(split, row, task.max_len)

    examples = [example(split, task.num_inputs, n) for n in index.ravel().tolist()]
    loader: DataLoader[Any] = DataLoader(examples, BATCH_SIZE, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]

    def load() -> None:
        for _ in loader:
            pass

    unit, note = f"{name} examples/s", f"batches of {BATCH_SIZE} at the published length, one process"
    yield Quantity(f"{name}: DataLoader over a list", index.size / timed(load, repeats), unit, note)
    yield Quantity(f"{name}: lra.training.batching", index.size / timed(gather, repeats), unit, note)


def example(split: Split, inputs: int, n: int) -> tuple[list[torch.Tensor], int]:
    """Copy one example out, as a data set that is a list holds it."""
    bounds = split.offsets[n * inputs : (n + 1) * inputs + 1]
    sequences = [torch.tensor(split.tokens[a:b]) for a, b in pairwise(bounds)]
    return sequences, int(split.labels[n])


def collate(rows: list[tuple[list[torch.Tensor], int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad a list of examples."""
    sequences = [sequence for row, _ in rows for sequence in row]
    tokens = pad_sequence(sequences, batch_first=True)
    sizes = torch.tensor([len(sequence) for sequence in sequences])
    return tokens, torch.arange(tokens.shape[1]) < sizes[:, None], torch.tensor([label for _, label in rows])


def packing(name: str, task: Task, cfg: DictConfig, repeats: int) -> Iterator[Quantity]:
    """Measure what padding costs a training step of the softmax encoder."""
    split, model, steps = task.split("train"), build(task, cfg), 4
    for text, batching in PACKINGS.items():
        indices = batching.training(split, STEP_BATCH_SIZE, seed=0)
        every = [batching.gather(split, index, task.max_len) for index in islice(indices, 32)]
        # A window of buckets holds short batches and long ones: of these, a few evenly spread over the sizes.
        drawn = sorted(every, key=lambda batch: batch.mask.shape[-1])[32 // steps // 2 :: 32 // steps]

        def train(drawn: list = drawn) -> None:
            for batch in drawn:
                model(batch.tokens, batch.mask).logsumexp(-1).sum().backward()

        real = sum(int(batch.mask.sum()) for batch in every) / sum(batch.mask.numel() for batch in every)
        note = f"{real:.0%} of the positions are real; softmax, batches of {STEP_BATCH_SIZE}"
        yield Quantity(f"{name}: {text}", timed(train, repeats) / steps * 1e3, f"{name} ms/step", note)


def waiting(name: str) -> Iterator[Quantity]:
    """Measure the share of a training step at scale=mini that makes its batch, in the process that trains."""
    cfg = compose_config(f"task={name}", "scale=mini")
    task: Task = instantiate(cfg.task)(cache_dir=cfg.cache_dir)
    split, model = task.split("train"), build(task, cfg)
    batching = Batching(**cfg.data)
    indices, waits, steps = batching.training(split, cfg.trainer.batch_size, seed=0), [], []
    for _ in range(65):
        start = time.perf_counter()
        batch = batching.gather(split, next(indices), task.max_len)
        ready = time.perf_counter()
        model(batch.tokens, batch.mask).logsumexp(-1).sum().backward()
        waits.append(ready - start)
        steps.append(time.perf_counter() - start)
    yield Quantity(
        f"{name}: making the batch", 100 * sum(waits[1:]) / sum(steps[1:]), f"{name} % of a step", "softmax, scale=mini"
    )


def build(task: Task, cfg: DictConfig) -> Classifier:
    """Build the softmax encoder for a task."""
    return make_model(to_plain(cfg), task)
