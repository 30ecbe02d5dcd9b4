"""Published costs that no training run has, beside the rows of `scripts/benchmark.py` that come nearest to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lra.papers.matching import Row, published_row
from lra.papers.published import METRICS, Model, PaperTable, find_model
from lra.reports.report import Table, each

# Speed-ups are over stored scores, which is what the papers' Transformer is.
REFERENCE = "softmax_materialised"
TERMS = {"quadratic": "n² p", "linear": "n d p"}
THOUSAND = 1024  # the symbols that stand for 1,000 of a paper's: lengths here are powers of two

Place = tuple[str, str, str]  # attn, task, length


class Ours(NamedTuple):
    """A number of a benchmark, how to print it, and why it is not the paper's, where that is known."""

    value: float
    text: str
    reason: str = ""


class Source(NamedTuple):
    """What a published metric is compared with.

    Attributes:
        target: of `scripts/benchmark.py`.
        about: what ours is, and how it differs.
        values: ours, by attn, task and length as the paper has them, of one file's rows.
    """

    target: str
    about: str
    values: Callable[[Sequence[Row]], dict[Place, Ours]]


def _speedups(rows: Sequence[Row]) -> dict[Place, Ours]:
    steps = {(row["backbone"], row["n"]): row["ms"] for row in rows if row["direction"] == "step"}
    ratios = {place: steps[REFERENCE, place[1]] / ms for place, ms in steps.items() if (REFERENCE, place[1]) in steps}
    return {
        (attn, "text", str(1000 * n // THOUSAND)): Ours(ratio, f"{ratio:.2g}") for (attn, n), ratio in ratios.items()
    }


def _operations(term: str) -> Callable[[Sequence[Row]], dict[Place, Ours]]:
    def values(rows: Sequence[Row]) -> dict[Place, Ours]:
        return {(row["backbone"], "all", ""): Ours(row[term], _terms(row), row["reason"]) for row in rows}

    return values


def _terms(row: Row) -> str:
    """Print both leading terms: a paper gives the larger one alone."""
    terms = [f"{row[name]:.2f} {unit}" for name, unit in TERMS.items() if abs(row[name]) > TOLERANCE]
    return " + ".join(terms) or "0"


def _batches(rows: Sequence[Row]) -> dict[Place, Ours]:
    return {(row["backbone"], row["task"], ""): Ours(row["largest"], f"{row['largest']}") for row in rows}


_COUNTED = "multiplications with an addition of one head's forward pass, counted and fitted"
SOURCES = {
    "speedup_vs_transformer": Source(
        "model",
        "an optimiser step of the small encoder (2 layers, 64 wide) on random tokens, 1,024 for the paper's 1,000, as "
        "a multiple of the speed with stored scores; no length at which these took too long",
        _speedups,
    ),
    "max_micro_batch": Source(
        "max_batch",
        "the largest batch by doubling, up to the protocol's, of examples of the greatest length, in the memory that "
        "the benchmark was given: only ratios within a column compare with the paper's",
        _batches,
    ),
    "flops_per_n_d_p": Source("flops", _COUNTED, _operations("linear")),
    "flops_per_n2_p": Source("flops", _COUNTED, _operations("quadratic")),
}


def benchmarked(table: PaperTable, models: Mapping[tuple[str, str, str], Model], folder: Path) -> list[Row]:
    """Match a paper's costs with benchmarks.

    Args:
        table: the published one.
        models: what the papers' rows are here.
        folder: of the files of `scripts/benchmark.py`.

    Returns:
        Rows as of `lra.papers.matching.match`, without a scale: `keys` names the file behind the number.
    """
    found = []
    for metric in filter(SOURCES.__contains__, table.metrics):
        source = SOURCES[metric]
        for path in sorted(folder.glob(f"*-{source.target}.jsonl")):
            rows = [row for line in path.read_text().splitlines() if (row := json.loads(line))["status"] == "ok"]
            ours = source.values(rows)
            for number in each(table.numbers[table.numbers["metric"] == metric]):
                model = find_model(models, table.source, number.model, number.task)
                mine = ours.get((model.attn, number.task, number.length)) if model else None
                if model and mine:
                    found.append({
                        **published_row(table, metric, number.model, number.task, number), "attn": model.attn,
                        "note": model.note, "scale": "", "value": mine.value, "text": mine.text,
                        "remarks": mine.reason, "device": rows[0]["device"], "keys": f"{folder.name}/{path.name}",
                    })  # fmt: skip
    return found


def sections(rows: Iterable[Row]) -> list[Table]:
    """Lay out rows of `benchmarked`: a table for each metric and file, ours and the paper's side by side."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["metric"], row["keys"]), []).append(row)
    return [_section(metric, file, part) for (metric, file), part in parts.items()]


def _section(metric: str, file: str, rows: Sequence[Row]) -> Table:
    places = list(dict.fromkeys((row["task"], row["length"]) for row in rows))
    names = [" ".join(place).strip() for place in places]
    head = ["model", "attn", *(word for name in names for word in (f"{name}: ours", "paper")), "why"]
    lines = []
    for model, attn in dict.fromkeys((row["model"], row["attn"]) for row in rows):
        mine = {(row["task"], row["length"]): row for row in rows if (row["model"], row["attn"]) == (model, attn)}
        cells = [(mine[place]["text"], mine[place]["printed"]) if place in mine else ("", "") for place in places]
        reasons = dict.fromkeys(row["remarks"] for row in mine.values())
        lines.append([model, attn, *(text for pair in cells for text in pair), "; ".join(reasons)])
    if not any(line[-1] for line in lines):
        head, lines = head[:-1], [line[:-1] for line in lines]
    title = f"{METRICS[metric].title}, on {rows[0]['device']}"
    return Table(title[0].upper() + title[1:], head, lines, [f"Ours: {SOURCES[metric].about} ({file})."])


TOLERANCE = 0.03  # of counted and analytical coefficients, relative: what does not grow with n d p is in the counts
