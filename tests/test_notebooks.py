"""The notebooks run from top to bottom in Jupyter, and the leaderboard's is committed with its outputs."""

from __future__ import annotations

import ast
import base64
import json
from typing import Any

import pytest

from lra.figures.notebook import PNG, run_notebook, to_text
from lra.files import ROOT

LEADERBOARD, OTHER = (ROOT / "notebooks" / f"{name}.ipynb" for name in ("leaderboard", "your_attention"))
MOST_BYTES = 500_000
DRAWING = ("run_figures.", "benchmark_figures.", "scaling[", "errors[")


def code_cells(text: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def draws(cell: dict[str, Any]) -> bool:
    """Whether the value of a cell, that of its last line, is a figure."""
    lines = "".join(line for line in cell["source"] if not line.startswith("%"))
    last = ast.parse(lines).body[-1]
    return isinstance(last, ast.Expr) and ast.unparse(last).startswith(DRAWING)


def images(cell: dict[str, Any]) -> list[str]:
    return [output["data"][PNG] for output in cell["outputs"] if PNG in output.get("data", {})]


def without_images(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell shows, but for pixels, which are those of one machine's libraries."""
    kept = []
    for output in cell["outputs"]:
        data = {kind: value for kind, value in output.get("data", {}).items() if kind != PNG and images(cell) == []}
        kept.append({**output, "data": data})
    return kept


def test_the_committed_leaderboard_shows_every_figure_and_no_bit_of_a_single_run():
    text = LEADERBOARD.read_text()
    drawing = [cell for cell in code_cells(text) if draws(cell)]
    assert len(drawing) >= 8
    for cell in drawing:
        (image,) = images(cell)
        assert base64.b64decode("".join(image)).startswith(b"\x89PNG"), cell["source"]
    notebook = json.loads(text)
    for output in [output for cell in notebook["cells"] for output in cell.get("outputs", [])]:
        output.get("data", {}).pop(PNG, None)  # to write one again would choose its colours again
    assert json.loads(to_text(notebook)) == notebook, "run `make tables`"
    assert len(text.encode()) < MOST_BYTES


def test_the_other_notebook_is_committed_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(OTHER.read_text()))


@pytest.mark.slow
def test_the_leaderboard_runs_and_shows_what_is_committed():
    committed, made = code_cells(LEADERBOARD.read_text()), code_cells(run_notebook(LEADERBOARD))
    for before, now in zip(committed, made, strict=True):
        assert len(images(now)) == draws(now), now["source"]
        assert without_images(now) == without_images(before), f"{now['source']}: run `make tables`"


@pytest.mark.slow
def test_the_other_notebook_runs_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    cells = code_cells(run_notebook(OTHER))
    shown = "".join(line for cell in cells for output in cell["outputs"] for line in output.get("text", []))
    assert "| blend " in shown
    assert not list(tmp_path.glob("*/run.py"))  # the copy of the checkout
