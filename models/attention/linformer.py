"""Linformer: softmax attention over keys and values projected along the length, and its unreduced control.

Wang et al. 2020, "Linformer: Self-Attention with Linear Complexity", arXiv 2006.04768.

Departures from the code that ran Nystromformer's and Skeinformer's tables (github.com/mlpen/Nystromformer,
github.com/pkuzengqi/Skeinformer): each layer has its own E, where theirs have one for all (`share_layers`), and E is
registered, so it is trained and saved on every device. As there, keys and values share E, each head has its own, and
the projected keys are not masked: padding is removed before the projection, and shorter inputs use the first columns.
Departure from the LRA code (arXiv 2011.04006) besides: no dropout on the attention weights. The projected keys and
values have the inputs' precision.

The "unreduced JLT" of Chen et al. 2022 (arXiv 2112.05359) applies a Gaussian sketch S to the whole softmax matrix B:
B S S^T V. It shows what the sketch alone costs in accuracy, not a way to save time. S S^T V comes first, so B is never
stored and softmax attention is applied to values that were sketched. No implementation was released; here S is drawn
afresh at every call, for each head, and shared by the batch.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast

INIT_STD = 0.02  # of E, as in the code of Nystromformer and Skeinformer


class LinformerAttention(Attention):
    """softmax(Q (E K)^T / sqrt(D)) E V.

    Args:
        proj_len: k, the number of projected keys.
        share_layers: all layers of an encoder have one E.
    """

    card: ClassVar[Card] = Card(
        what="Linformer: softmax attention over keys and values projected along the length",
        family="low rank",
        time="O(L k) for k = `proj_len`",
        memory="O(L k)",
        paper="2006.04768",
        exact="E is the identity (k = L)",
        oracle="linformer LinformerSelfAttention, outputs and gradients on the same projections",
    )

    identity_on_one: ClassVar[bool] = False  # a lone value comes out as a mixture of E v

    def __init__(self, *, proj_len: int, share_layers: bool = False, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        at_least(1, proj_len=proj_len)
        self.shared = ("E",) if share_layers else ()
        self.E = nn.Parameter(torch.empty(self.num_heads, proj_len, self.max_len))
        nn.init.normal_(self.E, std=INIT_STD)

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        E = self.E[..., : q.shape[2]].to(dtype)
        # Keys and values of all sequences side by side: one copy, and one product for each head.
        X = torch.cat([x.permute(1, 2, 0, 3) for x in (k, v)], -1)  # (H, L, B, 2 D)
        X = X.masked_fill_(~mask.T[None, :, :, None], 0).flatten(2).to(dtype)
        K, V = (E @ X).to(q.dtype).unflatten(-1, (q.shape[0], -1)).permute(2, 0, 1, 3).chunk(2, -1)
        return F.scaled_dot_product_attention(q, K, V)


class UnreducedJLTAttention(Attention):
    """softmax(Q K^T / sqrt(D)) S S^T V with S (L, k) Gaussian of variance 1 / k, so that E[S S^T] = I.

    Args:
        proj_len: k, the width of the sketch.
    """

    card: ClassVar[Card] = Card(
        what="Linformer's unreduced control: softmax attention to values sketched with a random matrix S",
        family="low rank",
        time="O(L^2)",
        memory="O(L k) for k = `proj_len`",
        paper="2112.05359",
        exact="S is orthogonal",
        oracle="none found; exact softmax attention where S is orthogonal stands in",
    )

    identity_on_one: ClassVar[bool] = False  # a lone value comes out times s . s, which is 1 on average

    def __init__(self, *, proj_len: int, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        at_least(1, proj_len=proj_len)
        self.proj_len = proj_len

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(v)
        S = self.draw("normal", (self.num_heads, q.shape[2], self.proj_len), q.device).to(dtype)
        V = v.masked_fill(~mask[:, None, :, None], 0).to(dtype)
        sketched = torch.einsum("hlm,bhld->bhmd", S, V) / self.proj_len
        sketched = torch.einsum("hlm,bhmd->bhld", S, sketched)
        return F.scaled_dot_product_attention(q, k, sketched.to(v.dtype), attn_mask=real_keys(mask))
