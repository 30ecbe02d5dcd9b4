"""What a model is trained for and judged by: from a batch to a summed loss and the number of right answers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lra.training.batching import Batch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Score(NamedTuple):
    """How a model did on a batch; the tensors stay on its device. Scores of parts of a batch add up to the batch's.

    Attributes:
        loss: (), float32: the cross-entropies in nats, summed.
        hits: (), int64: how many predictions are right.
        num_predictions: how many there are.
        predictions: (B,), int64: the predicted classes.
    """

    loss: Tensor
    hits: Tensor
    num_predictions: int
    predictions: Tensor


def classify(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Score:
    """Run a batch through the model and score the classes that it predicts."""
    return score(compute_logits(model, batch, device, precision), batch.labels)


def compute_logits(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Tensor:
    """Run a batch through the model, in a precision of PRECISIONS; (B, num_classes) in float32."""
    dtype = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        logits = model(batch.tokens.to(device, non_blocking=True), batch.mask.to(device, non_blocking=True))
    return logits.float()


def score(logits: Tensor, labels: Tensor) -> Score:
    """Score logits, (B, num_classes), by labels, (B,), which may be on another device."""
    labels = labels.to(logits.device, non_blocking=True)
    predictions = logits.argmax(-1)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return Score(loss, (predictions == labels).sum(), len(labels), predictions)
