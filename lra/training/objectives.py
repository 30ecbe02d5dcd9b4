"""What a model is trained for and judged by: from a batch to a summed loss and the number of right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lra.tasks import PARTS, Part
from lra.training.batching import Batch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
IGNORED = -100  # what cross-entropy takes for a target that does not count


class Score(NamedTuple):
    """How a model did on a batch; the tensors stay on its device. Scores of parts of a batch add up to the batch's.

    Attributes:
        loss: (), float32: the cross-entropies in nats, or the absolute errors, summed.
        hits: (): how many predictions are right; where numbers are predicted, what the squared errors leave of 1 each.
        num_predictions: how many there are.
        predictions: (B,), int64: the predicted classes; None where there are none.
    """

    loss: Tensor
    hits: Tensor
    num_predictions: int | Tensor
    predictions: Tensor | None = None


class Objective(Protocol):
    """What a training is for.

    Attributes:
        name: of the training, for progress bars.
        parts: the splits that it reads; without "test" nothing is tested.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[Part, ...]]

    def expected(self, batches: Sequence[Batch], batch_size: int) -> float:
        """Return how many predictions a step has in the mean; it divides their summed loss.

        Args:
            batches: the parts of this process's share of the step's examples.
            batch_size: examples of the step, over all processes.
        """
        ...

    def score(self, model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Score:
        """Run a batch through the model, in a precision of PRECISIONS, and score what it predicts."""
        ...


@dataclass(frozen=True)
class Classes:
    """The labels of a task, by cross-entropy and accuracy."""

    name: ClassVar[str] = "train"
    parts: ClassVar[tuple[Part, ...]] = PARTS

    def expected(self, batches: Sequence[Batch], batch_size: int) -> float:
        """See the protocol: one for each example."""
        return batch_size

    def score(self, model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Score:
        """See the protocol."""
        return classify(model, batch, device, precision)


CLASSES = Classes()


@dataclass(frozen=True)
class MaskedTokens:
    """Tokens that the model does not see, from all others (Devlin et al. 2019, arXiv 1810.04805, without its 80/10/10).

    Every real token is hidden with the same probability, independently; draws come from torch's generator. Losses are
    divided by the expected number of hidden tokens, not by their number, so that a token always weighs the same.

    Attributes:
        rate: the probability, between 0 and 1.
        numbers: None to predict symbols, by cross-entropy and accuracy; or the `mean` and the `std` of tokens that are
            numbers, to predict what these make of them, by the absolute error and R^2.
    """

    rate: float
    numbers: Mapping[str, float] | None = None
    name: ClassVar[str] = "pre-train"
    parts: ClassVar[tuple[Part, ...]] = ("train", "val")

    def expected(self, batches: Sequence[Batch], batch_size: int) -> float:
        """See the protocol."""
        return max(1.0, self.rate * sum(int(batch.mask.sum()) for batch in batches))

    def score(self, model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Score:
        """See the protocol."""
        tokens, mask = sequences(batch, device)
        hidden = (torch.rand(tokens.shape, device=device) < self.rate) & mask
        return score_tokens(compute(model, device, precision, tokens, mask, hidden), tokens, hidden, self.numbers)


@dataclass(frozen=True)
class NextTokens:
    """Every token from those before it, by a model in which no token sees a later one.

    Attributes:
        numbers: as `MaskedTokens` has it.
    """

    numbers: Mapping[str, float] | None = None
    name: ClassVar[str] = "pre-train"
    parts: ClassVar[tuple[Part, ...]] = ("train", "val")

    def expected(self, batches: Sequence[Batch], batch_size: int) -> float:
        """See the protocol: here it is their very number."""
        return max(1, sum(int(_has_next(batch.mask).sum()) for batch in batches))

    def score(self, model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Score:
        """See the protocol."""
        tokens, mask = sequences(batch, device)
        outputs = compute(model, device, precision, tokens, mask)
        return score_tokens(outputs[:, :-1], tokens[:, 1:], _has_next(mask), self.numbers)


def classify(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Score:
    """Run a batch through the model and score the classes that it predicts."""
    return score(compute_logits(model, batch, device, precision), batch.labels)


def compute_logits(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Tensor:
    """Run a batch through the model, in a precision of PRECISIONS; (B, num_classes) in float32."""
    tokens, mask = batch.tokens.to(device, non_blocking=True), batch.mask.to(device, non_blocking=True)
    return compute(model, device, precision, tokens, mask)


def compute(model: nn.Module, device: torch.device, precision: str, *inputs: Tensor) -> Tensor:
    """Run inputs on the device through the model, in a precision of PRECISIONS; the outputs are float32."""
    dtype = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        outputs = model(*inputs)
    return outputs.float()


def sequences(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the tokens and the mask of all inputs of a batch, one after the other, (B * I, L), on a device."""
    return tuple(x.flatten(0, 1).to(device, non_blocking=True) for x in (batch.tokens, batch.mask))  # type: ignore[return-value]


def score(logits: Tensor, labels: Tensor) -> Score:
    """Score logits, (B, num_classes), by labels, (B,), which may be on another device."""
    labels = labels.to(logits.device, non_blocking=True)
    predictions = logits.argmax(-1)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return Score(loss, (predictions == labels).sum(), len(labels), predictions)


def score_tokens(outputs: Tensor, tokens: Tensor, chosen: Tensor, numbers: Mapping[str, float] | None) -> Score:
    """Score what was predicted for the chosen tokens alone.

    Args:
        outputs: (B, L, vocab_size) logits, or (B, L, 1) numbers.
        tokens: (B, L), what is right.
        chosen: (B, L) bool.
        numbers: as `MaskedTokens` has it. The mean over the hits is R^2 about that mean, in units of that deviation.
    """
    count = chosen.sum()
    if numbers is None:
        targets = tokens.long().masked_fill(~chosen, IGNORED)
        loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return Score(loss, (outputs.argmax(-1) == targets).sum(), count)
    errors = outputs[..., 0] - (tokens.to(outputs.dtype) - numbers["mean"]) / numbers["std"]
    errors = errors.masked_fill(~chosen, 0)
    return Score(errors.abs().sum(), count - errors.detach().square().sum(), count)


def _has_next(mask: Tensor) -> Tensor:
    """Say which of the tokens (..., L - 1) are real and followed by a real one."""
    return mask[..., :-1] & mask[..., 1:]
