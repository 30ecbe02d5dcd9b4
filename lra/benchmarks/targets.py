"""Every target: its options, how it is measured, how its rows are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from lra.benchmarks import (
    approximation,
    data,
    flops,
    launches,
    length_table,
    lengths,
    listops,
    max_batch,
    operators,
    quantities,
    train,
)
from lra.records.benchmark_rows import BenchmarkRow

Options = Mapping[str, str]


class Target(NamedTuple):
    """A target.

    Attributes:
        options: its keys, with their defaults.
        measure: reads the options, which may raise InputError, and returns the rows to come.
        render: makes the table for the terminal of all rows.
    """

    options: Options
    measure: Callable[[Options], Iterator[BenchmarkRow]]
    render: Callable[[Sequence[BenchmarkRow]], str]


TARGETS: dict[str, Target] = {
    "attention": Target(lengths.OPTIONS["attention"], partial(lengths.measure, "attention"), length_table.render),
    "model": Target(lengths.OPTIONS["model"], partial(lengths.measure, "model"), length_table.render),
    "flops": Target(flops.OPTIONS, flops.measure, flops.render),
    "launches": Target(launches.OPTIONS, launches.measure, launches.render),
    "approximation": Target(approximation.OPTIONS, approximation.measure, approximation.render),
    "train": Target(train.OPTIONS, train.measure, train.render),
    "max_batch": Target(max_batch.OPTIONS, max_batch.measure, max_batch.render),
    "data": Target(data.OPTIONS, lambda given: quantities.rows(data.measure(given)), quantities.render),
    "operators": Target(operators.OPTIONS, lambda given: quantities.rows(operators.measure(given)), quantities.render),
    "listops": Target(listops.OPTIONS, lambda given: quantities.rows(listops.measure(given)), quantities.render),
}
