"""Length scaling: every backbone at ascending lengths, against fused softmax and against stored scores."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from lra.benchmarks import options as read
from lra.benchmarks.length_cases import traffic
from lra.benchmarks.rendering import mebibytes, number, table
from lra.benchmarks.roofline import Rates, measure_rates
from lra.benchmarks.subjects import FUSED, MATERIALISED, SUBJECTS
from lra.benchmarks.timing import Progress, Row
from lra.configuration import backbones
from lra.files import ROOT
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


def measure(target: str, options: Mapping[str, str]) -> Iterator[Row]:
    """Read the options; return a row for each backbone, length and direction, the two baselines first."""
    names = read.chosen(options, "attn", backbones())
    names = [FUSED, MATERIALISED, *(name for name in names if name not in (FUSED, MATERIALISED))]
    given = {
        "device": options["device"],
        "lengths": read.counts(options, "lengths"),
        **{key: read.count(options, key) for key in ("budget", "batch")},
        "repeats": read.count(options, "repeats", least=3),
        **{key: read.amount(options, key) for key in ("seconds", "case_seconds", "memory_gib")},
    }
    return _rows(target, names, given)


def _rows(target: str, names: Sequence[str], given: dict[str, Any]) -> Iterator[Row]:
    rates = measure_rates(torch.device(given["device"]))
    stored: dict[tuple[int, str], float] = {}
    progress = Progress(target, len(names))
    for name in progress.over(names):
        for row in in_a_process(target, name, given, progress):
            yield complete({"backbone": name, **row}, target, given, rates, stored)


def in_a_process(target: str, name: str, given: dict[str, Any], progress: Progress) -> Iterator[Row]:
    """Measure one backbone in a fresh process; if that dies, the length it died at has its reason for a status."""
    words = [sys.executable, "-m", "lra.benchmarks.length_cases", target, name, json.dumps(given)]
    done: set[int] = set()
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            row = json.loads(line)
            yield row
            if row["n"] not in done:
                progress.say(f"{name}, n={row['n']} done")
            done.add(row["n"])
        errors = child.stderr.read()
    if child.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        killed = child.returncode == -signal.SIGKILL
        n = next(n for n in given["lengths"] if n not in done)
        status = "out of memory" if killed else f"failed: {last}"
        yield {"n": n, "direction": SUBJECTS[target][1], "status": status}


def complete(
    row: Row, target: str, given: Mapping[str, Any], rates: Rates, stored: dict[tuple[int, str], float]
) -> Row:
    """Put in what only the parent knows: the ratio to stored scores, by way of fused softmax, and the least time."""
    shared = {key: given[key] for key in ("batch", "budget")} | {"dtype": "float32", "rates": rates._asdict()}
    if row["status"] == "ok":
        case = row["n"], row["direction"]
        if row["backbone"] == MATERIALISED:
            stored[case] = row["ratio_to_fused"]
        if case in stored:
            row["ratio_to_materialised"] = row["ratio_to_fused"] / stored[case]
        if target == "attention":
            num_bytes = traffic(row["direction"], row["n"], given["batch"])
            row["least_ms"] = rates.least_ms(row["flops"], row["exponentials"], num_bytes)
    return {**row, **shared}


def render(rows: Sequence[Row]) -> str:
    """Lay out forward and backward together: a line for each length, a backbone's growth on its last one."""
    whole = [row for row in rows if row["direction"] in ("both", "step")]
    lines = []
    for name, found in groupby(whole, key=lambda row: row["backbone"]):
        block = list(found)
        good = [row for row in block if row["status"] == "ok"]
        growth = fit_exponent([row["n"] for row in good], [row["ms"] for row in good])
        for row in block:
            last = bool(good) and row is good[-1]
            first = row is block[0]
            lines.append(
                [name if first else "", f"{row['n']:,}", *_cells(row), *(_growth(growth, good) if last else ("", ""))]
            )
    about = whole[0] if whole else {}
    title = f"ms of {'an optimiser step' if about.get('direction') == 'step' else 'a forward and backward pass'}"
    return f"{title}, batch {about.get('batch')}, budget {about.get('budget')}, float32\n{table(HEAD, lines)}"


def _cells(row: Row) -> list[str]:
    if row["status"] != "ok":
        return ["", row["status"], "", "", "", "", ""]
    low, high = row["ms_quartiles"]
    least = row["ms"] / row["least_ms"] if row.get("least_ms") else None
    return [
        number(row["ms"]), f"{number(low)} to {number(high)}", number(row["ratio_to_fused"]),
        number(row.get("ratio_to_materialised")), number(row.get("ratio_to_transcription")),
        mebibytes(row["peak_bytes"]), number(least),
    ]  # fmt: skip


def _growth(growth: Any, good: Sequence[Row]) -> tuple[str, str]:
    """Write a backbone's exponent, and its efficiency length."""
    from_length = crossing([row["n"] for row in good], [row["ratio_to_fused"] for row in good])
    if good[0]["backbone"] == FUSED:
        from_length = None
    return (
        f"{growth.value:.2f} ± {growth.half_width:.2f}" if growth else "-",
        f"{'≤ ' if from_length.at_most else ''}{from_length.length:,.0f}" if from_length else "-",
    )
