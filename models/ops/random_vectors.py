"""Random directions of positive features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def orthogonal_vectors(draw: Callable[..., Tensor], num: int, dim: int, device: torch.device) -> Tensor:
    """Draw vectors (num, dim), orthogonal in blocks of `dim`, each with the norm of a Gaussian vector of its own.

    Args:
        draw: a mechanism's source of randomness, `Mechanism.draw`.
        num: how many.
        dim: their width.
        device: where they are made.
    """
    with torch.autocast(device.type, enabled=False):
        Q, R = torch.linalg.qr(draw("normal", (-(-num // dim), dim, dim), device))
        # The columns of Q times these signs are uniform over all orthogonal matrices.
        Q = Q * torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)[:, None]
        norms = draw("normal", (num, dim), device).norm(dim=-1, keepdim=True)
        return Q.mT.flatten(0, 1)[:num] * norms
