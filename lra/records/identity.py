"""What identifies a run: everything in its configuration that determines its numbers, hashed to a key.

A key must outlive the code. Where a class lives is therefore not hashed: the name and the version of task, backbone and
protocol stand for it. An option that was added later is not hashed while it has its neutral value, with which a run is
as it was before the option existed. A record's `config` holds all of this in full; only the hash leaves it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lra.tasks import Task

# Keys of a node that change no number: where files are, and how often they are written.
IMMATERIAL = {"task": ("data_dir",), "trainer": ("checkpoint_seconds", "profile")}
# The keys that `identify` adds to the settings of a task and of a mechanism.
ADDED = ("name", "version")
# Where a class lives, and how Hydra makes it.
TARGET_KEYS = ("_target_", "_partial_")
# Options that were added after the first committed records, by path, with the value that changes nothing. A mapping
# counts as a whole; an option that is added to it later needs a line of its own.
NEUTRAL: dict[str, Any] = {
    "model.block": {"norm": "layer", "place": "pre", "mlp": True},
    "model.reducer": {"kind": "none", "retention": 0.8},
    "model.match_params": None,
    "model.stem": {"kind": "none", "width": 3, "place": "embedding"},
    "task.length": None,
    "pretrain": {
        "kind": "none",
        "rate": None,
        "number_loss": None,
        "share": None,
        "steps": None,
        "batch_size": None,
        "learning_rate": None,
        "eval_every": None,
    },
    # What protocols set for a mechanism at scale=full alone.
    "attn.count_once": True,
    "attn.projection_bias": True,
    "attn.redraw": True,
    "attn.redraw_at_evaluation": False,
    "attn.same_bucket": True,
    "attn.scale_twice": False,
    "attn.seen_fill": False,
    "attn.self_in_window": False,
    "attn.share_layers": False,
}


def identify(resolved: Mapping[str, Any], task_name: str, task: Task, attn: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run is, for its record and its key: its configuration without what changes no number.

    The tables in a protocol are left out too: the rows that apply have been resolved into the other nodes.

    Args:
        resolved: the whole configuration.
        task_name: the name of its choice of task.
        task: the task that this choice makes.
        attn: the mechanism's `name`, `version` and own settings.
    """
    nodes = ("protocol", "scale", "seed", "model", "data", "optimizer", "trainer", "pretrain")
    return {
        **{name: material(name, resolved[name]) for name in nodes},
        "task": {**material("task", resolved["task"]), "name": task_name, "version": task.version},
        "attn": dict(attn),
    }


def material(name: str, node: Any) -> Any:
    """Return the settings of a top-level node that may change numbers."""
    return {key: node[key] for key in node if key not in IMMATERIAL[name]} if name in IMMATERIAL else node


def run_key(config: Mapping[str, Any]) -> str:
    """Return the key of the run that a record's `config` describes."""
    return fingerprint(hashed(config))


def run_group(config: Mapping[str, Any]) -> str:
    """Return the key without the seed: runs that differ in nothing else share it."""
    return run_key({name: value for name, value in config.items() if name != "seed"})


def hashed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a record's `config` that its key is the hash of; `config` itself is not changed."""
    values = _without_targets(config)
    for path in sorted(NEUTRAL, key=lambda path: path.count("."), reverse=True):  # the innermost first
        *parents, name = path.split(".")
        node = values
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node and _as_text(node[name]) == _as_text(NEUTRAL[path]):
            del node[name]
    return values


ABSENT = object()  # no value of any setting


def at(config: Mapping[str, Any], path: str, absent: Any = None) -> Any:
    """Return the value at a path; where a run is older than the option, the neutral value that it stands for."""
    node: Any = config
    names = path.split(".")
    for depth, name in enumerate(names, 1):
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif (older := ".".join(names[:depth])) in NEUTRAL:
            node = NEUTRAL[older]
        else:
            return NEUTRAL.get(path, absent)
    return node


def as_typed(value: Any) -> str:
    """Write the value of a setting as a command line has it: of a node the name of its choice, or its kind.

    A pre-training within the budget of the training has `_tied` behind its kind, as its file in `configs/pretrain` has.
    """
    if isinstance(value, Mapping):
        tied = "_tied" if value.get("share") is not None else ""
        return f"{value.get('name', value.get('kind', ''))}{tied}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def fingerprint(values: Mapping[str, Any]) -> str:
    """Hash plain values to ten hexadecimal digits, whatever the order of their keys."""
    return hashlib.sha256(_as_text(values).encode()).hexdigest()[:10]


def _without_targets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_targets(inner) for key, inner in value.items() if key not in TARGET_KEYS}
    return [_without_targets(inner) for inner in value] if isinstance(value, list | tuple) else value


def _as_text(value: Any) -> str:
    """Write plain values as JSON, in which 1, 1.0 and true, equal in Python, are three values."""
    return json.dumps(value, sort_keys=True)
