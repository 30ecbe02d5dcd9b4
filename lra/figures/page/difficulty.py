"""The page's tables of accuracy by what makes test examples hard: plain HTML, one to open for each measure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lra.records.arrays import Packed
from lra.records.record import RunRecord
from lra.reports.difficulty import difficulty_report, divides
from lra.reports.report import Table


def difficulty_section(records: Sequence[RunRecord], packed: Packed) -> str:
    """Return the section, with the tables of `report.py difficulty`; "" where nothing divides the test examples."""
    divisible = [run for run in records if divides(run, packed)]
    if not divisible:
        return ""
    report = difficulty_report(divisible, packed)
    notes = "".join(f'<p class="legend">{escape(note)}</p>' for note in report.notes)
    return (
        '<section id="difficulty" data-of="measured" aria-labelledby="difficulty-title">'
        '<div class="title"><h2 id="difficulty-title">Accuracy by difficulty</h2></div>'
        f"{''.join(map(_details, report.tables))}{notes}</section>"
    )


def _details(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr{_mark(row[0])}><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    notes = f'<p class="legend">{escape(" ".join(table.notes))}</p>'
    return (
        f'<details><summary>{escape(table.title)}</summary><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{notes}</details>"
    )


def _mark(name: str) -> str:
    """Return the attribute of a row that needs no model."""
    return ' class="floor"' if name.startswith("floor: ") else ""
