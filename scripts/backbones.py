"""List every backbone from the card of its class: python scripts/backbones.py [results_dir=results].

Writes `tables/backbones.md`: the names of `attn=`, what each is, its cost, when it equals softmax attention, which
independent implementation checks it, its paper.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lra.arguments import help_if_asked, parse
from lra.cards import ATTN, card_of
from lra.errors import InputError
from lra.files import write_atomically
from models.mechanism import Card

HEAD = ["attn=", "what it is", "time in length L", "memory", "equals softmax attention when", "oracle", "paper"]


def names_by_card() -> dict[Card | None, list[str]]:
    """Find the card of every name of `attn=`, with the names that share it; None for those without."""
    names: dict[Card | None, list[str]] = {}
    for path in sorted(ATTN.glob("*.yaml")):
        names.setdefault(card_of(path.stem), []).append(path.stem)
    return names


def rows() -> list[list[str]]:
    """Lay out a row for each card."""
    return [[", ".join(f"`{name}`" for name in names), *_facts(card)] for card, names in names_by_card().items()]


def _facts(card: Card | None) -> list[str]:
    if card is None:
        return ["it has no card"] + [""] * (len(HEAD) - 2)
    return [card.what, card.time, card.memory, card.exact or "never", card.oracle, card.paper]


def markdown(lines: list[list[str]]) -> str:
    """Lay out a Markdown table without padding: cells of whole sentences would make it 700 columns wide."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    help_if_asked(__doc__)
    try:
        _, options = parse(sys.argv[1:], verbs=("tables",), options={"results_dir": "results"})
        target = Path(options["results_dir"]) / "tables" / "backbones.md"
        write_atomically(target, markdown([HEAD, ["---"] * len(HEAD), *rows()]))
        print(f"{target} is rebuilt.")
    except InputError as error:
        sys.exit(str(error))
