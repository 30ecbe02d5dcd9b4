"""The targets `attention` and `model`: every backbone at ascending lengths, against fused softmax and stored scores.

`attention` measures all as mixers of one width, projections included, so that they are comparable, and an attention
also alone, on queries, keys and values that are handed in. `length_table` lays the rows out.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import torch

from lra.benchmarks import options as read
from lra.benchmarks.length_cases import Settings
from lra.benchmarks.mechanisms import factory, makes_attention
from lra.benchmarks.passes import ALONE, FUSED, MATERIALISED, MIXER, MODEL, PASSES
from lra.benchmarks.roofline import measure_rates
from lra.benchmarks.timing import Progress
from lra.configuration import backbones
from lra.files import ROOT
from lra.records.benchmark_rows import LengthCase, LengthRow, parse_row

COMMON = {"attn": "all", "budget": "256", "repeats": "5", "device": "cpu", "memory_gib": "4", "case_seconds": "20"}
OPTIONS = {
    # One sequence, so that the longest case of fused softmax takes seconds; a batch of many tokens shows no more.
    "attention": {**COMMON, "lengths": "512,1024,2048,4096,8192,16384", "batch": "1", "seconds": "2"},
    "model": {**COMMON, "lengths": "512,1024,2048,4096", "batch": "4", "seconds": "2"},
}
TIMED = {"attention": (MIXER, ALONE), "model": (MODEL,)}


def measure(target: str, options: Mapping[str, str]) -> Iterator[LengthCase]:
    """Read the options; return a row for each backbone, length and direction, the two baselines first."""
    names = read.chosen(options, "attn", backbones())
    names = [FUSED, MATERIALISED, *(name for name in names if name not in (FUSED, MATERIALISED))]
    settings = Settings(
        timed="",
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
    stored: dict[tuple[int, str, bool], float] = {}
    progress = Progress(target, len(names))
    for name in progress.over(names):
        for timed in TIMED[target]:
            if timed == ALONE and not makes_attention(factory(name, settings.budget)):
                continue
            for row in in_a_process(target, name, replace(settings, timed=timed), progress):
                yield against_stored_scores(row, stored)


def in_a_process(target: str, name: str, settings: Settings, progress: Progress) -> Iterator[LengthCase]:
    """Measure one backbone in a fresh process; if that dies, the length it died at has its reason for a status."""
    words = [sys.executable, "-m", "lra.benchmarks.length_cases", name, json.dumps(asdict(settings))]
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
                progress.say(f"{name}, {settings.timed}, n={row.n} done")
            done.add(row.n)
        errors = child.stderr.read()
    if child.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        status = "out of memory" if child.returncode == -signal.SIGKILL else f"failed: {last}"
        for n in [n for n in settings.lengths if n not in done][:1]:
            yield LengthCase(status=status, direction=PASSES[settings.timed].whole, **settings.about(name, n))


def against_stored_scores(row: LengthCase, stored: dict[tuple[int, str, bool], float]) -> LengthCase:
    """Put in the ratio to stored scores, by way of fused softmax; `stored` keeps theirs, case by case."""
    if not isinstance(row, LengthRow):
        return row
    case = row.n, row.direction, row.as_mixer
    if row.backbone == MATERIALISED:
        stored[case] = row.ratio_to_fused
    return replace(row, ratio_to_materialised=row.ratio_to_fused / stored[case]) if case in stored else row
