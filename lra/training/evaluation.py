"""One full pass over a split: every example once, none dropped, each with the same weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lra.machine.memory import is_out_of_memory
from lra.machine.seeds import mixed_seed
from lra.training.batching import Batch
from lra.training.objectives import CLASSES, Objective, Score
from lra.training.surroundings import Surroundings


class Evaluation(NamedTuple):
    """Mean loss, accuracy as a fraction, (N,) predicted classes; 0 where none are predicted."""

    loss: float
    accuracy: float
    predictions: NDArray[np.uint8]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[NDArray[np.int64], Batch]],
    num_examples: int,
    precision: str,
    seed: int,
    surroundings: Surroundings,
    objective: Objective = CLASSES,
) -> Evaluation:
    """Evaluate a model, with batches dealt out among the processes.

    The draws of stochastic mechanisms are seeded, batch by batch, and the random state of training is left as it was:
    evaluating twice, or with several processes, gives the same number and changes nothing that follows.

    Args:
        model: maps tokens (B, I, L) and mask (B, I, L) to logits.
        batches: all of a split, with the numbers of their examples.
        num_examples: of the split, N.
        precision: a name in PRECISIONS.
        seed: of the draws.
        surroundings: its device, world and stop are used.
        objective: what the model is judged by.

    Raises:
        StoppedError: a stop was requested.
    """
    device, world = surroundings.device, surroundings.world
    world.share_buffers(model)  # those that each process draws, or the first one would save others than are evaluated
    totals = torch.zeros(3, device=device, dtype=torch.float64)
    loss, hits, count = totals  # views, so that one message adds them up over processes
    predictions = torch.zeros(num_examples, device=device, dtype=torch.uint8)
    with _undisturbed(model, device):
        for number, (index, batch) in enumerate(batches):
            if number % world.size != world.rank:
                continue
            if world.size == 1:  # several would have to stop together
                surroundings.stop.check()
            torch.manual_seed(mixed_seed(seed, number))
            scored = _score_in_parts(objective, model, batch, device, precision)
            loss += scored.loss
            hits += scored.hits
            count += scored.num_predictions
            if scored.predictions is not None:
                predictions[torch.from_numpy(index).to(device)] = scored.predictions.to(torch.uint8)
    summed_loss, num_hits, num_predictions = world.sum(totals).tolist()
    num_predictions = max(num_predictions, 1)
    classes = world.sum(predictions).cpu().numpy()
    return Evaluation(summed_loss / num_predictions, num_hits / num_predictions, classes)


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate, and leave the model's mode and the random state as they were."""
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(was_training)


def _score_in_parts(
    objective: Objective, model: nn.Module, batch: Batch, device: torch.device, precision: str
) -> Score:
    """Score a batch, in halves if it does not fit into memory whole."""
    try:
        return objective.score(model, batch, device, precision)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(batch.labels) == 1:
            raise
    half = len(batch.labels) // 2
    halves = (Batch(*(x[part] for x in batch)) for part in (slice(None, half), slice(half, None)))
    first, second = (_score_in_parts(objective, model, part, device, precision) for part in halves)
    classes = None
    if first.predictions is not None and second.predictions is not None:
        classes = torch.cat([first.predictions, second.predictions])
    number = first.num_predictions + second.num_predictions
    return Score(first.loss + second.loss, first.hits + second.hits, number, classes)
