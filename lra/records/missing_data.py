"""Notes of data that could not be had, which tell the gaps of a sweep from its failures.

Without data a run has no key, so it has no folder and no record: only task, protocol and scale are known.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import with_config

from lra.files import write_atomically
from lra.machine.environment import now
from lra.records.folder import RUNS
from lra.records.forms import STRICT, Form, Name
from lra.records.reading import entries, leaving_out


@with_config(STRICT)
@dataclass(frozen=True)
class Note:
    """Which data could not be had, why and when."""

    task: Name
    protocol: Name
    scale: Name
    reason: str
    date: str


FORM: Form[Note] = Form(Note)


def note_missing(results_dir: Path, task: str, protocol: str, scale: str, reason: str) -> None:
    """Leave a note that the data of a task could not be prepared."""
    note = Note(task, protocol, scale, reason, now())
    write_atomically(_path(results_dir, task, protocol, scale), json.dumps(asdict(note), indent=2) + "\n")


def forget_missing(results_dir: Path, task: str, protocol: str, scale: str) -> None:
    """Remove the note, now that the data are there."""
    _path(results_dir, task, protocol, scale).unlink(missing_ok=True)


def noted_since(moment: str, results_dir: Path, task: str, protocol: str, scale: str) -> bool:
    """Say whether such a note was left at a moment, as `lra.machine.environment.now` gives it, or later."""
    path = _path(results_dir, task, protocol, scale)
    with leaving_out(path):
        return _read(path).date >= moment
    return False


def load_missing(results_dir: Path) -> dict[tuple[str, str, str], str]:
    """Return the reasons, by task, protocol and scale."""
    reasons = {}
    for path in [path for folder in entries(results_dir / RUNS) for path in entries(folder)]:
        if path.match("missing-*.json"):
            with leaving_out(path):
                note = _read(path)
                reasons[note.task, note.protocol, note.scale] = note.reason
    return reasons


def _read(path: Path) -> Note:
    note = FORM.parse(path.read_bytes())
    if path != _path(path.parents[2], note.task, note.protocol, note.scale):
        raise ValueError(f"it is a note of task={note.task} protocol={note.protocol} scale={note.scale}")
    return note


def _path(results_dir: Path, task: str, protocol: str, scale: str) -> Path:
    return results_dir / RUNS / task / f"missing-{protocol}-{scale}.json"
