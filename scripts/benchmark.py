"""What things cost, and how near approximations come: python scripts/benchmark.py TARGET [TARGET ...] [key=value ...].

attention: forward and backward pass of every backbone, attention or not, at growing lengths, projections included, and
    of an attention also alone: time, memory, growth, least possible time.
model: the same for an optimiser step of the whole classifier.
flops: counted operations of every backbone, and the leading terms of its formula.
launches: operations that a training step of every backbone launches on the device, and how often the host waits.
approximation: distance of every approximation from exact softmax attention, at growing budgets.
train: the training loop's own cost, the time to the first step, real batches against plain transcriptions, bf16.
max_batch: the largest batch that fits, for every task and method.
data: preparing every task that is at hand, batches a second, padding, and the share of a step spent waiting.
listops: drawing and preparing ListOps, against plain recursion.
operators: convolution by FFT and the associative scan at growing lengths.
report: tables and figures of what is in the folder `out`; measures nothing.

A key goes to every target that has it. With `out=results/benchmarks` the rows of a target replace the file
<device>-<target>.jsonl there, a line of JSON each; results/benchmarks/README.md explains them. Until its target is done
they are in <device>-<target>.jsonl.unfinished.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import torch

from lra.arguments import help_if_asked, parse_several
from lra.benchmarks import report
from lra.benchmarks.targets import TARGETS
from lra.errors import InputError
from lra.files import writing
from lra.machine.environment import current_commit, describe_environment, now
from lra.machine.terminal import secure_output
from lra.records.benchmark_rows import BenchmarkRow, Origin, format_row

OUTPUT = Path("results", "benchmarks")


def main(arguments: list[str]) -> None:
    """Measure every target that is named, print its table, and keep its rows where `out` says."""
    keys = dict.fromkeys(key for target in TARGETS.values() for key in target.options)
    verbs, given = parse_several(arguments, verbs=(*TARGETS, "report"), options=("out", *keys))
    if not verbs:
        raise InputError(f"Say what to measure: {', '.join(TARGETS)}; or report. Several may be named.")
    out = given.pop("out", None)
    folder = Path(out) if out else None
    targets = [name for name in verbs if name != "report"]
    own = {name: {key: given.get(key, value) for key, value in TARGETS[name].options.items()} for name in targets}
    if unused := [key for key in given if not any(key in options for options in own.values())]:
        raise InputError(
            f"{unused[0]}= is no option of {', '.join(targets) or 'report'}. Options: {_options(targets)}."
        )
    # Every option is read before anything is measured.
    measurements = {name: TARGETS[name].measure(own[name]) for name in targets}
    for name, rows in measurements.items():
        run(name, rows, own[name].get("device", "cpu"), folder)
    if "report" in verbs:
        report.write(folder or OUTPUT)


def run(name: str, rows: Iterator[BenchmarkRow], device: str, folder: Path | None) -> None:
    """Measure one target."""
    environment = describe_environment(torch.device(device))
    origin = Origin(name, device, environment, current_commit(), now())
    done: list[BenchmarkRow] = []
    with ExitStack() as stack:
        # Rows are written as they come: what a stopped benchmark measured can be read, though it begins anew.
        kept = stack.enter_context(_open(folder / f"{device}-{name}.jsonl.unfinished")) if folder else None
        for row in rows:
            done.append(replace(row, origin=origin))
            if kept:
                kept.write(format_row(done[-1]) + "\n")
                kept.flush()
        print(file=sys.stderr)
        versions = ", ".join(f"{key} {value}" for key, value in environment.items())
        print(f"{name}: {versions}, commit {origin.commit}\n{TARGETS[name].render(done)}\n", flush=True)
    if kept:
        Path(kept.name).replace(kept.name.removesuffix(".unfinished"))


def _open(path: Path) -> TextIO:
    with writing(f"out={path.parent}", "Choose another folder."):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")


def _options(targets: Sequence[str]) -> str:
    return " ".join(f"{key}={value}" for name in targets for key, value in TARGETS[name].options.items())


if __name__ == "__main__":
    secure_output()
    help_if_asked(__doc__)
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
