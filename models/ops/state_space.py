"""What linear state space models share: eigenvalues of HiPPO-LegS, and discretisation of diagonal systems.

A model x' = A x + B u, y = Re(C x) with real inputs and outputs has eigenvalues in conjugate pairs, of which one is
kept: N states are N / 2 complex numbers, and the real part is taken twice. Complex parameters are stored as real ones
whose last dimension is (real, imaginary), since autocast, weight decay and changes of precision know only real numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hippo_legs(num_states: int) -> tuple[Tensor, Tensor]:
    """Diagonalise the normal part of HiPPO-LegS, A = V (diag(lambda) - p p*) V*, B = V b (arXiv 2111.00396, Theorem 1).

    All eigenvalues have the real part -1/2. Eigenvectors are turned so that p is positive, and then b = sqrt(2) p.

    Args:
        num_states: N, even.

    Returns:
        The imaginary parts of the N / 2 eigenvalues above 0, increasing, and p (N / 2), both float64.
    """
    n = torch.arange(num_states, dtype=torch.float64)
    low_rank = (n + 0.5).sqrt()
    products = low_rank[:, None] * low_rank
    skew = products.triu(1) - products.tril(-1)  # A + p p* + I / 2
    # The last eigenvalues of a Hermitian matrix are its largest: they come in increasing order.
    frequencies, vectors = torch.linalg.eigh(torch.complex(torch.zeros_like(skew), -skew))
    weights = (vectors.mH @ low_rank.to(vectors.dtype)).abs()
    return frequencies[num_states // 2 :], weights[num_states // 2 :]


def log_uniform(shape: tuple[int, ...], least: float, most: float) -> Tensor:
    """Draw the logarithms of numbers that are spread evenly over the orders of magnitude between two."""
    return torch.empty(shape).uniform_(math.log(least), math.log(most))


def complex_normal(*shape: int) -> Tensor:
    """Draw complex numbers of variance 1, as (..., 2)."""
    return torch.randn(*shape, 2) * math.sqrt(0.5)


def as_complex(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn real and imaginary parts (..., 2) of any precision into complex numbers whose parts have `dtype`."""
    return torch.view_as_complex(parts.to(dtype).contiguous())


def zero_order_hold(poles: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Discretise x' = a x + b u for inputs that are constant during a step.

    Returns:
        log(a_bar) = step a, and b_bar / b = (exp(step a) - 1) / a; complex, of the broadcast shape.
    """
    exponents = poles * step
    return exponents, torch.expm1(exponents) / poles
