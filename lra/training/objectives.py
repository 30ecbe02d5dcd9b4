"""From a batch to logits and a loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lra.training.batching import Batch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_logits(model: nn.Module, batch: Batch, device: torch.device, precision: str) -> Tensor:
    """Run a batch through the model; (B, num_classes) in float32."""
    dtype = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        logits = model(batch.tokens.to(device, non_blocking=True), batch.mask.to(device, non_blocking=True))
    return logits.float()
