"""What is offered to Python: a light `import lra`, the leaderboard as a frame, and mechanisms on their own."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

import lra
from lra.errors import InputError
from lra.files import ROOT
from tests.helpers.records import record, saved


def test_importing_it_loads_neither_torch_nor_pandas():
    code = "import sys, lra; lra.load_records, lra.leaderboard; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_its_examples_are_true(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(lra) == doctest.TestResults(failed=0, attempted=4)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_examples_of_the_documentation_are_true(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testfile(str(path), module_relative=False).failed == 0


def test_the_leaderboard_takes_a_folder_or_records_and_chooses(tmp_path):
    runs = [record("vmean", 0, 0.3), record("softmax", 0, 0.4), record("softmax", 0, 0.9, task="text")]
    saved(tmp_path, *runs)
    board = lra.leaderboard(tmp_path, task="listops")
    assert board["attn"].tolist() == ["softmax", "vmean"]
    assert lra.leaderboard(runs, attn="softmax")["task"].tolist() == ["listops", "text"]
    assert lra.leaderboard(runs, scale="full").empty
    with pytest.raises(InputError, match="no results folder"):
        lra.load_records(tmp_path / "nowhere")
