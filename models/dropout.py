"""Dropout (Srivastava et al. 2014) that is quick on a CPU, where torch draws one Bernoulli number at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import checks


class Dropout(nn.Module):
    """Set a share `rate` of the entries to 0 in training, and scale the others so that the mean stays.

    On a CPU four entries share one 64-bit draw from torch's default generator, so the rate is rounded to a multiple of
    1 / 65,536; elsewhere this is torch's own.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        checks.rate(rate=rate)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        num_dropped = round(self.rate * 2**16)  # of the 65,536 values of 16 bits
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= num_dropped - 2**15
        return x * keep.to(x.dtype).mul_(2**16 / (2**16 - num_dropped))
