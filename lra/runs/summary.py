"""What a run prints when it ends (accuracy, floors, cost), and what a sweep does (how many runs ended how)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.machine.environment import package_text
from lra.machine.source import in_words
from lra.records.folder import RunFolder
from lra.records.reading import leaving_out
from lra.records.record import FLOOR, RunRecord, tested
from lra.statistics import ONE_SEED, sampling_half_width


def summarize(record: RunRecord, folder: RunFolder) -> str:
    """Describe a finished run in a few aligned lines."""
    # A model for which there was no memory has none.
    parameters = "" if record.num_params is None else f", {record.num_params:,} parameters"
    lines = [(f"{record.task} · {record.attn}", f"{record.status}, {record.steps:,} steps{parameters}")]
    lines += _accuracies(record)
    shares = _same_as_floors(record, folder)
    for name, accuracy in _descending(record.floors):
        agreement = f", same class in {shares[name]:.1%}" if name in shares else ""
        lines.append((f"  {name}", f"{accuracy:6.1%}   floor{agreement}"))
    if record.pretraining is not None:
        lines.append(("pre-training", _pretraining_text(record.pretraining)))
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
    if modules := record.changed_modules:
        lines.append(("source", f"{in_words(modules)}: not a result of the present code, which force=true trains"))
    lines.append(("record", str(folder.record)))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _accuracies(record: RunRecord) -> list[tuple[str, str]]:
    """Describe the accuracy that the protocol's table takes, and beneath it that of the other weights."""
    best, last = record.test_accuracy, record.last_test_accuracy
    if best is None or last is None:
        return []
    told = [
        (best, f"weights of step {record.best_step}, best on validation", "  best on validation"),
        (last, f"weights of the last step, {record.steps:,}", "  last step"),
    ]
    (accuracy, weights, _), (other, _, name) = told[::-1] if tested(record) == "last" else told
    half = sampling_half_width(accuracy, record.data["sizes"]["test"])
    return [
        ("test accuracy", f"{accuracy:6.1%} ± {half:.1%} ({ONE_SEED})   {weights}"),
        (name, f"{other:6.1%}"),
    ]


def _pretraining_text(stage: Mapping[str, Any]) -> str:
    """Say what an encoder learned before the run, at what cost."""
    score = {"token_accuracy": f"{stage['val_score']:.1%} of tokens right", "r2": f"R² {stage['val_score']:.3f}"}
    seconds = "" if stage["train_seconds"] is None else f", {stage['train_seconds']:,.1f} s"
    found = ", found" if stage["reused"] else ""
    return f"{stage['kind']}, {stage['steps']:,} steps{seconds}, {score[stage['score']]}: {stage['key']}{found}"


def describe_sweep(results_dir: Path, since: str) -> str:
    """Count the runs begun since a moment by their status, and name all that did not end ok; Hydra names the first.

    Finished runs that were asked for again since then count where their mechanism has changed.

    Args:
        results_dir: where the runs are.
        since: as `lra.machine.environment.now` gives it.

    Returns:
        A few lines; "" if no run was begun.
    """
    begun, outdated = [], 0
    for folder in RunFolder.all(results_dir):
        try:
            record = RunRecord.read(folder.record)
        except (OSError, ValueError):  # it has none yet, or a damaged one, which `report.py` names
            continue
        if record.date is not None and record.date >= since:
            begun.append((record, folder))
        elif (holder := folder.holder()) and holder.since >= since and record.is_final and record.changed_modules:
            outdated += 1
    counts = Counter(record.status for record, _ in begun)
    said = [f"{count} {status}" for status, count in counts.most_common()]
    if outdated:
        said.append(f"{outdated} finished before with other source, which force=true trains again")
    if not said:
        return ""
    lines = ["sweep: " + ", ".join(said)]
    for record, folder in begun:
        if record.status != "ok":
            run = f"{record.task} · {record.attn} · seed {record.seed}"
            reason = (record.error or "").strip().splitlines()[-1:] or [""]
            lines.append(f"{record.status}: {run}: {reason[0]} ({folder.record})")
    return "\n".join(lines)


def _same_as_floors(record: RunRecord, folder: RunFolder) -> dict[str, float]:
    """Return the share of the test examples that the tested weights put in the class that a floor does."""
    classes: dict[str, NDArray[np.uint8]] = {}
    with leaving_out(folder.predictions):
        classes = folder.read_predictions(record)
    own = classes.get(tested(record))
    floors = {name.removeprefix(FLOOR): classes[name] for name in classes if name.startswith(FLOOR)}
    return {} if own is None else {name: float((predicted == own).mean()) for name, predicted in floors.items()}


def _descending(floors: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(floors.items(), key=lambda item: -item[1])
