"""The hashes of a mechanism's source: what changes them, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lra.files import ROOT
from lra.machine.source import changed, in_words, mixed, source_of

MECHANISM = '''"""A mechanism."""

import torch
from models.attention import Attention
from models.mechanism import Card
from .ops import weigh
import beside


class Mine(Attention):
    """Mixes."""

    card = Card(what="mine", family="others", time="O(L)", memory="O(L)")

    def forward(self, q, k, v, mask):
        """Mix."""
        return weigh(v)  # all of them
'''
FILES = {
    "mine/__init__.py": "",
    "mine/attention.py": MECHANISM,
    "mine/ops.py": "import mine.deeper\n\ndef weigh(v):\n    return 2 * v\n",
    "mine/deeper.py": "HALF = 0.5\n",
    "mine/unrelated.py": "X = 1\n",
    "beside.py": "Y = 1\n",
}
OF_MINE = {"mine.attention", "mine.ops", "mine.deeper", "beside"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A package of a user's own, where Python finds it, with a module beside it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "beside")]:
        del sys.modules[name]


def present() -> dict[str, str]:
    """The source as a new process finds it."""
    forget()
    return source_of("mine.attention.Mine")


def test_it_is_of_the_module_and_of_what_that_imports_from_models_and_from_its_own_package(place):
    source = present()
    assert {name for name in source if not name.startswith("models")} == OF_MINE
    assert {"models.attention", "models.mechanism"} <= set(source)
    assert not [name for name in source if name.startswith(("torch", "lra"))]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine/attention.py", "weigh(v)  # all of them", "weigh(\n            v,\n        )"),
        ("mine/attention.py", '"""Mixes."""', '"""Mixes values."""'),
        ("mine/attention.py", '        """Mix."""\n', ""),
        ("mine/attention.py", 'what="mine"', 'what="the one of mine"'),
        ("mine/ops.py", "import mine.deeper\n", "# why\nimport mine.deeper\n\n\n"),
        ("mine/unrelated.py", "1", "2"),
    ],
)
def test_comments_docstrings_formatting_and_cards_do_not_change_it(place, file, old, new):
    before = present()
    assert old in FILES[file]
    (place / file).write_text(FILES[file].replace(old, new))
    assert changed(before, present()) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "module"),
    [
        ("mine/attention.py", "weigh(v)", "weigh(0 * v)", "mine.attention"),
        ("mine/attention.py", "weigh(v)", "weigh('v')", "mine.attention"),
        ("mine/ops.py", "2 * v", "2.0 * v", "mine.ops"),
        ("mine/deeper.py", "0.5", "0.25", "mine.deeper"),
        ("beside.py", "1", "None", "beside"),
    ],
)
def test_whatever_may_change_a_number_changes_it(place, file, old, new, module):
    before = present()
    (place / file).write_text(FILES[file].replace(old, new))
    assert changed(before, present()) == [module]


def test_a_process_that_has_imported_a_mechanism_is_of_the_source_that_it_imported(place):
    before = present()
    (place / "mine/ops.py").write_text("def weigh(v):\n    return 3 * v\n")
    assert source_of("mine.attention.Mine") == before


@pytest.mark.parametrize(
    "target", [None, "nowhere.Mine", "models.nothing", "builtins.int", "models.mechanism.Distribution"]
)
def test_what_has_no_source_has_no_hash(target):
    assert source_of(target) == {}


def test_an_unknown_source_differs_from_none():
    assert changed({}, {"a": "1"}) == changed({"a": "1"}, {}) == []
    assert changed({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ["b", "c"]


def test_what_two_sources_made_is_of_neither():
    first, second = {"a": "1", "b": "2"}, {"a": "1", "b": "3"}
    both = mixed(first, second)
    assert changed(both, first) == changed(both, second) == ["b"]
    assert mixed(first, first) == first
    assert mixed({}, first) == {}


def test_modules_are_named_as_the_subject_of_a_sentence():
    assert in_words(["a"]) == "a has changed since"
    assert in_words(["a", "b", "c"]) == "a, b and c have changed since"
    assert in_words(list("abcde")) == "a, b, c and 2 more have changed since"


def test_every_process_hashes_the_same():
    target = "models.attention.skeinformer.SkeinformerAttention"
    code = f"from lra.machine.source import source_of; print(source_of({target!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(source_of(target))
    assert "models.ops.rows" in source_of(target)
