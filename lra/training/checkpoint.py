"""Checkpoints of a training on disk: written whole or not at all, so that a run can be killed at any moment."""

from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from lra.files import set_aside
from lra.machine.distributed import World
from lra.machine.environment import current_commit
from lra.machine.memory import is_out_of_memory
from lra.machine.source import changed, in_words, mixed
from lra.training import storage

log = logging.getLogger(__name__)

KEPT = 2
PATTERN = "checkpoint-*.pt"


class Resumable(Protocol):
    """What a checkpoint is made of, and goes on from one; on every process of the world alike."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that it needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; raise whatever where the state does not fit."""


class Checkpoints:
    """The checkpoints of one run, in its folder.

    Args:
        folder: the run's folder.
        key: the run's key; a checkpoint of another run is not used.
        seconds: time from one checkpoint to the next.
        source: of what is trained, as `lra.machine.source` gives it; {} where it is unknown. Once a training goes on
            from a checkpoint of another source, it is that of both.
        same_source: whether a checkpoint of another source is not used.
    """

    def __init__(
        self, folder: Path, key: str, seconds: float, source: Mapping[str, str] | None = None, same_source: bool = False
    ) -> None:
        self.folder = folder
        self.key = key
        self.seconds = seconds
        self.source = dict(source or {})
        self.same_source = same_source
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
            saved = {"key": self.key, "commit": current_commit(), "source": self.source, "state": state}
            storage.save(saved, path)
        except (OSError, RuntimeError) as error:
            log.warning(
                "The checkpoint of step %d could not be written (%s); training goes on without it.", step, error
            )
            return
        self._remove(self._paths()[KEPT:])

    def resume(self, training: Resumable, device: torch.device, world: World) -> bool:
        """Go on from the newest checkpoint that can be read and fits; say whether there is one.

        One that cannot be used is named and set aside, and leaves no trace in the training.
        """
        paths = world.agree(self._paths())
        fresh = copy.deepcopy(training.state_dict()) if paths else {}
        for path in paths:
            refusal, source = "", self.source
            try:
                state, source = self._read(path, device)
                training.load_state_dict(state)
            except Exception as error:  # a damaged file may raise anything
                if is_out_of_memory(error):
                    raise
                refusal = _first_line(error)
            refusals = [text for text in world.gather(refusal) if text]
            if not refusals:
                self._go_on_with(source)
                return True
            training.load_state_dict(fresh)
            if world.leads:
                log.warning(
                    "%s cannot be used (%s). It is %s now, and an older one is used, if there is one.",
                    path,
                    refusals[0],
                    _renamed(path),
                )
        return False

    def clear(self) -> None:
        """Remove all checkpoints, once the run has its record."""
        self._remove(self._paths())

    def _go_on_with(self, source: Mapping[str, str]) -> None:
        """Take the source that a checkpoint was made by into account, and tell where it is another one.

        The training goes on, since days of it may be behind it and most edits change no number; but what it ends with
        is no result of the present source alone, and is not taken for one.
        """
        if modules := changed(source, self.source):
            log.warning(
                "%s while this run was interrupted. It goes on, as the result of both; force=true begins anew.",
                in_words(modules).removesuffix(" since"),
            )
        self.source = mixed(source, self.source)

    def _read(self, path: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the state in a checkpoint, and the source that it was made by: {} in one of an earlier version.

        Raises:
            ValueError, OSError, KeyError, TypeError: it cannot be read, or is of another run.
        """
        saved = storage.load(path, device)
        if saved["key"] != self.key:
            raise ValueError(f"it belongs to the run {saved['key']}, this one is {self.key}")
        source = saved.get("source", {})
        if self.same_source and (modules := changed(source, self.source)):
            raise ValueError(in_words(modules))
        commit = saved["commit"]
        if commit != current_commit():
            log.warning("The checkpoint was made by commit %s; the code is now %s.", commit, current_commit())
        return saved["state"], source

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            with suppress(OSError):  # a folder, for example, which is not of our making
                path.unlink()

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
            saved = {**storage.load(path, torch.device("cpu")), "key": key}
        except Exception as error:  # as in `resume`
            log.warning("%s cannot be read (%s) and keeps its key.", path, _first_line(error))
            continue
        storage.save(saved, path)


def _renamed(path: Path) -> str:
    """Set a checkpoint aside; where that cannot be done it keeps its name."""
    try:
        return set_aside(path).name
    except OSError:
        return path.name


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
