"""A preview of prepared data: a table of every split, and a figure of samples and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lra.tasks import PARTS, Split, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ("task", "source", "variant", "split", "examples", "labels", "length 5 / 50 / 95 / 100 %", "sha256")
SAMPLES = 5


def rows(name: str, task: Task) -> list[list[str]]:
    """Describe the splits of a prepared task, one row each, in the columns of `HEAD`.

    `labels` is the share of the rarest and of the most frequent class; lengths are of single sequences, in tokens.
    """
    description = task.describe()
    return [
        [
            name,
            description["source"],
            description["variant"],
            part,
            f"{description['sizes'][part]:,}",
            "{:.1%} to {:.1%}".format(*_shares(split, task.num_classes)),
            " / ".join(f"{length:,.0f}" for length in np.quantile(np.diff(split.offsets), [0.05, 0.5, 0.95, 1])),
            description["sha256"][part][:16],
        ]
        for part in PARTS
        for split in [task.split(part)]
    ]


def _shares(split: Split, num_classes: int) -> tuple[float, float]:
    shares = np.bincount(split.labels, minlength=num_classes) / len(split.labels)
    return float(shares.min()), float(shares.max())


def plot(tasks: Mapping[str, Task], path: Path) -> None:
    """Draw a row for each task: samples of every image task with their labels, and the lengths of the others."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * SAMPLES, 2.6 * len(tasks)), layout="constrained")
    parts = figure.subfigures(len(tasks), squeeze=False)[:, 0]
    for part, (name, task) in zip(parts, tasks.items(), strict=True):
        part.suptitle(name, x=0.01, ha="left", fontweight="bold")
        if task.image_side is None:
            _lengths(part.subplots(), task)
        else:
            for number, axis in enumerate(part.subplots(1, SAMPLES)):
                _image(axis, task.split("train"), number, task.num_classes, task.image_side)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _image(axis: Axes, split: Split, number: int, num_classes: int, side: int) -> None:
    """Show sample `number`; the samples take turns through the classes."""
    example = np.flatnonzero(split.labels == number % num_classes)[number // num_classes]
    pixels = split.tokens[split.offsets[example] : split.offsets[example + 1]].reshape(side, side)
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axis.set_title(f"label {split.labels[example]}", fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def _lengths(axis: Axes, task: Task) -> None:
    for part in PARTS:
        lengths = np.diff(task.split(part).offsets)
        axis.hist(lengths, bins=60, range=(0, task.max_len), density=True, histtype="step", label=part)
    axis.set_xlim(0, task.max_len * 1.02)
    axis.set_xlabel("tokens in a sequence")
    axis.set_ylabel("share")
    axis.set_yticks([])
    axis.legend(frameon=False, loc="upper center")
