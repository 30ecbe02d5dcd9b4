"""Performer: attention through random features whose kernel is softmax's on average (FAVOR+), or through relu features.

Choromanski et al. 2021, "Rethinking Attention with Performers", arXiv 2009.14794. With the softmax
kernel the weight of each pair is an unbiased estimate of exp(q . k / sqrt(D)), so it nears softmax attention as the
number of features grows; at any number it equals its own explicit form.

Random vectors are orthogonal in blocks of D, with the norms of Gaussian ones, and shared by heads and sequences. They
are drawn anew at every call in training; evaluation keeps the last ones, which are saved with the weights.

The LRA code (arXiv 2011.04006) draws vectors anew at every call, at evaluation too: `redraw_at_evaluation`. There their
seed is made of the sum of the queries, so that a batch repeats its own; here they are fresh draws. It gets the mask and
never reads it, so that padding is seen there, and on Pathfinder the black pixels.

Departures from performer-pytorch (github.com/lucidrains/performer-pytorch), which Nystromformer's and Skeinformer's
tables ran:
- vectors are redrawn (there, never unless an updater is attached), and `redraw: false` restores that;
- queries and keys are divided by D^(1/4) once; those code bases did so before they called it, too, so that their
  logits are q . k / D: `scale_twice`;
- blocks are Haar-distributed: signs of the QR factor are fixed, without which features are biased;
- no 1e-4 added to exponential features: nothing can underflow here (see `models.ops.feature_sums`). relu features keep
  their 1e-3, which is part of them;
- the factor exp(-|q|^2 / 2) of a query, which cancels, is left out; padding has no features.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor

from models.attention import Attention, Sizes
from models.checks import at_least, one_of
from models.mechanism import Card
from models.ops.feature_sums import FeatureMap, attend_features, exponential_keys, exponential_queries
from models.ops.precision import accumulation_dtype
from models.ops.random_vectors import orthogonal_vectors

Kernel = Literal["softmax", "relu"]

RELU_EPSILON = 1e-3  # of the generalised attention of the authors' code


class PerformerAttention(Attention):
    """Attention with positive random features.

    Args:
        num_features: M.
        kernel: "softmax", exp(w . x - |x|^2 / 2), or "relu", relu(w . x) + 1e-3, of x = q or k over D^(1/4).
        redraw: draw new random vectors at every call in training.
        redraw_at_evaluation: and at every call in evaluation, so that its result depends on the seed and the batches.
        scale_twice: divide queries and keys by D^(1/4) twice.

    Raises:
        ValueError: an option has a value it cannot have, or vectors are redrawn at evaluation alone.
    """

    card: ClassVar[Card] = Card(
        what="Performer: attention through random features whose kernel is softmax's on average (FAVOR+), or through "
        "relu features",
        family="feature maps",
        time="O(L M) for M = `num_features`",
        memory="O(L + M)",
        paper="2009.14794",
        oracle="performer-pytorch FastAttention, outputs and gradients of both kernels on the same projection",
    )

    projection: Tensor

    def __init__(
        self,
        *,
        num_features: int,
        kernel: Kernel = "softmax",
        redraw: bool = True,
        redraw_at_evaluation: bool = False,
        scale_twice: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(1, num_features=num_features)
        one_of(get_args(Kernel), kernel=kernel)
        self.num_features = num_features
        self.kernel = kernel
        if redraw_at_evaluation and not redraw:
            raise ValueError("redraw_at_evaluation must be false with redraw=false. Got true.")
        self.redraw = redraw
        self.redraw_at_evaluation = redraw_at_evaluation
        self.power = 0.5 if scale_twice else 0.25
        self.register_buffer("projection", self._draw_projection(torch.empty(0).device))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        W = self.projection
        if self.redraw and (self.training or self.redraw_at_evaluation):
            W = self._draw_projection(q.device)
        if self.redraw and self.training:
            self.projection.copy_(W)
        scale = self.head_dim**-self.power
        W = W.to(accumulation_dtype(q)) * scale
        features: FeatureMap = (
            _Exponential(W, self.head_dim ** (-2 * self.power)) if self.kernel == "softmax" else _Relu(W)
        )
        return attend_features(features, self.num_features, q, k, v, mask)

    def _draw_projection(self, device: torch.device) -> Tensor:
        """Draw W (M, D): orthogonal blocks, each row with the norm of a Gaussian vector of its own."""
        return orthogonal_vectors(self.draw, self.num_features, self.head_dim, device)


class _Exponential:
    """exp(w . x - |x|^2 / 2) of x = q or k times a scale, by which W is multiplied already."""

    def __init__(self, W: Tensor, squared_scale: float) -> None:
        self.W = W
        self.squared_scale = squared_scale

    def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # One column more makes one product of features, norms and mask.
        norms = k.square().sum(-1, keepdim=True) * (-0.5 * self.squared_scale)
        k = torch.cat([k, norms.masked_fill(~mask, -torch.inf)], -1)
        return exponential_keys(k @ torch.cat([self.W, torch.ones_like(self.W[:, :1])], -1).mT)

    def queries(self, q: Tensor, shift: Tensor) -> Tensor:
        W = torch.cat([self.W.mT.expand(*q.shape[:2], -1, -1), shift], 2)
        return exponential_queries(torch.cat([q, torch.ones_like(q[..., :1])], -1) @ W)


class _Relu:
    """relu(w . x) + 1e-3, with W multiplied by the scale."""

    def __init__(self, W: Tensor) -> None:
        self.W = W

    def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.queries(k, k), k.new_zeros(1, 1, 1, len(self.W))

    def queries(self, q: Tensor, shift: Tensor) -> Tensor:
        return (q @ self.W.mT).relu_() + RELU_EPSILON
