"""The notebooks run from top to bottom, and are committed without outputs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SLOW = ("your_attention.ipynb",)
PATHS = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW))
    for path in sorted(NOTEBOOKS.glob("*.ipynb"))
]


@pytest.mark.parametrize("path", PATHS)
def test_a_notebook_runs_holds_no_outputs_and_leaves_nothing(path, monkeypatch, capsys, tmp_path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())
