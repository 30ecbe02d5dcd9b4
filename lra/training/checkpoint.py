"""Checkpoints of a training on disk: written whole or not at all, so that a run can be killed at any moment."""

from __future__ import annotations

import logging
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lra.errors import InputError
from lra.machine.environment import current_commit

log = logging.getLogger(__name__)

KEPT = 2
PATTERN = "checkpoint-*.pt"


class Checkpoints:
    """The checkpoints of one run, in its folder.

    Args:
        folder: the run's folder.
        key: the run's key; a checkpoint of another run is refused.
        seconds: time from one checkpoint to the next.
    """

    def __init__(self, folder: Path, key: str, seconds: float) -> None:
        self.folder = folder
        self.key = key
        self.seconds = seconds
        self._written = time.monotonic()

    def due(self) -> bool:
        """Say whether it is time for the next checkpoint."""
        return time.monotonic() - self._written >= self.seconds

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint; if that fails, say so, keep the older ones and go on.

        Args:
            step: optimiser steps taken.
            state: containers of tensors and plain values.
        """
        self._written = time.monotonic()
        path = self.folder / f"checkpoint-{step:09d}.pt"
        try:
            _write(path, {"key": self.key, "commit": current_commit(), "state": state})
        except (OSError, RuntimeError) as error:
            log.warning(
                "The checkpoint of step %d could not be written (%s); training goes on without it.", step, error
            )
            return
        for path in self._paths()[KEPT:]:
            path.unlink()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Read the newest checkpoint that can be read; None where there is none.

        Raises:
            InputError: it belongs to another run.
        """
        for path in self._paths():
            try:
                saved = torch.load(path, map_location=device, weights_only=True)
                key, commit, state = saved["key"], saved["commit"], saved["state"]
            except Exception as error:  # a damaged file may raise anything
                log.warning("%s cannot be read (%s); an older one is used, if there is one.", path, _first_line(error))
                continue
            if key != self.key:
                raise InputError(
                    f"{path} belongs to the run {key}, this one is {self.key}. It was copied there: move it away."
                )
            if commit != current_commit():
                log.warning("The checkpoint was made by commit %s; the code is now %s.", commit, current_commit())
            return state
        return None

    def clear(self) -> None:
        """Remove all checkpoints, once the run has its record."""
        for path in [*self._paths(), *self.folder.glob("checkpoint-*.part")]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """List the newest first."""
        return sorted(self.folder.glob(PATTERN), reverse=True)


def give_key(folder: Path, key: str) -> None:
    """Give the checkpoints in a run's folder another key; one that cannot be read stays as it is.

    Raises:
        OSError, RuntimeError: a checkpoint cannot be written.
    """
    for path in folder.glob(PATTERN):
        try:
            saved = {**torch.load(path, map_location="cpu", weights_only=True), "key": key}
        except Exception as error:  # as in `load`
            log.warning("%s cannot be read (%s) and keeps its key.", path, _first_line(error))
            continue
        _write(path, saved)


def _write(path: Path, saved: dict[str, Any]) -> None:
    """Write a checkpoint whole, or leave nothing."""
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError):
        temporary.unlink(missing_ok=True)
        raise


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator of random numbers, as containers of tensors and plain values."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - what others may draw from
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.array(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set every generator of random numbers."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
