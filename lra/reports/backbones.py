"""Every backbone, from the card of its class: what it is, its cost, when it equals softmax attention, its paper."""

from __future__ import annotations

from typing import Any

from lra.cards import ATTN, card_of

HEAD = [
    "attn=",
    "family",
    "what it is",
    "time in length L",
    "memory",
    "equals softmax attention when",
    "oracle",
    "paper",
]


def names_by_card() -> dict[Any, list[str]]:
    """Return the names of `attn=` that share a card, by card; by None those without one."""
    names: dict[Any, list[str]] = {}
    for path in sorted(ATTN.glob("*.yaml")):
        names.setdefault(card_of(path.stem), []).append(path.stem)
    return names


def rows() -> list[list[str]]:
    """Lay out a row for each card."""
    return [[", ".join(f"`{name}`" for name in names), *_facts(card)] for card, names in names_by_card().items()]


def _facts(card: Any) -> list[str]:
    if card is None:
        return ["", "it has no card"] + [""] * (len(HEAD) - 3)
    return [card.family, card.what, card.time, card.memory, card.exact or "never", card.oracle, card.paper]


def markdown() -> str:
    """Lay out a Markdown table without padding, which cells of whole sentences would make 700 columns wide."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [HEAD, ["---"] * len(HEAD), *rows()])
