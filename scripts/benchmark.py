"""What the harness itself costs: python scripts/benchmark.py listops|data|attention [key=value ...] [out=FILE].

listops: drawing and preparing `examples` of the full grammar, against plain recursion.
data: preparing every task that is at hand, batches a second, padding, and the share of a training step spent waiting.
attention: forward and backward pass of every backbone, against fused softmax.

Every figure is the median of `repeats`, and is printed with its ratio to the first one of its unit; `out`
names a file that gets one line of JSON for each, with machine, versions and commit.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from benchmarks import Figure, attention, data, listops

from lra.arguments import parse
from lra.errors import InputError
from lra.record import current_commit, describe_environment
from lra.tasks.listops_generator import num_cores

TARGETS = {"listops": listops, "data": data, "attention": attention}


def main(arguments: list[str]) -> list[Figure]:
    """Measure one target, print every figure as it comes, and append them to `out`."""
    own = TARGETS[arguments[0]].OPTIONS if arguments and arguments[0] in TARGETS else {}
    target, options = parse(arguments, verbs=tuple(TARGETS), options={"out": "", **own})
    environment = {
        **describe_environment(torch.device("cpu")),
        "numba": version("numba"),
        "num_cores": num_cores(),
    }
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    figures: list[Figure] = []
    for figure in TARGETS[target].measure(options):
        first = next((other for other in figures if other.unit == figure.unit), figure)
        figure.ratio = figure.value / first.value
        figures.append(figure)
        print(
            f"{figure.name:45} {figure.value:12,.2f} {figure.unit:28} x {figure.ratio:7.3f}  {figure.note}", flush=True
        )
    if options["out"]:
        about = {"target": target, "environment": environment, "commit": current_commit()}
        with Path(options["out"]).open("a") as file:
            file.writelines(json.dumps({**asdict(f), **about}) + "\n" for f in figures if math.isfinite(f.value))
    return figures


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
