"""How a sweep ended: what Hydra leaves unsaid, which prints the first failure only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lra.records.record import RECORD_NAME, RunRecord


def describe_sweep(results_dir: Path, since: str) -> str:
    """Count the runs begun since a moment by their status, and name each that did not end well.

    Args:
        results_dir: where the runs are.
        since: as `lra.machine.environment.now` gives it.

    Returns:
        A few lines; "" if no run was begun.
    """
    found = []
    for path in sorted((results_dir / "runs").glob(f"*/*/*/{RECORD_NAME}")):
        try:
            record = RunRecord.read(path)
        except ValueError:  # another program's; `report.py` names it
            continue
        if record.date is not None and record.date >= since:
            found.append((record, path))
    if not found:
        return ""
    counts = Counter(record.status for record, _ in found)
    lines = ["sweep: " + ", ".join(f"{count} {status}" for status, count in counts.most_common())]
    for record, path in found:
        if record.status != "ok":
            reason = (record.error or "").strip().splitlines()[-1:] or [""]
            lines.append(f"{record.status}: {record.task} · {record.attn} · seed {record.seed}: {reason[0]} ({path})")
    return "\n".join(lines)
