"""Hand-written records, and a results folder of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lra.files import ROOT
from lra.records.identity import run_group, run_key
from lra.records.record import RunRecord

PUBLISHED = ROOT / "results" / "published"
GENERATED = {"source": "generated", "variant": "brackets", "sizes": {"test": 10000}, "sha256": {"test": "ab" * 32}}


LABELLED = np.random.default_rng(0).integers(0, 10, 10000).astype(np.uint8)  # true classes of a test split


def record(attn: str, seed: int, accuracy: float | None, status="ok", task="listops", **more) -> RunRecord:
    """A record whose key and group are names."""
    group = more.pop("group", f"{task}-{attn}")
    return RunRecord(
        **{
            "key": f"{group}-{seed}", "group": group, "task": task, "attn": attn, "protocol": "skeinformer",
            "scale": "mini", "seed": seed, "config": {"attn": {"name": attn}, "seed": seed}, "status": status,
            "data": GENERATED, "environment": {"num_threads": 1}, "load_average": 1.0,
            "test_accuracy": accuracy, "ms_per_step": 20.0 + seed,
            "floors": {"root_operator": 0.25, "majority": 0.125} if task == "listops" else {"majority": 0.5},
            **more,
        }
    )  # fmt: skip


def sound(attn: str, seed: int, accuracy: float, **more: Any) -> RunRecord:
    """A record whose key is the hash of its configuration, as those of runs are."""
    run = record(attn, seed, accuracy, **more)
    run.config = {
        "task": {"name": run.task}, "attn": {"name": attn}, "scale": run.scale, "seed": seed, "prepared": run.data,
        "protocol": {"name": run.protocol, **run.config.get("protocol", {})}, "device": run.device,
    }  # fmt: skip
    run.key = run_key(run.config)
    run.group = run_group(run.config)
    return run


def saved(results_dir: Path, *records: RunRecord, labels: np.ndarray | None = None) -> None:
    """Write run folders; with `labels`, predictions that are right as often as each record says."""
    for one in records:
        folder = results_dir / "runs" / one.task / one.attn / one.key
        folder.mkdir(parents=True)
        one.write(folder)
        points = [{"step": step, "val_accuracy": 0.1 * step, "epoch": step / 4} for step in (1, 2, 3)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
        if labels is not None and one.test_accuracy is not None:
            wrong = np.random.default_rng([one.seed, *one.attn.encode()]).permutation(
                len(labels)
            ) >= one.test_accuracy * len(labels)
            predictions = np.where(wrong, (labels + 1) % 10, labels).astype(np.uint8)
            np.savez_compressed(folder / "predictions.npz", labels=labels, best=predictions, last=predictions)


def with_published(results_dir: Path) -> Path:
    """Give a results folder the published numbers."""
    results_dir.mkdir(parents=True, exist_ok=True)
    (results_dir / "published").symlink_to(PUBLISHED)
    return results_dir


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
