"""What the harness itself costs: python scripts/benchmark.py listops [examples=100000] [repeats=3] [out=FILE].

listops: drawing and preparing that many examples of the full grammar, against plain recursion, and batches a second.
Every figure is the median of `repeats`, and is printed with its ratio to the first one of its unit; `out` names a file
that gets one line of JSON for each, with machine, versions and commit.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lra.arguments import parse
from lra.data import Batching
from lra.errors import InputError
from lra.record import current_commit, describe_environment
from lra.tasks import listops_generator
from lra.tasks.listops import Grammar, ListOps

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))  # the plain twins live with the tests

FULL = Grammar(max_depth=10, max_args=10, operator_probability=0.25, min_length=500, max_length=2000, data_seed=0)
BATCH_SIZE = 32


@dataclass
class Figure:
    """One measured quantity; `ratio` is to the first figure of the same unit."""

    name: str
    value: float
    unit: str
    note: str = ""
    ratio: float = 1.0


def timed(function: Callable[[], Any], repeats: int) -> float:
    """Return the median wall seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def listops(options: dict[str, str]) -> Iterator[Figure]:
    """Measure the generator, then batches of what it made."""
    examples, repeats = (positive(options, name) for name in ("examples", "repeats"))
    size = f"num_train={examples - 2}, num_val=1, num_test=1"
    for name, program, note in (
        (
            "generate, compiled anew",
            "from lra.tasks.listops import Grammar; from lra.tasks.listops_generator import generate; "
            f"generate({FULL!r}, {examples})",
            "a new process with an empty compiler cache, its start included",
        ),
        (
            "prepare, compiled anew",
            "import os; from lra.tasks.listops import ListOps; "
            f"ListOps(cache_dir=os.environ['EMPTY'], {size}).prepare()",
            "the same, with checksums, and written to disk",
        ),
    ):
        yield Figure(name, timed(partial(fresh_process, program), repeats), "s", note)
    from tests.twins import listops as twin

    yield Figure(
        "generate", timed(lambda: listops_generator.generate(FULL, examples), repeats), "s", "compiled already"
    )
    one_thread = timed(lambda: listops_generator.generate(FULL, examples, num_threads=1), repeats)
    yield Figure("generate, one thread", one_thread, "s", "compiled already")

    sample = 8000
    needed = examples / (len(listops_generator.draw(FULL, 0, sample).labels) / sample)
    note = f"one core; {sample:,} candidates were timed, and scaled to the {needed:,.0f} that are needed"
    twin_seconds = timed(lambda: recursive_twin(twin, sample), repeats)
    yield Figure("the recursive twin", twin_seconds * needed / sample, "s", note)
    random_seconds = timed(lambda: recursion_with_random(sample), repeats)
    yield Figure("recursion in the manner of LRA", random_seconds * needed / sample, "s", note)
    yield from batches(repeats)


def fresh_process(program: str) -> None:
    """Run a program in a new interpreter, with no compiled code and an empty folder to use."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "EMPTY": empty}
        subprocess.run([sys.executable, "-c", program], cwd=TOP, env=environment, stderr=subprocess.DEVNULL, check=True)


def recursive_twin(twin: Any, num_candidates: int) -> None:
    """Draw, write and evaluate as the tests' twin of the generator does."""
    for candidate in range(num_candidates):
        tree = twin.draw(FULL, candidate)
        if FULL.min_length < len(twin.words(tree)) < FULL.max_length:
            twin.value(tree)


def recursion_with_random(num_candidates: int) -> None:
    """Draw, write and evaluate in the manner of LRA's `listops.py`: nested pairs, global random numbers."""
    random.seed(0)
    trees = set()
    for _ in range(num_candidates):
        tree, length = random_tree(1)
        if FULL.min_length < length < FULL.max_length:
            trees.add(tree)
    for tree in trees:
        pair_source(tree)
        pair_value(tree)


def random_tree(depth: int) -> tuple[Any, int]:
    """Draw a tree as nested pairs, and count its tokens."""
    if depth >= FULL.max_depth or random.random() > FULL.operator_probability:
        return random.randint(0, 9), 1
    arguments = [random_tree(depth + 1) for _ in range(random.randint(2, FULL.max_args))]
    tree: Any = random.choice(("[MIN", "[MAX", "[MED", "[SM"))
    for argument, _ in arguments:
        tree = (tree, argument)
    return (tree, "]"), 2 + sum(length for _, length in arguments)


def pair_source(tree: Any) -> str:
    """Write nested pairs in the released notation."""
    return f"( {pair_source(tree[0])} {pair_source(tree[1])} )" if isinstance(tree, tuple) else str(tree)


def pair_value(tree: Any) -> Any:
    """Evaluate nested pairs: an unfinished list is its operator and the values so far."""
    if not isinstance(tree, tuple):
        return tree
    left, right = pair_value(tree[0]), pair_value(tree[1])
    if right != "]":
        return (*left, right) if isinstance(left, tuple) else (left, right)
    operator, *values = left
    if operator == "[MED":
        return int(np.median(values))
    return {"[MIN": min, "[MAX": max}[operator](values) if operator != "[SM" else sum(values) % 10


def batches(repeats: int) -> Iterator[Figure]:
    """Measure random batches of the full lengths from a mapped cache entry, against padding row by row."""
    num_batches = 200
    with tempfile.TemporaryDirectory() as folder:
        split = ListOps(cache_dir=folder, num_train=20_000, num_val=1, num_test=1).split("train")
        index = np.random.default_rng(0).integers(0, len(split.labels), (num_batches, BATCH_SIZE))

        batching = Batching(padding="batch", bucket_batches=1)

        def gather() -> None:
            for row in index:
                batching.gather(split, row, FULL.max_length)

        def copy_rows() -> None:
            for row in index:
                rows = [split.tokens[split.offsets[n] : split.offsets[n + 1]] for n in row]
                tokens = np.zeros((len(rows), max(map(len, rows))), np.uint8)
                mask = np.zeros(tokens.shape, bool)
                for place, sequence in enumerate(rows):
                    tokens[place, : len(sequence)] = sequence
                    mask[place, : len(sequence)] = True
                _ = torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(split.labels[row])

        note = f"batches of {BATCH_SIZE} at full length, one process"
        yield Figure("lra.data gather", index.size / timed(gather, repeats), "examples/s", note)
        yield Figure("copying row by row", index.size / timed(copy_rows, repeats), "examples/s", note)


TARGETS: dict[str, tuple[Callable[[dict[str, str]], Iterator[Figure]], dict[str, str]]] = {
    "listops": (listops, {"examples": "100000"}),
}


def positive(options: dict[str, str], name: str) -> int:
    """Read an option that counts something."""
    if not options[name].isdecimal() or int(options[name]) < 3:
        raise InputError(f"{name} must be an integer, at least 3. Got {options[name]!r}.")
    return int(options[name])


def main(arguments: list[str]) -> list[Figure]:
    """Measure one target, print every figure as it comes, and append them to `out`."""
    own = TARGETS.get(arguments[0] if arguments else "", (None, {}))[1]
    target, options = parse(arguments, verbs=tuple(TARGETS), options={"repeats": "3", "out": "", **own})
    environment = {
        **describe_environment(torch.device("cpu")),
        "numba": version("numba"),
        "num_cores": listops_generator.num_cores(),
    }
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    figures: list[Figure] = []
    for figure in TARGETS[target][0](options):
        first = next((other for other in figures if other.unit == figure.unit), figure)
        figure.ratio = figure.value / first.value
        figures.append(figure)
        print(
            f"{figure.name:35} {figure.value:10,.2f} {figure.unit:10} x {figure.ratio:7.2f}  {figure.note}", flush=True
        )
    if options["out"]:
        about = {"target": target, "environment": environment, "commit": current_commit()}
        with Path(options["out"]).open("a") as file:
            file.writelines(json.dumps({**asdict(figure), **about}) + "\n" for figure in figures)
    return figures


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
