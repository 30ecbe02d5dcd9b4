"""Compile a model for a bounded number of shapes, ahead of the training, so that no step of it is a compilation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lra.errors import InputError
from lra.machine.memory import is_out_of_memory
from lra.tasks import Split
from lra.training.batching import LENGTH_MULTIPLE, Batching, lengths
from lra.training.objectives import CLASSES, Objective

# How many lengths batches are padded to: with fewer there is more padding, with more, minutes more of compilation.
NUM_LENGTHS = 6


def wanted(mode: bool | str, device: torch.device) -> bool:
    """Say whether to compile: "auto" does so on a GPU, where small models spend most time on launching kernels."""
    return device.type == "cuda" if mode == "auto" else bool(mode)


def bounded(batching: Batching, max_len: int) -> Batching:
    """Return a batching of the same batches that are padded to few lengths."""
    multiple = -(-max_len // (NUM_LENGTHS * LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
    return dataclasses.replace(batching, length_multiple=multiple)


def compiled(
    model: nn.Module,
    train: Split,
    batching: Batching,
    sizes: Iterable[int],
    max_len: int,
    device: torch.device,
    precision: str,
    objective: Objective = CLASSES,
) -> tuple[nn.Module, float]:
    """Compile the forward and backward pass for every shape that training can have.

    The random state and the model's buffers are left as they were, and no gradient remains.

    Args:
        model: to be compiled; it shares its weights with what is returned.
        train: the examples.
        batching: as `bounded` returns it.
        sizes: examples in a forward pass.
        max_len: of the task.
        device: where the model is.
        precision: a name in `lra.training.objectives.PRECISIONS`.
        objective: what the model is trained for.

    Returns:
        The compiled model, and the seconds that it took.

    Raises:
        InputError: the compiler fails, for example since the machine has none.
    """
    started = time.perf_counter()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # running statistics of batch norms
    fast: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _telling_failures():
        for size in sorted(set(sizes)):
            for example in _one_of_each_length(train, batching):
                batch = batching.gather(train, np.full(size, example), max_len)
                objective.score(fast, batch, device, precision).loss.backward()
    for buffer, before in buffers:
        buffer.copy_(before)
    model.zero_grad(set_to_none=True)
    return fast, time.perf_counter() - started


@contextmanager
def _telling_failures() -> Iterator[None]:
    """Turn a failure of the compiler into an InputError, and a lack of memory into the error that it is."""
    from torch._dynamo.exc import BackendCompilerFailed  # takes a second, which is saved where nothing is compiled

    try:
        yield
    except BackendCompilerFailed as error:
        cause = error.inner_exception
        if is_out_of_memory(cause):
            raise cause from error
        reason = str(cause) or type(cause).__name__
        raise InputError(
            f"torch.compile fails here: {reason.splitlines()[0]}. It needs a C++ compiler, and room in TMPDIR=. "
            "Without it: trainer.compile=false."
        ) from error


def _one_of_each_length(train: Split, batching: Batching) -> NDArray[np.int64]:
    """Return an example for each length that batches are padded to."""
    by_length = np.argsort(lengths(train, np.arange(len(train.labels))), kind="stable")
    if batching.padding == "max":
        return by_length[-1:]
    multiples = -(-lengths(train, by_length) // batching.length_multiple)
    # A batch of the last example of a length class is padded to the length of that class.
    return by_length[np.append(np.diff(multiples), 1) > 0]
