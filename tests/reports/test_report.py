"""The formats of a report."""

from __future__ import annotations

import pandas as pd
import pytest

from lra.errors import InputError
from lra.reports.report import Report, Table, terminal, write


def test_the_formats_of_one_report():
    table = Table("A & B", ["name", "value %"], [["a_b", "1.5"], ["c", "10.5"]], ["A note."])
    report = Report([table], pd.DataFrame({"name": ["a_b"], "keys": ["k1 k2"]}), notes=["±"])
    assert write(report, "markdown") == (
        "### A & B\n\n| name | value % |\n| ---- | ------: |\n| a_b  |     1.5 |\n| c    |    10.5 |\n\nA note.\n\n±"
    )
    assert write(report, "terminal").startswith("A & B\n\nname  value %\n────  ───────\na_b       1.5\n")
    latex = write(report, "latex")
    assert r"\begin{tabular}{lr}" in latex
    assert r"a\_b & 1.5 \\" in latex
    assert r"\caption{A \& B. A note. $\pm$}" in latex
    assert write(report, "csv") == "name,keys\na_b,k1 k2"
    with pytest.raises(InputError, match="terminal, markdown, latex, csv. Got 'html'"):
        write(report, "html")


def test_a_table_for_the_terminal_sets_numbers_to_the_right():
    assert terminal(("name", "value"), [["a", "1"], ["bcdef", "10"]]) == (
        "name   value\n─────  ─────\na          1\nbcdef     10"
    )
    cells = ["1.5", "1,024.5", "-", "", "≤ 512", "0.1 ± 1,000", "11.0 to 1,100"]
    lines = terminal(("name", "v"), [["a", cell] for cell in cells]).splitlines()[2:]
    assert lines == ["a     " + cell.rjust(13) if cell else "a" for cell in cells]
    assert terminal(("name", "v"), [["a", "1"], ["b", "out of memory"]]).splitlines()[2] == "a     1"
