"""The settings that a run has of its own: what its command sets and no experiment's command does."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from lra.configuration import compose_config, to_plain
from lra.errors import InputError
from lra.records.identity import ABSENT, at
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
CALL = re.compile(r"lra\.run\(attn=[^,]*, settings=(\{.*\})\)", re.DOTALL)  # what a run from Python has as its command


def own_settings(runs: Iterable[RunRecord], allowed: Collection[str] = ()) -> str:
    """Return the settings of the runs' commands that an experiment's command does not have; "" without such.

    What a protocol, a scale or a default gives anyway is none, typed or not.

    Args:
        runs: of which to tell.
        allowed: keys, or nodes with all their keys, that do not count: those that an experiment does set.
    """
    return "; ".join(sorted({word for run in runs for word in _own_words(run, allowed)}))


def shown_scale(run: RunRecord, allowed: Collection[str] = ()) -> str:
    """Name the scale at which a run is shown: one of another size than `full` is not of the published size."""
    keys = {_key(word) for word in _own_words(run, allowed)}
    return OWN_SIZE if run.scale == PUBLISHED_SCALE and keys - SIZELESS else run.scale


def _own_words(run: RunRecord, allowed: Collection[str]) -> list[str]:
    """List the words of a run's command that set something of its own."""
    keys = {word: _key(word) for word in _words(run.command or "") if "=" in word}
    return [
        word
        for word, key in keys.items()
        if key not in HARMLESS
        and not key.startswith(HARMLESS_NODES)
        and not any(key == one or key.startswith(f"{one}.") for one in allowed)
        and _changes(run, key)
    ]


def _words(command: str) -> list[str]:
    """Split a command; a call of `lra.run` into the words that would say the same to `run.py`."""
    if call := CALL.fullmatch(command):
        with suppress(ValueError, SyntaxError):  # of values such as inf
            settings = ast.literal_eval(call[1])
            return [f"{key}={_written(value)}" for key, value in settings.items()]
        return [f"settings={call[1]}"]
    try:
        return shlex.split(command)
    except ValueError:  # a command that no shell would take
        return command.split()


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _changes(run: RunRecord, key: str) -> bool:
    """Say whether a key has another value than task, mechanism, protocol and scale alone would give it, or none."""
    value = at(run.config, key, ABSENT)
    return value is ABSENT or value != at(_configured(run.task, run.attn, run.protocol, run.scale), key, ABSENT)


@cache
def _configured(task: str, attn: str, protocol: str, scale: str) -> dict[str, Any]:
    """Compose the configuration of choices; empty for those of elsewhere, of which nothing is known here."""
    try:
        return to_plain(compose_config(f"task={task}", f"attn={attn}", f"protocol={protocol}", f"scale={scale}"))
    except InputError:
        return {}
