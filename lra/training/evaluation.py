"""One full pass over a split: every example once, none dropped, each with the same weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lra.machine.distributed import World
from lra.machine.memory import is_out_of_memory
from lra.machine.stopping import StopRequest
from lra.training.batching import Batch
from lra.training.objectives import compute_logits


class Evaluation(NamedTuple):
    """Mean loss, accuracy as a fraction, (N,) predicted classes."""

    loss: float
    accuracy: float
    predictions: NDArray[np.uint8]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    labels: NDArray[np.int64],
    batches: Iterable[tuple[NDArray[np.int64], Batch]],
    device: torch.device,
    precision: str,
    seed: int,
    stop: StopRequest | None = None,
    world: World | None = None,
) -> Evaluation:
    """Evaluate a model.

    The draws of stochastic mechanisms are seeded, batch by batch, and the random state of training is left as it was:
    evaluating twice, or with several processes, gives the same number and changes nothing that follows.

    Args:
        model: maps tokens (B, I, L) and mask (B, I, L) to logits.
        labels: (N,) of the split.
        batches: of the split, with the numbers of their examples.
        device: where the model is.
        precision: a name in PRECISIONS.
        seed: of the draws.
        stop: is looked at before each batch.
        world: the processes among which the batches are dealt out.

    Raises:
        StoppedError: a stop was requested.
    """
    world, stop = world or World(), stop or StopRequest()
    was_training = model.training
    model.eval()
    loss = torch.zeros((), device=device, dtype=torch.float64)
    predictions = torch.zeros(len(labels), device=device, dtype=torch.uint8)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for number, (index, batch) in enumerate(batches):
                if number % world.size != world.rank:
                    continue
                if world.size == 1:  # several would have to stop together
                    stop.check()
                torch.manual_seed((seed << 32) + number)
                logits = _in_parts(model, batch, device, precision)
                loss += F.cross_entropy(logits, batch.labels.to(device), reduction="sum")
                predictions[torch.from_numpy(index).to(device)] = logits.argmax(-1).to(torch.uint8)
    finally:
        model.train(was_training)
    found = world.sum(predictions).cpu().numpy()
    return Evaluation(world.sum(loss).item() / len(found), float((found == labels).mean()), found)


def _in_parts(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Tensor:
    """Run a batch through the model, in halves if it does not fit into memory whole."""
    try:
        return compute_logits(model, batch, device, precision)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(batch.labels) == 1:
            raise
    half = len(batch.labels) // 2
    halves = (Batch(*(x[part] for x in batch)) for part in (slice(None, half), slice(half, None)))
    return torch.cat([_in_parts(model, part, device, precision) for part in halves])
