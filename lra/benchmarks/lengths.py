"""The targets `attention` and `model`: every backbone at ascending lengths, against fused softmax and stored scores."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby

import torch

from lra.benchmarks import options as read
from lra.benchmarks.length_cases import Settings
from lra.benchmarks.mechanisms import IS_A_MIXER, factory, makes_attention
from lra.benchmarks.numbers import mebibytes, number
from lra.benchmarks.passes import FUSED, MATERIALISED, PASSES
from lra.benchmarks.roofline import measure_rates
from lra.benchmarks.timing import Progress
from lra.configuration import backbones
from lra.files import ROOT
from lra.records.benchmark_rows import WHOLE, BenchmarkRow, LengthCase, LengthRow, parse_row
from lra.reports.report import terminal
from lra.statistics import crossing, fit_exponent

COMMON = {"attn": "all", "budget": "256", "repeats": "5", "device": "cpu", "memory_gib": "4", "case_seconds": "20"}
OPTIONS = {
    # One sequence, so that the longest case of fused softmax takes seconds; a batch of many tokens shows no more.
    "attention": {**COMMON, "lengths": "512,1024,2048,4096,8192,16384", "batch": "1", "seconds": "2"},
    "model": {**COMMON, "lengths": "512,1024,2048,4096", "batch": "4", "seconds": "2"},
}
HEAD = (
    "backbone", "n", "ms", "quartiles", "x fused softmax", "x stored scores", "x transcription", "peak MiB",
    "x least time", "exponent", "faster than fused from",
)  # fmt: skip


def measure(target: str, options: Mapping[str, str]) -> Iterator[LengthCase]:
    """Read the options; return a row for each backbone, length and direction, the two baselines first."""
    names = read.chosen(options, "attn", backbones())
    names = [FUSED, MATERIALISED, *(name for name in names if name not in (FUSED, MATERIALISED))]
    settings = Settings(
        device=options["device"],
        lengths=read.counts(options, "lengths"),
        batch=read.count(options, "batch"),
        budget=read.count(options, "budget"),
        repeats=read.count(options, "repeats", least=3),
        seconds=read.amount(options, "seconds"),
        case_seconds=read.amount(options, "case_seconds"),
        memory_gib=read.amount(options, "memory_gib"),
        rates={},
    )
    return _rows(target, names, settings)


def _rows(target: str, names: Sequence[str], settings: Settings) -> Iterator[LengthCase]:
    settings = replace(settings, rates=measure_rates(torch.device(settings.device))._asdict())
    stored: dict[tuple[int, str], float] = {}
    progress = Progress(target, len(names))
    for name in progress.over(names):
        if not PASSES[target].takes_mixers and not makes_attention(factory(name, settings.budget)):
            about = settings.about(name, settings.lengths[0])
            yield LengthCase(status=IS_A_MIXER, direction=PASSES[target].whole, **about)
            continue
        for row in in_a_process(target, name, settings, progress):
            yield against_stored_scores(row, stored)


def in_a_process(target: str, name: str, settings: Settings, progress: Progress) -> Iterator[LengthCase]:
    """Measure one backbone in a fresh process; if that dies, the length it died at has its reason for a status."""
    words = [sys.executable, "-m", "lra.benchmarks.length_cases", target, name, json.dumps(asdict(settings))]
    done: set[int] = set()
    # In the checkout, so that its code is imported from wherever the benchmark was started.
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            row = parse_row(target, line)
            assert isinstance(row, LengthCase)
            yield row
            if row.n not in done:
                progress.say(f"{name}, n={row.n} done")
            done.add(row.n)
        errors = child.stderr.read()
    if child.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        status = "out of memory" if child.returncode == -signal.SIGKILL else f"failed: {last}"
        for n in [n for n in settings.lengths if n not in done][:1]:
            yield LengthCase(status=status, direction=PASSES[target].whole, **settings.about(name, n))


def against_stored_scores(row: LengthCase, stored: dict[tuple[int, str], float]) -> LengthCase:
    """Put in the ratio to stored scores, by way of fused softmax; `stored` keeps theirs, by length and direction."""
    if not isinstance(row, LengthRow):
        return row
    case = row.n, row.direction
    if row.backbone == MATERIALISED:
        stored[case] = row.ratio_to_fused
    return replace(row, ratio_to_materialised=row.ratio_to_fused / stored[case]) if case in stored else row


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out forward and backward together: a line for each length, a backbone's growth on its last one."""
    whole = [row for row in rows if isinstance(row, LengthCase) and row.direction in WHOLE]
    lines = []
    for name, group in groupby(whole, key=lambda row: row.backbone):
        block = list(group)
        good = [row for row in block if isinstance(row, LengthRow)]
        for row in block:
            growth = _growth(good) if good and row is good[-1] else ("", "")
            lines.append([name if row is block[0] else "", f"{row.n:,}", *_cells(row), *growth])
    title = "No length was measured."
    if whole:
        what = "an optimiser step" if whole[0].direction == "step" else "a forward and backward pass"
        title = f"ms of {what}, batch {whole[0].batch}, budget {whole[0].budget}, float32"
    return f"{title}\n{terminal(HEAD, lines)}"


def _cells(row: LengthCase) -> list[str]:
    if not isinstance(row, LengthRow):
        return ["", row.status, "", "", "", "", ""]
    low, high = row.ms_quartiles
    least = row.ms / row.least_ms if row.least_ms else None
    return [
        number(row.ms), f"{number(low)} to {number(high)}", number(row.ratio_to_fused),
        number(row.ratio_to_materialised), number(row.ratio_to_transcription), mebibytes(row.peak_bytes), number(least),
    ]  # fmt: skip


def _growth(rows: Sequence[LengthRow]) -> tuple[str, str]:
    """Write a backbone's exponent, and its efficiency length."""
    lengths = [row.n for row in rows]
    growth = fit_exponent(lengths, [row.ms for row in rows])
    from_length = crossing(lengths, [row.ratio_to_fused for row in rows])
    if rows[0].backbone == FUSED:
        from_length = None
    return (
        f"{growth.value:.2f} ± {growth.half_width:.2f}" if growth else "-",
        f"{'≤ ' if from_length.at_most else ''}{from_length.length:,.0f}" if from_length else "-",
    )
