"""The target `flops`: counted operations of every backbone, and the leading terms of its formula beside published ones.

Published are those of Table 3 of arXiv 2112.05359, "Leading terms of the floating point operations", Q, K and V given;
d = 256 and p = 32 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lra.benchmarks import options as read
from lra.benchmarks.mechanisms import HEAD_DIM, HEADS, AttentionFactory, factory, makes_attention
from lra.benchmarks.numbers import number
from lra.benchmarks.timing import Progress
from lra.configuration import backbones, compose_config, to_plain
from lra.machine.flops import WorkCounter, count_flops
from lra.papers.matching_costs import TOLERANCE
from lra.papers.published import OURS, find_model, load_models, load_tables
from lra.records.benchmark_rows import BenchmarkRow, FlopsRow
from lra.reports.report import terminal
from lra.runs.factory import make_classifier
from models.attention import Attention

OPTIONS = {"attn": "all", "length": "1024", "budget": "128"}
HEAD = ("backbone", "n^2 p", "n d p", "published", "agrees", "GFLOP forward", "GFLOP training", "why not")
NO_TERMS = "is a mixer, which has no terms of a head"
TABLE, TERMS = "skeinformer_table3", {"flops_per_n2_p": "quadratic", "flops_per_n_d_p": "linear"}
# The table has one Transformer, which stores its scores; the fused one computes the same.
ALIKE = {"softmax": "softmax_materialised"}
# Why our algorithm has another coefficient than the published one, where it has.
REASONS = {
    "performer": "four products of n, d and p: features of queries, of keys, their sum with V, the output",
    "informer_padding_mask": "up to n = 32 d it scores all keys and keeps d of them, which is faster than gathering",
    "skeinformer": "forms the pilots' scores twice: for the probabilities, and in the fused call that reuses them",
}


class LeadingTerms(NamedTuple):
    """Multiply-adds of a head's forward pass: `quadratic` n^2 p + `linear` n d p + ..., n tokens, budget d, width p."""

    quadratic: float
    linear: float


def measure(options: Mapping[str, str]) -> Iterator[FlopsRow]:
    """Read the options; return a row for each backbone."""
    names = read.chosen(options, "attn", backbones())
    return _rows(names, read.count(options, "length", least=64), read.count(options, "budget", least=8))


def _rows(names: Sequence[str], length: int, budget: int) -> Iterator[FlopsRow]:
    settings = {**to_plain(compose_config("scale=mini").model), "num_positions": None}
    sizes = {"vocab_size": 256, "max_len": 2 * length, "num_classes": 2, "num_inputs": 1}
    for name in Progress("flops", len(names)).over(names):
        makers = {d: factory(name, d) for d in (budget, 2 * budget)}
        model = make_classifier(makers[2 * budget], settings, **sizes)
        forward, training = count_flops(model, 1, 2 * length)
        terms = None
        if makes_attention(makers[budget]):
            terms = leading_terms(partial(_build, makers), length, budget)
        published = published_terms().get(name)
        yield FlopsRow(
            backbone=name,
            n=2 * length,
            budget=2 * budget,
            quadratic=terms.quadratic if terms else None,
            linear=terms.linear if terms else None,
            model_forward_flops=forward,
            model_training_flops=training,
            published=published._asdict() if published else None,
            agrees=agrees(terms, published) if terms and published else None,
            reason=REASONS.get(name, "") if terms else NO_TERMS,
        )


def _build(makers: Mapping[int, AttentionFactory], n: int, d: int) -> Attention:
    """Make an attention of length n and budget d."""
    return makers[d](num_heads=HEADS, head_dim=HEAD_DIM, max_len=n, dropout=0.0)


@cache
def published_terms() -> dict[str, LeadingTerms]:
    """Read what Table 3 prints from `results/published`, by our names.

    Raises:
        InputError: a file of `results/published` cannot be read.
    """
    models = load_models(OURS)
    printed: dict[str, dict[str, float]] = {}
    for one in load_tables(OURS)[TABLE].numbers:
        model = find_model(models, one.source, one.model, one.task)
        if model and one.value is not None:
            printed.setdefault(model.attn, {})[TERMS[one.metric]] = one.value
    terms = {name: LeadingTerms(**{"quadratic": 0.0, "linear": 0.0, **values}) for name, values in printed.items()}
    return {**terms, **{name: terms[other] for name, other in ALIKE.items()}}


def agrees(counted: LeadingTerms, published: LeadingTerms) -> bool:
    """Say whether both terms are the published ones, within the tolerance."""
    return all(abs(a - b) <= TOLERANCE * max(b, 1) for a, b in zip(counted, published, strict=True))


def leading_terms(build: Callable[[int, int], Attention], length: int, budget: int) -> LeadingTerms:
    """Fit the leading terms to counts at three lengths and two budgets.

    With f(n, d) = a n^2 p + b n d p + c n + g(d), a is a second difference in n and b a mixed difference.

    Args:
        build: makes an attention from a length and a budget.
        length: the shortest, n; the others are 2 n and 3 n.
        budget: the smaller, d; the other is 2 d.
    """

    def count(times: int, d: int) -> float:
        with FakeTensorMode(allow_non_fake_inputs=True):
            module = build(times * length, d)
            heads, p = module.num_heads, module.head_dim
            q, k, v = (torch.empty(1, heads, times * length, p) for _ in range(3))
            with WorkCounter() as counter, torch.no_grad():
                module(q, k, v, torch.ones(1, times * length, dtype=torch.bool))
        return counter.flops / 2 / heads / p

    one, two, three = (count(times, budget) for times in (1, 2, 3))
    mixed = (count(2, 2 * budget) - count(1, 2 * budget)) - (two - one)
    return LeadingTerms((three - 2 * two + one) / (2 * length**2), mixed / (length * budget))


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out a line for each backbone."""
    counted = [row for row in rows if isinstance(row, FlopsRow)]
    n, budget = (counted[0].n, counted[0].budget) if counted else (0, 0)
    return (
        "Leading terms: multiply-adds of a head's forward pass, n tokens, budget d, width p, fitted to counts at "
        f"three lengths from {n // 2:,} and two budgets from {budget // 2}; published: Table 3 of "
        "arXiv 2112.05359.\nGFLOP: of the whole classifier on one example of "
        f"{n:,} tokens, budget {budget}.\n" + terminal(HEAD, [_line(row) for row in counted])
    )


def _line(row: FlopsRow) -> list[str]:
    published = LeadingTerms(**row.published) if row.published else None
    printed = ""
    if published:
        unit = "n^2 p" if published.quadratic else "n d p"
        printed = f"{published.quadratic or published.linear:.0f} {unit}"
    return [
        row.backbone, *("" if term is None else f"{term:.3f}" for term in (row.quadratic, row.linear)), printed,
        {True: "yes", False: "no", None: ""}[row.agrees], number(row.model_forward_flops / 1e9),
        number(row.model_training_flops / 1e9), row.reason,
    ]  # fmt: skip
