"""A results folder with something of everything to show: scales, protocols, failures, curves, benchmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts import report
from tests.helpers.benchmark_rows import ORIGIN, length_row, written
from tests.helpers.records import record, saved, with_published

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
ACCURACIES = {"softmax": 0.44, "skeinformer": 0.40, "performer": 0.38, "nystromformer": 0.41, "vmean": 0.37}
ENVIRONMENT = {"device_name": "A machine", "num_threads": 2, "torch": "2.13.0"}


def shown(results_dir: Path) -> Path:
    """Fill the folder; names and errors hold what a page must not run."""
    common = {"environment": ENVIRONMENT, "command": "python run.py scale=mini", "num_params": 81610, "steps": 3}
    records = [
        record(
            attn, seed, accuracy + 0.01 * seed, task=task, ms_per_step=45.0 - 7 * place,
            peak_memory_bytes=(500 - 40 * place) << 20, **common,
        )
        for place, (attn, accuracy) in enumerate(ACCURACIES.items())
        for task in ("listops", "pathfinder")
        for seed in (0, 1, 2)
    ]  # fmt: skip
    records += [
        record("bigbird", 0, None, status="diverged", error=f"Error: {ATTACK}", **common),
        record(ATTACK.replace("/", "_"), 0, 0.2, group="attack", **{**common, "command": ATTACK}),
        record("skeinformer", 0, 0.38, scale="full", device="cuda", group="full", **common),
        record(
            "vmean",
            0,
            0.38,
            scale="full",
            group="own",
            **{**common, "command": "python run.py scale=full trainer.steps=40"},
        ),
        record("vmean", 0, 0.6, task="text", load_average=5.0, training_flops=10**7, **common),
    ]
    saved(with_published(results_dir), *records)
    origin = replace(ORIGIN, environment=ENVIRONMENT)
    rows = [
        length_row(n**power / 1e3, backbone=attn, n=n, peak_bytes=round(n**power * 50), origin=origin)
        for attn, power in (("softmax", 2), ("skeinformer", 1.1))
        for n in (256, 512, 1024, 2048)
    ]
    written(results_dir / "benchmarks" / "cpu-attention.jsonl", rows)
    return results_dir


def printed(capsys: Any, *words: str) -> str:
    """What the script prints for these arguments."""
    assert report.main(list(words)) == 0
    return capsys.readouterr().out
