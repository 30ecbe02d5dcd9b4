"""Rows of benchmarks as they come out of a file, every field at a plain value unless said otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lra.records.benchmark_rows import (
    ApproximationRow,
    BatchRow,
    BenchmarkRow,
    FlopsRow,
    LengthCase,
    LengthRow,
    Origin,
    format_row,
)

ENVIRONMENT = {"device_name": "a machine", "num_threads": 2}
ORIGIN = Origin("attention", "cpu", ENVIRONMENT, "0" * 40, "2026-01-01T00:00:00+00:00")
CASE: dict[str, Any] = {
    "backbone": "foo", "n": 512, "direction": "both", "batch": 1, "budget": 256, "dtype": "float32", "rates": {},
    "origin": ORIGIN,
}  # fmt: skip


def length_case(status: str, **more: Any) -> LengthCase:
    return LengthCase(status=status, **{**CASE, **more})


def length_row(ms: float = 12.34, **more: Any) -> LengthRow:
    values = {
        **CASE, "ms": ms, "ms_quartiles": [ms, 1.1 * ms], "repeats": 5, "ratio_to_fused": 0.5, "flops": 8,
        "exponentials": 2, "peak_bytes": 3 * 2**20, **more,
    }  # fmt: skip
    return LengthRow(**values)


def flops_row(backbone: str, quadratic: float | None, linear: float | None, reason: str = "") -> FlopsRow:
    return FlopsRow(
        backbone=backbone, n=2048, budget=256, quadratic=quadratic, linear=linear, model_forward_flops=2 * 10**9,
        model_training_flops=6 * 10**9, published=None, agrees=None, reason=reason, origin=ORIGIN,
    )  # fmt: skip


def approximation_row(backbone: str, budget: int, error: float, half_width: float) -> ApproximationRow:
    return ApproximationRow(
        input="gaussian", backbone=backbone, n=512, budget=budget, trials=12, entropy_nats=5.7, spectral_error=error,
        spectral_error_half_width=half_width, frobenius_error=error, frobenius_error_half_width=half_width,
    )  # fmt: skip


def batch_row(backbone: str, task: str, largest: int) -> BatchRow:
    return BatchRow(
        task=task, backbone=backbone, memory_gib=2.0, protocol="skeinformer", budget=256, n=1024, wanted=128,
        largest=largest, origin=ORIGIN,
    )  # fmt: skip


def written(path: Path, rows: list[BenchmarkRow]) -> Path:
    """Write a file of rows."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(format_row(row) + "\n" for row in rows))
    return path
