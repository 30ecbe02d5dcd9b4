"""Records from Weights & Biases: the config and the summary of a run there hold all of its record."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lra.collected import check_values
from lra.errors import InputError
from lra.record import SCHEMA, RunRecord

log = logging.getLogger(__name__)


def to_record(config: Mapping[str, Any], summary: Mapping[str, Any]) -> RunRecord:
    """Put a record together again.

    Raises:
        ValueError: something is lacking, or the record is of another schema.
    """
    names = {field.name for field in fields(RunRecord)}
    values = {name: value for name, value in summary.items() if name in names}
    values["config"] = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        record = RunRecord.parse(json.dumps({"schema": SCHEMA, **values}, default=dict))
        check_values(record)
        return record
    except TypeError as error:
        raise ValueError(f"its config and summary are no record: {error}") from error


def load_online(path: str, api: Any = None) -> list[RunRecord]:
    """Fetch the records of a project; a run without one is named in a warning and left out.

    Args:
        path: `entity/project`.
        api: what to ask; a `wandb.Api` if None.

    Raises:
        InputError: the project cannot be read.
    """
    try:
        if api is None:
            import wandb

            api = wandb.Api()
        runs = list(api.runs(path))
    except Exception as error:
        raise InputError(
            f"wandb={path} cannot be read ({type(error).__name__}: {error}). It is entity/project; check `wandb login` "
            "and the network."
        ) from error
    records: dict[str, RunRecord] = {}
    for run in runs:
        try:
            record = to_record(dict(run.config), dict(run.summary))
            records[record.key] = record
        except ValueError as error:
            log.warning("Left out: %s/%s: %s", path, getattr(run, "id", "?"), error)
    return list(records.values())
