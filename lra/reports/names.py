"""How things are called in tables, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable

from lra.records.record import BASELINE, RunRecord
from lra.records.retest_record import Retest

# Runs on different data, or on different kinds of machine, never share a table.
TABLE_COLUMNS = ["scale", "protocol", "device"]
STATUS_TEXT = {"out_of_memory": "out of memory"}
SCALES = ("full", "mini", "smoke")
TASK_TITLES = {
    "listops": "ListOps", "text": "Text", "retrieval": "Retrieval", "image": "Image", "pathfinder": "Pathfinder",
    "pathx": "Path-X", "avg": "Average",
}  # fmt: skip


TESTED = {"best": "the weights with the best validation accuracy", "last": "the weights of the last step"}


def data_name(record: RunRecord | Retest) -> str:
    """Tell data sets apart: source, variant and the checksum of the test split."""
    return f"{record.data['source']}, {record.data['variant']}, {record.data['sha256']['test'][:8]}"


def scale_order(scale: str) -> tuple[int, str]:
    """Sort scales from the published size down."""
    return (SCALES.index(scale) if scale in SCALES else len(SCALES)), scale


def comparable(records: Iterable[RunRecord]) -> dict[tuple[str, str, str], list[RunRecord]]:
    """Divide records into what one board may show: by scale, protocol and kind of device."""
    found: dict[tuple[str, str, str], list[RunRecord]] = {}
    for run in records:
        found.setdefault((run.scale, run.protocol, run.device), []).append(run)
    return found


def caption(which: Iterable[str]) -> str:
    """Say whose accuracy a table has."""
    return f"Tested: {' or '.join(TESTED[name] for name in sorted(set(which)))}."


def label(attn: str, settings: str) -> str:
    """Name a row."""
    name = f"baseline: {attn.removeprefix(BASELINE)}" if attn.startswith(BASELINE) else attn
    return f"{name} [{settings}]" if settings else name
