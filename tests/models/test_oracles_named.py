"""Every backbone's docstring says which independent implementation checks it, and one that is named really does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from lra.files import ROOT
from scripts import backbones

MODULES = sorted(backbones.modules())
TESTS = [
    path.read_text() for path in sorted((ROOT / "tests" / "models").glob("test_oracles_*.py")) if path != Path(__file__)
]


def packages() -> list[str]:
    """The distributions of the extra `oracles`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [re.split("[<>=]", requirement)[0] for requirement in extras["oracles"]]


def importing(package: str) -> list[str]:
    """The oracle tests that import a package."""
    return [text for text in TESTS if re.search(rf"""["']{package.replace("-", "_")}\b""", text)]


@pytest.mark.parametrize("module", MODULES)
def test_the_oracle_is_named_and_used(module):
    oracle = backbones.facts(module)[backbones.HEAD.index("oracle") - 1]
    named = [package for package in packages() if re.search(rf"(?<![\w-]){package} ", oracle)]
    for package in named:
        assert importing(package), f"no oracle test imports {package}"
    if not oracle.startswith(("none found; ", "none found for ", "torch ")):
        assert named, f"{module} names none of {packages()}: {oracle!r}"
        for package in named:
            assert any(f"from {module} import" in text for text in importing(package))


def test_the_table_has_a_row_for_each_backbone_and_no_empty_oracle():
    rows = backbones.rows()
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == {
        p.stem for p in backbones.ATTN.glob("*.yaml")
    }
    table = backbones.markdown([backbones.HEAD, *rows])
    assert table.count("\n") == len(rows) + 1
    assert all(line.count(" | ") == len(backbones.HEAD) - 1 for line in table.splitlines())
