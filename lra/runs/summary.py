"""What a run prints when it ends: its accuracy against the floors, its cost, and where its record is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lra.machine.environment import package_text
from lra.records.record import FLOOR, PREDICTIONS_NAME, RECORD_NAME, WEIGHTS, RunRecord
from lra.statistics import sampling_half_width


def summarize(record: RunRecord, folder: Path) -> str:
    """Describe a finished run in a few aligned lines."""
    lines = [
        (f"{record.task} · {record.attn}", f"{record.status}, {record.steps:,} steps, {record.num_params:,} parameters")
    ]
    if record.test_accuracy is not None and record.last_test_accuracy is not None:
        half = sampling_half_width(record.test_accuracy, record.data["sizes"]["test"])
        lines += [
            (
                "test accuracy",
                f"{record.test_accuracy:6.1%} ± {half:.1%}   weights of step {record.best_step}, best on validation",
            ),
            ("  last step", f"{record.last_test_accuracy:6.1%}"),
        ]
    same = _same_as_floors(folder)
    for name, accuracy in _descending(record.floors):
        lines.append((f"  {name}", f"{accuracy:6.1%}   floor" + (f", same class in {same[name]:.1%}" if same else "")))
    if record.train_seconds is not None and record.ms_per_step is not None and record.ms_per_step_quartiles:
        low, high = record.ms_per_step_quartiles
        lines.append(
            (
                "training",
                f"{record.train_seconds:,.1f} s, {record.ms_per_step:.1f} ms a step (quartiles {low:.1f}, {high:.1f})",
            )
        )
    if record.peak_memory_bytes is not None:
        kind = "allocated on the GPU" if record.device == "cuda" else "resident"
        lines.append(("peak memory", f"{record.peak_memory_bytes / 2**20:,.0f} MiB {kind}"))
    if "mechanism" in record.environment:
        lines.append(("mechanism", package_text(record.environment["mechanism"])))
    lines.append(("record", str(folder / RECORD_NAME)))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _same_as_floors(folder: Path) -> dict[str, float]:
    """Return the share of the test examples that the run's best weights put in the class that a floor does."""
    path = folder / PREDICTIONS_NAME
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        best = arrays[WEIGHTS[0]]
        return {
            name.removeprefix(FLOOR): float((arrays[name] == best).mean()) for name in arrays if name.startswith(FLOOR)
        }


def _descending(floors: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(floors.items(), key=lambda item: -item[1])
