"""The settings that a run has of its own: what its command sets and no experiment's command does."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from lra.records.record import RunRecord

PUBLISHED_SCALE = "full"
OWN_SIZE = f"{PUBLISHED_SCALE}, own settings"
# Keys that a command line may set without changing what is compared.
HARMLESS = {
    "task", "attn", "protocol", "scale", "seed", "experiment", "device", "results_dir", "cache_dir", "task.data_dir",
    "trainer.micro_batch", "trainer.eval_batch_size", "trainer.checkpoint_seconds", "trainer.profile",
}  # fmt: skip
HARMLESS_NODES = ("hydra.", "hydra/launcher", "wandb.")
# Keys that leave model, data and training as large as they are: how often is validated, how numbers are held.
SIZELESS = {"trainer.eval_every", "trainer.precision", "trainer.compile", "trainer.deterministic"}


def own_settings(runs: Iterable[RunRecord]) -> str:
    """Return the settings of the runs' commands that an experiment's command does not have; "" without such."""
    return "; ".join(sorted({word for run in runs for word in _own_words(run)}))


def shown_scale(run: RunRecord) -> str:
    """Name the scale at which a run is shown: one of another size than `full` is not of the published size."""
    keys = {_key(word) for word in _own_words(run)}
    return OWN_SIZE if run.scale == PUBLISHED_SCALE and keys - SIZELESS else run.scale


def _own_words(run: RunRecord) -> list[str]:
    """List the words of a run's command that set something of its own."""
    try:
        words = shlex.split(run.command or "")
    except ValueError:  # a command that no shell would take
        words = (run.command or "").split()
    keys = {word: _key(word) for word in words if "=" in word}
    return [word for word, key in keys.items() if key not in HARMLESS and not key.startswith(HARMLESS_NODES)]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
