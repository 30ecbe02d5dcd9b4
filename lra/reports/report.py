"""Reports, made of tables, and their formats: for a terminal, Markdown, LaTeX with booktabs, or CSV."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd

from lra.errors import InputError

T = TypeVar("T")

FORMATS = ("terminal", "markdown", "latex", "csv")
MINUS, TIMES, TO = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
NUMBER = re.compile(rf"(≤ )?[+{MINUS}-]?({TIMES} )?[\d,.]+(e[+-]\d+)?\*?( (±|to) [\d,.]+)?")
NO_NUMBER = ("", "-")  # what stands where a column of numbers has none
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", MINUS: "$-$", TO: "--", TIMES: r"$\times$",
    "·": r"$\cdot$", "≥": r"$\geq$", "≤": r"$\leq$", "²": "$^2$",
}  # fmt: skip


@dataclass
class Table:
    """A title, column heads, cells as text, and sentences to stand beneath."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls, title: str, columns: Mapping[str, Callable[[T], str]], rows: Iterable[T], notes: Sequence[str] = ()
    ) -> Table:
        """Lay rows out, given for each column its head and the function that makes its text from a row."""
        return cls(title, list(columns), [[text(row) for text in columns.values()] for row in rows], notes)


@dataclass
class Report:
    """The answer to a question about the records.

    Attributes:
        tables: to be read.
        frame: the same in full, for CSV.
        title: stands above everything, where there is more than one table.
        intro: sentences beneath the title.
        notes: beneath all tables: units and marks.
    """

    tables: list[Table]
    frame: pd.DataFrame
    title: str = ""
    intro: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(report: Report, style: str) -> str:
    """Lay a report out.

    Raises:
        InputError: the format is unknown.
    """
    if style == "csv":
        return report.frame.to_csv(index=False, lineterminator="\n", float_format="%.10g").rstrip("\n")
    layouts = {"terminal": _terminal, "markdown": _markdown, "latex": _latex}
    if style not in layouts:
        raise InputError(f"format must be one of {', '.join(FORMATS)}. Got {style!r}.")
    return layouts[style](report)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table whose columns line up in a terminal too; columns of numbers to the right."""
    lines, are_numbers = _padded(head, rows)
    ruled = [
        "-" * (len(cell) - 1) + ":" if is_number else "-" * len(cell)
        for cell, is_number in zip(lines[0], are_numbers, strict=True)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ruled, *lines[1:]])


def terminal(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table as a terminal shows it, its head ruled off; columns of numbers to the right."""
    (first, *lines), _ = _padded(head, rows)
    ruled = [first, ["─" * len(cell) for cell in first], *lines]
    return "\n".join("  ".join(line).rstrip() for line in ruled)


def _padded(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[bool]]:
    """Fill the cells of every column to one width, numbers to the right, and say which columns hold numbers."""
    lines = [list(line) for line in (head, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    are_numbers = [
        any(row[i] for row in rows) and all(row[i] in NO_NUMBER or NUMBER.fullmatch(row[i]) for row in rows)
        for i in range(len(head))
    ]
    padded = [
        [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        ]
        for line in lines
    ]
    return padded, are_numbers


def _markdown(report: Report) -> str:
    parts = [f"# {report.title}"] if report.title else []
    parts += report.intro
    for table in report.tables:
        parts += [f"### {table.title}", markdown(table.head, table.rows), *table.notes]
    return "\n\n".join([*parts, *report.notes])


def _terminal(report: Report) -> str:
    parts = [f"{report.title}\n{'=' * len(report.title)}"] if report.title else []
    parts += [textwrap.fill(text, 110) for text in report.intro]
    for table in report.tables:
        body = terminal(table.head, table.rows)
        parts += ["\n".join([table.title, "", body]), *(textwrap.fill(text, 110) for text in table.notes)]
    return "\n\n".join([*parts, *(textwrap.fill(text, 110) for text in report.notes)])


def _latex(report: Report) -> str:
    parts = ["% needs \\usepackage{booktabs}"]
    parts += [f"% {text}" for text in [report.title, *report.intro] if text]
    for table in report.tables:
        lines, are_numbers = _padded(table.head, table.rows)
        columns = "".join("r" if is_number else "l" for is_number in are_numbers)
        head, *body = (" & ".join(_escaped(cell.strip()) for cell in line) + r" \\" for line in lines)
        caption = " ".join(_escaped(text) for text in [f"{table.title}.", *table.notes, *report.notes])
        parts.append(
            "\n".join(
                [
                    r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}",
                    r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}",
                ]
            )
        )  # fmt: skip
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text.replace("`", ""))
