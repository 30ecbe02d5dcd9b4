"""The notebooks run from top to bottom, and are committed without outputs."""

from __future__ import annotations

import ast
import json
import tempfile

import pytest
from matplotlib.figure import Figure

from lra.files import ROOT

NOTEBOOKS = ROOT / "notebooks"
SLOW = ("your_attention.ipynb",)
PATHS = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW))
    for path in sorted(NOTEBOOKS.glob("*.ipynb"))
]


def run_cell(source: str, name: str, names: dict) -> object:
    """Run a cell; return the value of its last line, which a notebook would show."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names) if last else None


@pytest.mark.parametrize("path", PATHS)
def test_a_notebook_runs_holds_no_outputs_and_leaves_nothing(path, monkeypatch, capsys, tmp_path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict = {}
    for cell in cells:
        shown = run_cell("".join(cell["source"]), path.name, names)
        if isinstance(shown, Figure):
            assert all(axis.has_data() or not axis.axison for axis in shown.axes), cell["source"]
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())
