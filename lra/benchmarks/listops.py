"""The target `listops`: the ListOps generator against plain recursion."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from lra.benchmarks import listops_by_recursion
from lra.benchmarks import options as read
from lra.benchmarks.data import batches
from lra.benchmarks.quantities import Quantity, timed
from lra.files import ROOT
from lra.tasks.listops import generator
from lra.tasks.listops.grammar import Grammar
from lra.tasks.listops.task import ListOps

OPTIONS = {"examples": "100000", "repeats": "3"}
FULL = Grammar(max_depth=10, max_args=10, operator_probability=0.25, min_length=500, max_length=2000, data_seed=0)


def measure(options: Mapping[str, str]) -> Iterator[Quantity]:
    """Read the options; measure the generator, then batches of what it made."""
    return _measure(read.count(options, "examples", least=10), read.count(options, "repeats"))


def _measure(examples: int, repeats: int) -> Iterator[Quantity]:
    size = f"num_train={examples - 2}, num_val=1, num_test=1"
    for name, program, note in (
        (
            "generate, compiled anew",
            "from lra.tasks.listops.task import Grammar; from lra.tasks.listops.generator import generate; "
            f"generate({FULL!r}, {examples})",
            "a new process with an empty compiler cache, its start included",
        ),
        (
            "prepare, compiled anew",
            "import os; from lra.tasks.listops.task import ListOps; "
            f"ListOps(cache_dir=os.environ['EMPTY'], {size}).prepare()",
            "the same, with checksums, and written to disk",
        ),
    ):
        yield Quantity(name, timed(partial(fresh_process, program), repeats), "s", note)

    yield Quantity("generate", timed(lambda: generator.generate(FULL, examples), repeats), "s", "compiled already")
    one_thread = timed(lambda: generator.generate(FULL, examples, num_threads=1), repeats)
    yield Quantity("generate, one thread", one_thread, "s", "compiled already")

    sample = 8000
    needed = examples / (len(generator.draw(FULL, 0, sample).labels) / sample)
    note = f"one core; {sample:,} candidates were timed, and scaled to the {needed:,.0f} that are needed"
    twin_seconds = timed(lambda: recursive_twin(sample), repeats)
    yield Quantity("the recursive twin", twin_seconds * needed / sample, "s", note)
    random_seconds = timed(lambda: recursion_with_random(sample), repeats)
    yield Quantity("recursion in the manner of LRA", random_seconds * needed / sample, "s", note)
    with tempfile.TemporaryDirectory() as folder:
        yield from batches("listops", ListOps(cache_dir=folder, num_train=20_000, num_val=1, num_test=1), repeats)


def fresh_process(program: str) -> None:
    """Run a program in a new interpreter, with no compiled code and an empty folder to use."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "EMPTY": empty}
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, check=True
        )


def recursive_twin(num_candidates: int) -> None:
    """Draw, write and evaluate by plain recursion."""
    for candidate in range(num_candidates):
        tree = listops_by_recursion.draw(FULL, candidate)
        if FULL.min_length < len(listops_by_recursion.words(tree)) < FULL.max_length:
            listops_by_recursion.value(tree)


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
