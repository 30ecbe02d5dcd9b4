"""Matches published costs that no training run measures with the rows of `scripts/benchmark.py` closest to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lra.papers.matching import Match, begin_match
from lra.papers.measuring import Ours
from lra.papers.published import METRICS, Models, PaperTable
from lra.records.benchmark_rows import BatchRow, BenchmarkRow, FlopsRow, LengthRow, load_rows_of, measured
from lra.reports.report import Table

# Speed-ups are relative to attention with stored scores, as in the papers' Transformer.
REFERENCE = "softmax_materialised"
# Relative difference of counted and analytical coefficients: the counts include what does not grow with n d p.
TOLERANCE = 0.03
THOUSAND = 1024  # our length for a paper's 1,000: lengths here are powers of two


class Cell(NamedTuple):
    """Mechanism and task of a published cost, in our names, and the length as the paper has it."""

    attn: str
    task: str
    length: str


class Cost(NamedTuple):
    """A cost that a benchmark measured, its text, and why it differs from the paper's, where that is known."""

    value: float
    text: str
    reason: str = ""


class Counterpart(NamedTuple):
    """The benchmark that a published metric is compared with.

    Attributes:
        target: of `scripts/benchmark.py`.
        description: what it measures, and how that differs.
        costs: makes our costs from the rows of one file.
    """

    target: str
    description: str
    costs: Callable[[Sequence[BenchmarkRow]], dict[Cell, Cost]]


def _speedups(rows: Sequence[BenchmarkRow]) -> dict[Cell, Cost]:
    steps = {(row.backbone, row.n): row.ms for row in measured(rows, LengthRow) if row.direction == "step"}
    ratios = {(attn, n): steps[REFERENCE, n] / ms for (attn, n), ms in steps.items() if (REFERENCE, n) in steps}
    return {
        Cell(attn, "text", str(1000 * n // THOUSAND)): Cost(ratio, f"{ratio:.2g}")
        for (attn, n), ratio in ratios.items()
    }


def _linear(rows: Sequence[BenchmarkRow]) -> dict[Cell, Cost]:
    return _operations(rows, lambda row: row.linear)


def _quadratic(rows: Sequence[BenchmarkRow]) -> dict[Cell, Cost]:
    return _operations(rows, lambda row: row.quadratic)


def _operations(rows: Sequence[BenchmarkRow], term: Callable[[FlopsRow], float | None]) -> dict[Cell, Cost]:
    """Take one term of every attention; a mixer has none."""
    return {
        Cell(row.backbone, "all", ""): Cost(value, _terms(row), row.reason)
        for row in measured(rows, FlopsRow)
        if (value := term(row)) is not None
    }


def _terms(row: FlopsRow) -> str:
    """Print both leading terms: a paper gives the larger one alone."""
    values = ((row.quadratic or 0.0, "n² p"), (row.linear or 0.0, "n d p"))
    return " + ".join(f"{value:.2f} {unit}" for value, unit in values if abs(value) > TOLERANCE) or "0"


def _batches(rows: Sequence[BenchmarkRow]) -> dict[Cell, Cost]:
    return {Cell(row.backbone, row.task, ""): Cost(row.largest, f"{row.largest}") for row in measured(rows, BatchRow)}


_COUNTED = "multiplications with an addition of one head's forward pass, counted and fitted"
COUNTERPARTS = {
    "speedup_vs_transformer": Counterpart(
        "model",
        "an optimiser step of the small encoder (2 layers, 64 wide) on random tokens, 1,024 for the paper's 1,000, as "
        "a multiple of the speed with stored scores; no length at which these took too long",
        _speedups,
    ),
    "max_micro_batch": Counterpart(
        "max_batch",
        "the largest batch by doubling, up to the protocol's, of examples of the greatest length, in the memory that "
        "the benchmark was given: only ratios within a column compare with the paper's",
        _batches,
    ),
    "flops_per_n_d_p": Counterpart("flops", _COUNTED, _linear),
    "flops_per_n2_p": Counterpart("flops", _COUNTED, _quadratic),
}


def benchmarked(table: PaperTable, models: Models, folder: Path) -> list[Match]:
    """Match a paper's costs with benchmarks.

    Args:
        table: the published one.
        models: our mechanisms for the papers' rows.
        folder: of the files of `scripts/benchmark.py`.

    Returns:
        Matches without a scale: `keys` names the file behind the number.
    """
    matches = []
    for metric in filter(COUNTERPARTS.__contains__, table.metrics):
        counterpart = COUNTERPARTS[metric]
        for path, rows in load_rows_of(folder, f"*-{counterpart.target}.jsonl").items():
            costs = counterpart.costs(rows)
            for number in table.numbers_of(metric):
                match = begin_match(table, models, number)
                cost = costs.get(Cell(match.attn, match.task, match.length))
                if cost:
                    ours = Ours(
                        cost.value, cost.text, device=rows[0].origin.device, remarks=cost.reason,
                        keys=f"{folder.name}/{path.name}",
                    )  # fmt: skip
                    matches.append(replace(match, ours=ours))
    return matches


def sections(matches: Iterable[Match]) -> list[Table]:
    """Lay out the matches of `benchmarked`: a table for each metric and file, ours and the paper's side by side."""
    parts: dict[tuple[str, str], list[Match]] = {}
    for match in matches:
        parts.setdefault((match.metric, match.ours.keys if match.ours else ""), []).append(match)
    return [_section(metric, file, part) for (metric, file), part in parts.items()]


def _section(metric: str, file: str, matches: Sequence[Match]) -> Table:
    columns = list(dict.fromkeys((match.task, match.length) for match in matches))
    names = [" ".join(column).strip() for column in columns]
    head = ["model", "attn", *(word for name in names for word in (f"{name}: ours", "paper")), "why"]
    rows = []
    for model, attn in dict.fromkeys((match.model, match.attn) for match in matches):
        own = {(match.task, match.length): match for match in matches if (match.model, match.attn) == (model, attn)}
        cells = [(own[column].text, own[column].printed) if column in own else ("", "") for column in columns]
        reasons = dict.fromkeys(match.remarks for match in own.values())
        rows.append([model, attn, *(text for pair in cells for text in pair), "; ".join(reasons)])
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    device = matches[0].ours.device if matches[0].ours else ""
    title = f"{METRICS[metric].title}, on {device}"
    return Table(title[0].upper() + title[1:], head, rows, [f"Ours: {COUNTERPARTS[metric].description} ({file})."])
