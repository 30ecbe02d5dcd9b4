"""Every token keeps its own value: no mixing between tokens at all, the floor below the mean of the values.

The "none" attention of the code of YOSO (Zeng et al. 2021, arXiv 2111.09714; github.com/mlpen/YOSO). It is
softmax attention whose mask lets each token see only itself. No gradient reaches queries or keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from models.attention import Attention
from models.mechanism import Card


class NoneAttention(Attention):
    """The values, unchanged."""

    unread: ClassVar[tuple[str, ...]] = ("query", "key")

    causal_settings: ClassVar[Mapping[str, bool] | None] = MappingProxyType({})  # no token sees any other
    card: ClassVar[Card] = Card(
        what="Every token keeps its own value: no mixing between tokens at all, the floor below the mean of the values",
        family="floors",
        time="O(L), none of its own",
        memory="O(L), none of its own",
        paper="2111.09714",
        oracle="none found; none is needed for the identity, and softmax attention that sees only itself stands in",
    )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        return v
