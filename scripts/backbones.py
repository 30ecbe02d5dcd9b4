"""List every backbone from its own docstring: python scripts/backbones.py [results_dir=results].

Writes `tables/backbones.md`: the names of `attn=`, what each is, its cost, what it is exact for, which independent
implementation checks it, its paper.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf

from lra.arguments import help_if_asked, parse
from lra.errors import InputError
from lra.files import write_atomically

ATTN = Path(__file__).resolve().parent.parent / "configs" / "attn"
HEAD = ["attn=", "what it is", "cost in length L", "exact", "oracle", "paper"]


def modules() -> dict[str, list[str]]:
    """Find the modules of all backbones, with the names that each serves."""
    names: dict[str, list[str]] = {}
    for path in sorted(ATTN.glob("*.yaml")):
        names.setdefault(get_class(OmegaConf.load(path)._target_).__module__, []).append(path.stem)
    return names


def rows() -> list[list[str]]:
    """Lay out a row for each module."""
    return [[", ".join(f"`{name}`" for name in names), *facts(module)] for module, names in modules().items()]


def facts(module: str) -> list[str]:
    """Find in a module's docstring its first sentence, cost, exact case, oracle, and the first arXiv number."""
    text = " ".join((sys.modules[module].__doc__ or "").split())
    what = text.partition(". ")[0].rstrip(".")
    cost = re.search(r"\b[Tt]ime (?:and memory )?O\(.*?(?=[;.] |[;.]$)", text)
    exact = re.search(r"(?:It is exact|Exact (?:softmax attention|for)) .*?(?=[:;.] |[:;.]$)", text)
    oracle = re.search(r"(?<=Oracle: ).*?(?=\. |\.$)", text)
    paper = re.search(r"\b\d{4}\.\d{5}\b", text)
    return [what, *(found.group() if found else "" for found in (cost, exact, oracle, paper))]


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
