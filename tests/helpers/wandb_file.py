"""What an offline run of wandb wrote: protocol buffers in a log of LevelDB's format. wandb itself has no reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, HEADER = (
    2**15,
    7,
    struct.Struct("<IHB"),
)  # checksum, length, kind: 1 whole, 2 first, 3 middle, 4 last


def payloads(content: bytes) -> Iterator[bytes]:
    assert content.startswith(b":W&B")
    place, parts = FILE_HEADER, b""
    while place + HEADER.size <= len(content):
        if BLOCK - place % BLOCK < HEADER.size:  # the rest of a block that has no room for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        if place + HEADER.size + length > len(content):  # not written yet
            return
        parts += content[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in (1, 4):
            yield parts
            parts = b""


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return config, summary and curve."""
    from wandb.proto import wandb_internal_pb2

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    curve = []
    for payload in payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            _update(config, record.run.config.update)
        elif kind == "config":
            _update(config, record.config.update)
        elif kind == "summary":
            _update(summary, record.summary.update)
        elif kind == "history":
            curve.append({})
            _update(curve[-1], record.history.item)
    return config, summary, curve


def read_run(path: Path) -> tuple[Any, dict[str, str]]:
    """Return the run as wandb begins it, and for each defined metric the name of its axis."""
    from wandb.proto import wandb_internal_pb2

    run, axes = None, {}
    for payload in payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = run or record.run
        elif kind == "metric":
            axes[record.metric.name] = record.metric.step_metric
    return run, axes


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        *parents, name = [*item.nested_key] or [item.key]
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = json.loads(item.value_json)
