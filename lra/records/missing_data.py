"""Notes of data that could not be had, which tell the gaps of a sweep from its failures.

Without data a run has no key, so it has no folder and no record: only task, protocol and scale are known.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from lra.files import write_atomically
from lra.machine.environment import now
from lra.records.folder import RUNS

log = logging.getLogger(__name__)


def note_missing(results_dir: Path, task: str, protocol: str, scale: str, reason: str) -> None:
    """Leave a note that the data of a task could not be prepared."""
    note = {"task": task, "protocol": protocol, "scale": scale, "reason": reason, "date": now()}
    write_atomically(_path(results_dir, task, protocol, scale), json.dumps(note, indent=2) + "\n")


def forget_missing(results_dir: Path, task: str, protocol: str, scale: str) -> None:
    """Remove the note, now that the data are there."""
    _path(results_dir, task, protocol, scale).unlink(missing_ok=True)


def noted_since(moment: str, results_dir: Path, task: str, protocol: str, scale: str) -> bool:
    """Say whether such a note was left at a moment, as `lra.machine.environment.now` gives it, or later."""
    try:
        return json.loads(_path(results_dir, task, protocol, scale).read_text())["date"] >= moment
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_missing(results_dir: Path) -> dict[tuple[str, str, str], str]:
    """Return the reasons, by task, protocol and scale."""
    reasons = {}
    for path in sorted((results_dir / RUNS).glob("*/missing-*.json")):
        try:
            note = json.loads(path.read_text())
            reasons[note["task"], note["protocol"], note["scale"]] = str(note["reason"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("Left out: %s: %s", path, error)
    return reasons


def _path(results_dir: Path, task: str, protocol: str, scale: str) -> Path:
    return results_dir / RUNS / task / f"missing-{protocol}-{scale}.json"
