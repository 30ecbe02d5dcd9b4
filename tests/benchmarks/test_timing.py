"""Parts, repetitions and their summary."""

from __future__ import annotations

import time

import pytest
import torch

from lra.benchmarks.timing import interleave, milliseconds, seconds_of

CPU = torch.device("cpu")


def test_parts_are_timed_apart_and_together():
    seconds = seconds_of({"short": lambda: time.sleep(0.01), "long": lambda: time.sleep(0.03)}, CPU, "both")
    assert 0.01 <= seconds["short"] < seconds["long"] < seconds["both"]
    assert seconds["both"] == pytest.approx(seconds["short"] + seconds["long"])


def test_repetitions_alternate_and_end_with_the_time():
    order = []

    def action(name, seconds=0.0):
        time.sleep(seconds)
        order.append(name)
        return {"both": seconds}

    times = interleave({name: lambda name=name: action(name) for name in "ab"}, 4, seconds=60)
    assert order == list("abbaabba")
    assert {name: len(values["both"]) for name, values in times.items()} == {"a": 4, "b": 4}
    times = interleave({"a": lambda: action("a", 0.01)}, 100, seconds=0)
    assert len(times["a"]["both"]) == 3  # enough for quartiles, whatever the time


def test_a_row_has_median_and_quartiles():
    assert milliseconds([0.001, 0.002, 0.009])._asdict() == {
        "ms": pytest.approx(2), "ms_quartiles": [pytest.approx(1.5), pytest.approx(5.5)], "repeats": 3,
    }  # fmt: skip
