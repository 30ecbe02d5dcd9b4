"""The target `approximation`: how far approximations are from exact softmax attention, at growing budgets.

After Figure 1 of arXiv 2112.05359. The error of a trial is ||method(Q, K, V) - softmax(Q K^T / sqrt(p)) V|| over
||softmax(Q K^T / sqrt(p)) V||, in the spectral and in the Frobenius norm, of each head by itself and then the mean over
heads. Inputs and draws are new in every trial. Learned parts, such as Linformer's projection, are as at initialisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lra.benchmarks import options as read
from lra.benchmarks.inputs import Captured, Source, entropy, gaussian, peaked, text_task
from lra.benchmarks.mechanisms import factory, makes_attention
from lra.benchmarks.numbers import number
from lra.benchmarks.timing import Progress
from lra.configuration import backbones
from lra.records.benchmark_rows import ApproximationCase, ApproximationRow, BenchmarkRow, measured
from lra.reports.report import terminal
from lra.statistics import student_interval
from models.attention import Attention
from models.attention.softmax import SoftmaxAttention

METHODS = (
    "vmean,skeinformer,skeinformer_no_pilot,skeinformer_uniform,skeinformer_simple_norm,skeinformer_no_norm,informer,"
    "informer_padding_mask,linformer,linformer_unreduced_jlt,nystromformer,performer,bigbird,local,longformer,fsat_r"
)
OPTIONS = {
    "attn": METHODS, "lengths": "512,1024,4096", "budgets": "8,16,32,64,128,256", "trials": "12", "inputs": "all",
    "train_steps": "300", "weights": "",
}  # fmt: skip
INPUTS = ("gaussian", "peaked", "text at initialisation", "text after training")
IS_A_MIXER = "skipped: is a mixer, which approximates no attention"
SHORT = {"gaussian": 0, "peaked": 1, "initial": 2, "trained": 3}
FEWER_FROM = 4096  # from this length on a half of the trials must do, and nobody sorts all weights
NORMS: dict[str, int | str] = {"spectral": 2, "frobenius": "fro"}
# Figure 1 has curves and no numbers. What the abstract says, from the most accurate on: Skeinformer approximates
# attention better than Informer and Linformer, and each of its parts contributes to that.
ORDERS = (
    ("skeinformer", "informer_padding_mask"),
    ("skeinformer", "linformer"),
    ("skeinformer", "skeinformer_no_pilot", "skeinformer_uniform", "skeinformer_simple_norm"),
)


def measure(options: Mapping[str, str]) -> Iterator[BenchmarkRow]:
    """Read the options; return a row for each input, length, method and budget."""
    names = read.chosen(options, "attn", backbones())
    lengths, budgets = read.counts(options, "lengths"), read.counts(options, "budgets")
    trials, steps = read.count(options, "trials", least=2), read.count(options, "train_steps")
    kinds = [INPUTS[SHORT[word]] for word in read.chosen(options, "inputs", list(SHORT))]
    return _rows(names, lengths, budgets, trials, steps, kinds, options["weights"])


def _rows(
    names: Sequence[str], lengths: Sequence[int], budgets: Sequence[int], trials: int, steps: int,
    kinds: Sequence[str], weights: str,
) -> Iterator[BenchmarkRow]:  # fmt: skip
    progress = Progress("approximation", len(kinds) * len(lengths))
    makers: dict[tuple[str, int], Callable[..., Attention]] = {}
    for name in names:
        made = {(name, d): factory(name, d) for d in budgets}
        if all(map(makes_attention, made.values())):
            makers |= made
        else:
            yield ApproximationCase(status=IS_A_MIXER, backbone=name)
    for kind in kinds:
        source = _source(kind, steps, weights, progress)
        if source is None:
            progress.done += len(lengths)
            yield ApproximationCase(status="skipped: no Text here; set LRA_DATA or task.data_dir", input=kind)
            continue
        for n in lengths:
            progress.say(f"{kind}, n={n}")
            yield from _case(kind, source, n, max(2, trials // 2) if n >= FEWER_FROM else trials, makers)
            progress.done += 1


def _source(kind: str, steps: int, weights: str, progress: Progress) -> Source | None:
    if not kind.startswith("text"):
        return gaussian if kind == "gaussian" else peaked
    task = text_task()
    if task is None:
        return None
    if kind == "text at initialisation":
        return Captured(task)
    if weights:
        return Captured.of_run(task, Path(weights))
    model = Captured(task)
    for step in model.train(steps):
        if step % 50 == 0:
            progress.say(f"{kind}: step {step} of {steps}")
    return model


def _case(
    kind: str, source: Source, n: int, trials: int, makers: Mapping[tuple[str, int], Callable[..., Attention]]
) -> Iterator[BenchmarkRow]:
    """Measure every method and budget on one kind of input at one length."""
    errors: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in makers}
    entropies = []
    for trial in range(trials):
        qkv = source(n, trial)
        entropies.append(entropy(*qkv[:2]))
        torch.manual_seed(trial)
        for case, make in makers.items():
            errors[case].append(relative_errors(make, *qkv, diagnose=n < FEWER_FROM))
    for (name, d), trial_errors in errors.items():
        values: dict[str, Any] = {}
        for what in trial_errors[0]:
            values[what], values[f"{what}_half_width"] = student_interval([one[what] for one in trial_errors])
        about: dict[str, Any] = {"input": kind, "backbone": name, "n": n, "budget": d, "trials": trials}
        yield ApproximationRow(**about, entropy_nats=fmean(entropies), **values)


@torch.no_grad()
def relative_errors(
    make: Callable[..., Attention], q: Tensor, k: Tensor, v: Tensor, *, diagnose: bool = False
) -> dict[str, float]:
    """Compare a mechanism with exact attention; `diagnose` adds the exact weight on its keys, where it tells."""
    B, H, L, D = q.shape
    shape: dict[str, Any] = {"num_heads": H, "head_dim": D, "max_len": L, "dropout": 0.0}
    mask = torch.ones(B, L, dtype=torch.bool)
    module = make(**shape).to(q.dtype).eval()
    exact = SoftmaxAttention(**shape)(q, k, v, mask)
    difference = module(q, k, v, mask) - exact
    errors = {
        f"{name}_error": float(
            (torch.linalg.matrix_norm(difference, which) / torch.linalg.matrix_norm(exact, which)).mean()
        )  # type: ignore[arg-type]
        for name, which in NORMS.items()
    }
    captured = module.diagnostics(q, k, v, mask).get("captured_mass") if diagnose else None
    return errors if captured is None else {**errors, "captured_mass": float(captured)}


class Agreement(NamedTuple):
    """In how many cases (input, length, budget) an order holds, and in how many the intervals contradict it."""

    order: str
    holds: int
    contradicted: int
    cases: int


def agreement(rows: Sequence[BenchmarkRow]) -> list[Agreement]:
    """Compare the spectral errors with every expected order."""
    errors = {
        (row.backbone, row.input, row.n, row.budget): (row.spectral_error, row.spectral_error_half_width)
        for row in measured(rows, ApproximationRow)
    }
    agreements = []
    for order in ORDERS:
        cases = [
            [errors[name, *case] for name in order]
            for case in dict.fromkeys(case[1:] for case in errors)
            if all((name, *case) in errors for name in order)
        ]
        holds = sum(all(a <= b for (a, _), (b, _) in pairwise(values)) for values in cases)
        against = sum(any(a - x > b + y for (a, x), (b, y) in pairwise(values)) for values in cases)
        agreements.append(Agreement(" < ".join(order), holds, against, len(cases)))
    return agreements


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out the spectral errors: a line for each input, length and method, a column for each budget."""
    good = measured(rows, ApproximationRow)
    budgets = sorted({row.budget for row in good})
    head = ("input", "n", "backbone", *(f"d={d}" for d in budgets), "Frobenius at the last", "weight captured")
    lines = [
        [row.input, "", row.backbone, row.status, *[""] * (len(head) - 4)]
        for row in rows
        if isinstance(row, ApproximationCase)
    ]
    for (kind, n), block in groupby(good, key=lambda row: (row.input, row.n)):
        for index, (_, of_method) in enumerate(groupby(block, key=lambda row: row.backbone)):
            method = {row.budget: row for row in of_method}
            entropy = method[max(method)].entropy_nats
            first = ["", ""] if index else [f"{kind}, entropy {entropy:.2f} nats", f"{n:,}"]
            lines.append([*first, *_cells(method, budgets)])
    return (
        "Spectral norm of the error over that of exact attention's output, mean over trials ± 95 %\n"
        f"{terminal(head, lines)}\n{_claims(rows)}"
    )


def _cells(method: Mapping[int, ApproximationRow], budgets: Sequence[int]) -> list[str]:
    """Write a method's errors at every budget, and what else is known at the last."""
    last = method[max(method)]
    errors = [f"{number(method[d].spectral_error)} ± {number(method[d].spectral_error_half_width, 1)}" for d in budgets]
    captured = "" if last.captured_mass is None else number(last.captured_mass)
    return [last.backbone, *errors, number(last.frobenius_error), captured]


def _claims(rows: Sequence[BenchmarkRow]) -> str:
    """Say in how many cases the published orders hold; "" if there are none to compare."""
    lines = [
        f"  {one.order}: {one.holds} of {one.cases}; contradicted beyond the intervals: {one.contradicted}"
        for one in agreement(rows)
        if one.cases
    ]
    title = (
        "Figure 1 of arXiv 2112.05359 has curves and no numbers. Orders that its abstract claims, and the cases "
        "(input, n, d) that have them:"
    )
    return "\n".join([title, *lines]) if lines else ""
