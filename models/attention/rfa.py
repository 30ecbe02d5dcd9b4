"""Random Feature Attention: a Gaussian kernel of unit queries and keys, through random sines and cosines.

Peng, Pappas, Yogatama, Schwartz, Smith, Kong 2021, "Random Feature Attention", arXiv 2103.02143, without gate. With
x = q or k over its norm, phi(x) = [sin(w_1 . x), cos(w_1 . x), ..., sin(w_M . x), cos(w_M . x)] / sqrt(M) and
w = sigma * (a standard normal vector): on average phi(x) . phi(y) = exp(-|sigma * (x - y)|^2 / 2). For equal sigma that
is, up to a factor that cancels, the exponential of sigma^2 times the cosine of q and k, so as M grows it nears softmax
attention over such cosines. Sigma is learned, a number for each head and dimension, as in the paper.

Random vectors are drawn anew at every call in training, for each head; evaluation keeps the last ones, which are saved
with the weights.

Estimates may be negative, and a row's sum may pass through 0: its magnitude is kept at 1e-3, a thousandth of what an
equal key adds, and its sign stays.

Departures from the authors' code, as others have published it: vectors are drawn at every call, not chosen among some
drawn beforehand; norms have no 1e-3 added; there the sum of a row is raised to a constant that differs between copies
(0.001 to 1), after its sign is dropped in some.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import at_least, positive
from models.mechanism import Card
from models.ops.feature_sums import attend_features
from models.ops.precision import accumulation_dtype

LEAST_SUM = 1e-3  # of a row's weights, in magnitude


class RandomFeatureAttention(Attention):
    """Attention with random trigonometric features.

    Args:
        num_features: M, random vectors of each head; each has a sine and a cosine.
        sigma: what its learned scales start from. The logits of the softmax that is neared are sigma^2 cos(q, k).

    Raises:
        ValueError: an option has a value it cannot have.
    """

    card: ClassVar[Card] = Card(
        what="Random Feature Attention: a Gaussian kernel of unit queries and keys, through random sines and cosines",
        family="feature maps",
        time="O(L M) for M = `num_features`",
        memory="O(L + M)",
        paper="2103.02143",
        oracle="none found; the explicit weights over all pairs, and the kernel that is their mean, stand in",
    )

    projection: Tensor

    def __init__(self, *, num_features: int, sigma: float = 1.0, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        at_least(1, num_features=num_features)
        positive(sigma=sigma)
        self.num_features = num_features
        self.sigma = nn.Parameter(torch.full((self.num_heads, 1, self.head_dim), float(sigma)))
        self.register_buffer("projection", self._draw_projection(torch.empty(0).device))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        W = self.projection
        if self.training:
            W = self._draw_projection(q.device)
            self.projection.copy_(W)
        dtype = accumulation_dtype(q)
        features = _Trigonometric(self.sigma.to(dtype) * W.to(dtype))
        return attend_features(features, 2 * self.num_features, q, k, v, mask, least=LEAST_SUM)

    def _draw_projection(self, device: torch.device) -> Tensor:
        return self.draw("normal", (self.num_heads, self.num_features, self.head_dim), device)


class _Trigonometric:
    """sin(w . x) and cos(w . x) over sqrt(M), of x over its norm; W (H, M, D)."""

    def __init__(self, W: Tensor) -> None:
        self.W = W

    def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        phi = self.queries(k, k)
        return phi, phi.new_zeros(1, 1, 1, phi.shape[-1])

    def queries(self, q: Tensor, shift: Tensor) -> Tensor:
        angles = F.normalize(q, dim=-1) @ self.W.mT
        return torch.cat([angles.sin(), angles.cos()], -1) * self.W.shape[1] ** -0.5
