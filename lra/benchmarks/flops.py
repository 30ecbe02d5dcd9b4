"""Counted operations of every backbone, and the leading terms of its formula beside those of a published table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from torch._subclasses.fake_tensor import FakeTensorMode

from lra.benchmarks import options as read
from lra.benchmarks.rendering import number, table
from lra.benchmarks.subjects import HEAD_DIM, HEADS
from lra.benchmarks.timing import Progress, Row
from lra.configuration import backbones, compose_config, to_plain
from lra.machine.flops import WorkCounter, count_flops
from lra.papers.matching_costs import TOLERANCE
from lra.runs.factory import make_classifier
from models.attention import Attention

OPTIONS = {"attn": "all", "length": "1024", "budget": "128"}
HEAD = ("backbone", "n^2 p", "n d p", "published", "agrees", "GFLOP forward", "GFLOP training", "why not")


def measure(options: Mapping[str, str]) -> Iterator[Row]:
    """Read the options; return a row for each backbone."""
    names = read.chosen(options, "attn", backbones())
    return _rows(names, read.count(options, "length", least=64), read.count(options, "budget", least=8))


def _rows(names: Sequence[str], length: int, budget: int) -> Iterator[Row]:
    for name in Progress("flops", len(names)).over(names):
        cfg = compose_config(f"attn={name}", "scale=mini")
        settings = {**to_plain(cfg.model), "num_positions": None}

        def build(n: int, d: int, cfg: Any = cfg) -> Attention:
            cfg.budget = d
            return instantiate(cfg.attn)(num_heads=HEADS, head_dim=HEAD_DIM, max_len=n, dropout=0.0)

        terms = leading_terms(build, length, budget)
        cfg.budget = 2 * budget
        sizes = {"vocab_size": 256, "max_len": 2 * length, "num_classes": 2, "num_inputs": 1}
        model = make_classifier(instantiate(cfg.attn), settings, **sizes)
        forward, training = count_flops(model, 1, 2 * length)
        yield {
            "backbone": name, "n": 2 * length, "budget": 2 * budget, "status": "ok", "quadratic": terms.quadratic,
            "linear": terms.linear, "model_forward_flops": forward, "model_training_flops": training,
            **_beside(name, terms),
        }  # fmt: skip


def _beside(name: str, counted: LeadingTerms) -> Row:
    """Compare with the published terms, where there are any."""
    if name not in TABLE_3:
        return {"published": None, "agrees": None, "reason": ""}
    terms, reason = TABLE_3[name]
    return {"published": terms._asdict(), "agrees": agrees(counted, terms), "reason": reason}


def agrees(counted: LeadingTerms, published: LeadingTerms) -> bool:
    """Say whether both terms are the published ones, within the tolerance."""
    return all(abs(a - b) <= TOLERANCE * max(b, 1) for a, b in zip(counted, published, strict=True))


def render(rows: Sequence[Row]) -> str:
    """Lay out a line for each backbone."""
    lines = []
    for row in rows:
        published = row["published"]
        text = "" if published is None else f"{published['quadratic'] or published['linear']:.0f}"
        unit = "" if published is None else " n^2 p" if published["quadratic"] else " n d p"
        lines.append(
            [
                row["backbone"], f"{row['quadratic']:.3f}", f"{row['linear']:.3f}", text + unit,
                {True: "yes", False: "no", None: ""}[row["agrees"]], number(row["model_forward_flops"] / 1e9),
                number(row["model_training_flops"] / 1e9), row["reason"],
            ]
        )  # fmt: skip
    about = rows[0] if rows else {"n": 0, "budget": 0}
    return (
        "Leading terms: multiply-adds of a head's forward pass, n tokens, budget d, width p, fitted to counts at "
        f"three lengths from {about['n'] // 2:,} and two budgets from {about['budget'] // 2}; published: Table 3 of "
        "arXiv 2112.05359.\nGFLOP: of the whole classifier on one example of "
        f"{about['n']:,} tokens, budget {about['budget']}.\n" + table(HEAD, lines)
    )


class LeadingTerms(NamedTuple):
    """Multiply-adds of a head's forward pass: `quadratic` n^2 p + `linear` n d p + ..., n tokens, budget d, width p."""

    quadratic: float
    linear: float


class Published(NamedTuple):
    """A row of Table 3 of arXiv 2112.05359, and why our algorithm has another coefficient, where it has."""

    terms: LeadingTerms
    reason: str = ""


# "Leading terms of the floating point operations", Q, K and V given; d = 256 and p = 32 there.
TABLE_3 = {
    "softmax": Published(LeadingTerms(2, 0)),
    "softmax_materialised": Published(LeadingTerms(2, 0)),
    "bigbird": Published(LeadingTerms(0, 5)),
    "performer": Published(
        LeadingTerms(0, 3), "four products of n, d and p: features of queries, of keys, their sum with V, the output"
    ),
    "nystromformer": Published(LeadingTerms(0, 4)),
    "linformer": Published(LeadingTerms(0, 4)),
    "informer_padding_mask": Published(
        LeadingTerms(0, 3), "up to n = 32 d it scores all keys and keeps d of them, which is faster than gathering"
    ),
    "skeinformer": Published(
        LeadingTerms(0, 4),
        "forms the pilots' scores twice: for the probabilities, and in the fused call that reuses them",
    ),
}


def leading_terms(build: Callable[[int, int], Attention], length: int, budget: int) -> LeadingTerms:
    """Fit the leading terms to counts at three lengths and two budgets.

    With f(n, d) = a n^2 p + b n d p + c n + g(d), a is a second difference in n and b a mixed difference.

    Args:
        build: makes a mechanism from a length and a budget.
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
