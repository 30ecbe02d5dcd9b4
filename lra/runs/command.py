"""Doing what a configuration says, for the command line and for Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lra.configuration import compose_config
from lra.records.folder import RunFolder
from lra.records.record import RunRecord
from lra.runs.factory import check_mechanism, check_model, make_model, make_task, mechanism_of
from lra.runs.matching import matched
from lra.runs.pretraining import make_pretraining, staged
from lra.runs.run import run_configured
from lra.runs.schema import check_added, check_tables, resolve

BLANK = "vmean"  # a choice of attn= without settings, and of which no protocol changes any: a class takes its place


def do_run(resolved: Mapping[str, Any], task_name: str, attn_name: str, command: str) -> tuple[RunRecord, RunFolder]:
    """Build what a configuration names, and train it unless there is a result.

    Args:
        resolved: the configuration.
        task_name, attn_name: its choices.
        command: what repeats the run.

    Returns:
        The record and the folder it is in.

    Raises:
        InputError: a value is not possible; and whatever `lra.runs.run.run` raises.
    """
    version = mechanism_of(resolved["attn"]).version
    task = make_task(resolved)
    resolved = staged(resolved)
    check_model(resolved, task)
    resolved = matched(resolved, task)
    attn = {**resolved["attn"], "name": attn_name, "version": version}
    pretraining = make_pretraining(resolved, task_name, task, attn)
    return run_configured(resolved, task_name, task, attn, lambda: make_model(resolved, task), command, pretraining)


def run_called(attn: str | type, settings: Mapping[str, Any]) -> RunRecord:
    """Do a run that is described in Python.

    Args:
        attn: a name of `attn=`, or a class; its record then has the name of the class.
        settings: values by their keys on the command line.

    Raises:
        InputError: a choice, a key or a value is not possible.
    """
    words = [f"{key}={_as_word(value)}" for key, value in settings.items()]
    if isinstance(attn, str):
        name, chosen = attn, [f"attn={attn}"]
    else:
        kind = check_mechanism(attn)
        name, chosen = kind.__name__, [f"attn={BLANK}", f"attn._target_={kind.__module__}.{kind.__qualname__}"]
        words = [f"++{word}" if word.startswith("attn.") else word for word in words]
    check_added(words)
    check_tables([*chosen, *words])
    resolved = resolve(compose_config(*chosen, *words))
    about = ", ".join(f"{key!r}: {value!r}" for key, value in settings.items() if key not in ("results_dir", "force"))
    record, _ = do_run(resolved, resolved["task_name"], name, f"lra.run(attn={name}, settings={{{about}}})")
    return record


def _as_word(value: Any) -> str:
    """Write a value as Hydra reads it: text in quotes, so that nothing in it counts as more than text."""
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return json.dumps(value)
