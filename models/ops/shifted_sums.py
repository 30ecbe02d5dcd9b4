"""Sums of positive weights that no exponent can overflow: the exponent that they share is kept beside them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ShiftedSums(NamedTuple):
    """Sums (..., n, C) of weights times rows, the weights divided by exp(shift), (..., n, 1), which has no gradient."""

    values: Tensor
    shift: Tensor

    def plus(self, other: ShiftedSums) -> ShiftedSums:
        """Add the sums of other rows."""
        shift = torch.maximum(self.shift, other.shift)
        values = (x.values * (x.shift - shift).exp() for x in (self, other))
        return ShiftedSums(torch.add(*values), shift)
