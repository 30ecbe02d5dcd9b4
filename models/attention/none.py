"""Every token keeps its own value: no mixing between tokens at all, the floor below the mean of the values.

The "none" attention of the code of YOSO (Zeng et al. 2021, arXiv 2111.09714; github.com/mlpen/YOSO). Time and memory
O(L), none of its own. It is softmax attention whose mask lets each token see only itself. No gradient reaches queries
or keys.

Oracle: none found; none is needed for the identity, and softmax attention that sees only itself stands in.
"""

from __future__ import annotations

from torch import Tensor

from models.attention import Attention


class NoneAttention(Attention):
    """The values, unchanged."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        return v
