"""The mechanisms that are measured, by the names of `attn=`: how one is made, and which are attentions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.utils import instantiate

from lra.configuration import compose_config
from lra.runs.factory import check_mechanism
from models.attention import Attention
from models.mechanism import Mechanism

HEADS, HEAD_DIM = 2, 32  # of the encoder in every protocol but LRA's own
WIDTH = HEADS * HEAD_DIM

Factory = Callable[..., Mechanism]
AttentionFactory = Callable[..., Attention]


def factory(name: str, budget: int, *overrides: str) -> Any:
    """Return what makes a mechanism: an attention from heads, a mixer from its width.

    It is the mechanism itself, under the protocol that changes none.
    """
    return instantiate(compose_config(f"attn={name}", f"budget={budget}", "protocol=controlled", *overrides).attn)


def makes_attention(make: Factory) -> bool:
    """Say whether what is made is an attention; else it is a mixer.

    Raises:
        InputError: it is neither.
    """
    return issubclass(check_mechanism(make.func if isinstance(make, partial) else make), Attention)
