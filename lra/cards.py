"""The cards of mechanisms (`models.mechanism.Card`) by the names of `attn=`, and the order of their families.

A mechanism is found as Hydra finds it, by the `_target_` of its file, so that nothing here names one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf

from lra.configuration import CONFIGS

ATTN = CONFIGS / "attn"
EXACT = "exact softmax"
OTHERS = "others"
# The order in which figures and the page show families. A family that is not named here comes after these.
FAMILIES = (
    "Skeinformer", "floors", "low rank", "sampled queries", "feature maps", "windows and blocks", "sparse patterns",
    "multilevel", "hashing", "predicted sparsity", "distance bias", "synthesizer", "Fourier", "convolution",
    "recurrence", "state space", "selective state space", "gated", EXACT,
)  # fmt: skip


@cache
def class_of(attn: str) -> type | None:
    """Find the class that a name of `attn=` stands for; None for a name that has no file, as of an imported record."""
    path = ATTN / f"{attn}.yaml"
    return get_class(OmegaConf.load(path)._target_) if path.is_file() else None


def card_of(attn: str) -> Any:
    """Return the `models.mechanism.Card` of a name of `attn=`; None if it has none."""
    return getattr(class_of(attn), "card", None)


def family_of(attn: str) -> str:
    """Name the family of a mechanism; what has no card is among the others."""
    card = card_of(attn)
    return OTHERS if card is None else card.family


def is_near_linear(time: str) -> bool:
    """Say whether an O(...) in a card's `time`, of some setting at least, is O(L) or O(L log L) but for other letters.

    What grows faster has a power or a root of L in it, or L / b, a number of blocks.
    """
    orders = [order.replace("log L", "") for order in re.findall(r"O\((?:[^()]|\([^()]*\))*\)", time)]
    return any("L" in order and not re.search(r"L\^|sqrt|L /", order) for order in orders)


def families_of(names: Iterable[str]) -> list[str]:
    """Name the families of mechanisms, each once, in their order: new ones by name, others last."""
    families = {family_of(name) for name in names}
    unlisted = sorted(families.difference(FAMILIES, [OTHERS]))
    return [family for family in (*FAMILIES, *unlisted, OTHERS) if family in families]
