"""List every backbone from its own docstring: python scripts/backbones.py [results_dir=results].

Writes `tables/backbones.md`: the names of `attn=`, what each is, its cost, what it is exact for, its paper.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf

from lra.arguments import parse
from lra.errors import InputError
from lra.record import write_atomically
from lra.tables import markdown

ATTN = Path(__file__).resolve().parent.parent / "configs" / "attn"
HEAD = ("attn=", "what it is", "cost in length L", "exact", "paper")


def rows() -> list[list[str]]:
    """Lay out a row for each module, with all the names that it serves."""
    names: dict[str, list[str]] = {}
    for path in sorted(ATTN.glob("*.yaml")):
        names.setdefault(get_class(OmegaConf.load(path)._target_).__module__, []).append(path.stem)
    return [[", ".join(f"`{name}`" for name in served), *facts(module)] for module, served in names.items()]


def facts(module: str) -> list[str]:
    """Find in a module's docstring its first sentence, its cost, what it is exact for, and the first arXiv number."""
    text = " ".join((sys.modules[module].__doc__ or "").split())
    what = text.partition(". ")[0].rstrip(".")
    cost = re.search(r"\b[Tt]ime (?:and memory )?O\(.*?(?=[;.] |[;.]$)", text)
    exact = re.search(r"(?:It is exact|Exact (?:softmax attention|for)) .*?(?=[:;.] |[:;.]$)", text)
    paper = re.search(r"\b\d{4}\.\d{5}\b", text)
    return [what, *(found.group() if found else "" for found in (cost, exact, paper))]


if __name__ == "__main__":
    try:
        _, options = parse(sys.argv[1:], verbs=("tables",), options={"results_dir": "results"})
        target = Path(options["results_dir"]) / "tables" / "backbones.md"
        write_atomically(target, markdown(HEAD, rows()) + "\n")
        print(f"{target} is rebuilt.")
    except InputError as error:
        sys.exit(str(error))
