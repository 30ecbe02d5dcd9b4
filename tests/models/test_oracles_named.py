"""Every backbone has a complete card; an independent implementation that it names really checks it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from lra.cards import OTHERS, card_of, class_of
from lra.files import ROOT
from lra.reports import backbones
from tests.helpers.configurations import choices

NAMES = choices("attn")
TESTS = [
    path.read_text() for path in sorted((ROOT / "tests" / "models").glob("test_oracles_*.py")) if path != Path(__file__)
]


def packages() -> list[str]:
    """The distributions of the extra `oracles`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [re.split("[<>=]", requirement)[0] for requirement in extras["oracles"]]


# Packages that are imported by another name.
MODULES = {"s5-pytorch": "s5"}


def importing(package: str) -> list[str]:
    """The oracle tests that import a package."""
    module = MODULES.get(package, package.replace("-", "_"))
    return [text for text in TESTS if re.search(rf"""["']{module}\b""", text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_has_a_complete_card(name):
    card = card_of(name)
    assert card is not None, f"{class_of(name)} has no card"
    assert card.what
    assert card.family not in ("", OTHERS)
    assert card.time.startswith("O(")
    assert card.memory.startswith("O(")
    assert card.oracle
    assert card.paper


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_is_named_and_used(name):
    oracle, module = card_of(name).oracle, class_of(name).__module__
    named = [package for package in packages() if re.search(rf"(?<![\w-]){package} ", oracle)]
    for package in named:
        assert importing(package), f"no oracle test imports {package}"
    if not oracle.startswith(("none found; ", "none found for ", "torch ")):
        assert named, f"{name} names none of {packages()}: {oracle!r}"
        for package in named:
            assert any(f"from {module} import" in text for text in importing(package))


def test_what_is_softmax_attention_says_so():
    assert [name for name in NAMES if card_of(name).exact == "always"] == [
        name for name in NAMES if getattr(class_of(name), "exact", False)
    ]


def test_the_table_has_a_row_for_each_card_and_every_name_once():
    rows = backbones.rows()
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row[0])) == NAMES
    table = backbones.markdown()
    assert table.count("\n") == len(rows) + 2
    assert all(line.count(" | ") == len(backbones.HEAD) - 1 for line in table.splitlines())
