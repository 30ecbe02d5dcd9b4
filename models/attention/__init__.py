"""The contract of every attention mechanism, and nothing else."""

from __future__ import annotations

from inspect import signature
from typing import Any, ClassVar, Self, TypedDict

from torch import Tensor

from models.mechanism import Mechanism


class Sizes(TypedDict):
    """What every attention is told: heads H, width D of a head, longest sequence, dropout on weights."""

    num_heads: int
    head_dim: int
    max_len: int
    dropout: float


class Attention(Mechanism):
    """Base class of all mechanisms: a map from (q, k, v, mask) to a tensor of the shape of q.

    `models.mixers.multi_head` owns the projections and the split into heads, and makes a mixer of the mechanism; the
    encoder's blocks own residuals and norms. A mechanism owns what lies between the projected heads and the merged
    output, its scaling included. It promises:

    - padded content (where `mask` is False) never reaches a real row, not even by a rounding error;
    - a sequence's result depends neither on its batch mates nor on how much padding follows it, draws held fixed;
    - any mask is accepted: holes, a single real token, none at all; padded rows come out finite but unspecified;
    - any length up to `max_len` is accepted: a mechanism that needs a divisible length pads and crops inside;
    - randomness comes only from `draw`, and from dropout; the shapes drawn depend only on the shapes of the inputs;
    - no value is read back from the device, and no device is named.

    Attributes:
        exact: True if the mechanism computes softmax attention itself; the contract tests then compare the two.
        identity_on_one: True if a sequence's only real token receives its own value.
        shared_qk: True if queries and keys come from one projection (Reformer).
        unread: which of "query" and "key" it never reads.
        takes_bias: True if `forward` takes as `bias` what is added to its scores, a `models.ops.biased_attention.Bias`.
        projection_bias: False if queries, keys and values are projections without a bias.
    """

    exact: ClassVar[bool] = False
    identity_on_one: ClassVar[bool] = True
    shared_qk: ClassVar[bool] = False
    unread: ClassVar[tuple[str, ...]] = ()
    takes_bias: ClassVar[bool] = False
    projection_bias: bool = True

    def __init__(self, *, num_heads: int, head_dim: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.max_len = max_len
        self.dropout = dropout

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            q: queries (B, H, L, D).
            k: keys (B, H, L, D).
            v: values (B, H, L, D).
            mask: (B, L) bool, True on real tokens.

        Returns:
            (B, H, L, D); rows of padded positions are finite but unspecified.
        """
        raise NotImplementedError

    def diagnostics(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Measure what the mechanism does on inputs of `forward`, at any cost; scalars by name, no gradient."""
        return {}

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Refuse options that the class does not have: for a misspelt one Python would only name another as missing.

        Raises:
            TypeError: no constructor of the class, or of its bases, names the option.
        """
        parameters = [p for base in cls.__mro__ for p in signature(base.__init__).parameters.values()]  # type: ignore[misc]
        names = dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        if unknown := [name for name in options if name not in names]:
            known = [name for name in names if name not in ("self", *Sizes.__annotations__)]
            raise TypeError(f"{cls.__name__} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}.")
        return super().__new__(cls)
