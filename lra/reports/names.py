"""The names of settings, data, statuses and rows in tables, and their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lra.machine.environment import package_text
from lra.records.record import BASELINE, RunRecord
from lra.records.retest_record import Retest

SCALES = ("full", "mini", "smoke")
TASK_TITLES = {
    "listops": "ListOps", "text": "Text", "retrieval": "Retrieval", "image": "Image", "pathfinder": "Pathfinder",
    "pathx": "Path-X", "avg": "Average",
}  # fmt: skip
TESTED = {"best": "the weights with the best validation accuracy", "last": "the weights of the last step"}


class Setting(NamedTuple):
    """Scale, protocol and kind of device of a run; runs that differ in one of them never share a table."""

    scale: str
    protocol: str
    device: str

    @classmethod
    def of(cls, run: RunRecord) -> Setting:
        """Return the setting of a run."""
        return cls(run.scale, run.protocol, run.device)

    @property
    def title(self) -> str:
        """The setting in the title of a table."""
        return f"scale={self.scale}, protocol={self.protocol}, on {self.device}"

    @property
    def order(self) -> tuple[tuple[int, str], Setting]:
        """Sorts settings: the published size first."""
        return scale_order(self.scale), self


def scale_order(scale: str) -> tuple[int, str]:
    """Sort scales from the published size down."""
    return (SCALES.index(scale) if scale in SCALES else len(SCALES)), scale


def comparable(records: Iterable[RunRecord]) -> dict[Setting, list[RunRecord]]:
    """Group records by setting: one table or figure may show one group."""
    boards: dict[Setting, list[RunRecord]] = {}
    for run in records:
        boards.setdefault(Setting.of(run), []).append(run)
    return boards


def data_name(record: RunRecord | Retest) -> str:
    """Name a data set by source, variant and the checksum of its test split."""
    return f"{record.data['source']}, {record.data['variant']}, {record.data['sha256']['test'][:8]}"


def status_text(status: str) -> str:
    """Write a run's status in words: `out_of_memory` as three."""
    return status.replace("_", " ")


def caption(weights: Iterable[str]) -> str:
    """Say which weights a table's accuracies are of, given `best` or `last` for each of them."""
    return f"Tested: {' or '.join(TESTED[name] for name in sorted(set(weights)))}."


def elsewhere(runs: Iterable[RunRecord]) -> list[str]:
    """Name the code of every mechanism that is not of this repository, in the order of their names."""
    packages = {
        (run.attn, package_text(run.environment["mechanism"])) for run in runs if "mechanism" in run.environment
    }
    return [f"{attn} is not of this repository: {text}." for attn, text in sorted(packages)]


def several_processors(runs: Iterable[RunRecord]) -> list[str]:
    """Name the groups of seeds that ran on processors of several makes, in the order of their names."""
    groups: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        seeds = groups.setdefault((run.attn, run.task, run.group), {})
        seeds.setdefault(_processor(run), []).append(run.seed)
    sentences = []
    for (attn, task, _), makes in sorted(groups.items()):
        if len(makes) > 1:
            parts = [f"{make} (seed {', '.join(map(str, own))})" for make, own in makes.items()]
            sentences.append(
                f"{attn} on {task} ran on several makes of processor, whose rounding adds to the spread over seeds: "
                f"{'; '.join(parts)}."
            )
    return sentences


def _processor(run: RunRecord) -> str:
    """Name the make of the processor or GPU that a run ran on."""
    facts = [run.environment.get(name) for name in ("device_name", "cpu_capability")]
    return ", ".join(fact for fact in facts if fact) or "unknown"


def label(run: RunRecord, settings: str = "") -> str:
    """Name the row of a run, with the settings in which it differs from others of its name."""
    name = f"baseline: {run.attn.removeprefix(BASELINE)}" if run.is_baseline else run.attn
    return f"{name} [{settings}]" if settings else name
