"""Counted operations of every backbone, and the leading terms of its formula beside those of a published table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.utils import instantiate

from benchmarks import options as read
from benchmarks.core import Progress, Row
from benchmarks.rendering import number, table
from benchmarks.subjects import HEAD_DIM, HEADS
from lra.flops import TABLE_3, TOLERANCE, LeadingTerms, count_flops, leading_terms
from lra.settings import make_classifier
from models.attention import Attention

OPTIONS = {"attn": "all", "length": "1024", "budget": "128"}
HEAD = ("backbone", "n^2 p", "n d p", "published", "agrees", "GFLOP forward", "GFLOP training", "why not")


def measure(options: Mapping[str, str]) -> Iterator[Row]:
    """Read the options; return a row for each backbone."""
    names = read.chosen(options, "attn", read.backbones())
    return _rows(names, read.count(options, "length", least=64), read.count(options, "budget", least=8))


def _rows(names: Sequence[str], length: int, budget: int) -> Iterator[Row]:
    for name in Progress("flops", len(names)).over(names):
        cfg = read.compose_config(f"attn={name}", "scale=mini")
        settings = {**read.resolved(cfg.model), "num_positions": None}

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
