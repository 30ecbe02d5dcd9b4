"""Attention through feature maps in its explicit, quadratic form: weights phi(q_i) . phi(k_j) over their row sum."""

from __future__ import annotations

import torch
from torch import Tensor


def feature_map_attention(phi_q: Tensor, phi_k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend, given the features (B, H, L, M) of queries and keys. Padded rows are zero."""
    weights = (phi_q @ phi_k.mT) * mask[:, None, None]
    out = weights @ v / weights.sum(-1, keepdim=True)
    return torch.where(mask[:, None, :, None], out, 0)


def softmax_features(x: Tensor, W: Tensor) -> Tensor:
    """Choromanski et al. 2021, Eq. 5: E[phi(q) . phi(k)] = exp(q . k / sqrt(D)) for Gaussian rows of W (M, D)."""
    x = x / x.shape[-1] ** 0.25
    return (x @ W.T - x.square().sum(-1, keepdim=True) / 2).exp() / len(W) ** 0.5


def relu_features(x: Tensor, W: Tensor) -> Tensor:
    """The generalised attention of the authors' code."""
    return (x / x.shape[-1] ** 0.25 @ W.T).relu() + 1e-3


def elu_features(x: Tensor) -> Tensor:
    """Katharopoulos et al. 2020, Eq. 7."""
    return torch.nn.functional.elu(x) + 1
