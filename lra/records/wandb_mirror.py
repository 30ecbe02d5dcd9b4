"""A mirror of runs in Weights & Biases, which never stops a run, and records read back from there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from lra.errors import InputError
from lra.records.record import SCHEMA, RunRecord

log = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled")
STEP = "step"
# The names of a point of the history: sections of wandb's workspace stand before the slash. None of them is a field of
# the record, which the summary has: there `val_accuracy` is that of the best weights, here `val/accuracy` one of many.
HISTORY = {
    "train_loss": "train/loss", "train_accuracy": "train/accuracy", "val_loss": "val/loss",
    "val_accuracy": "val/accuracy", "learning_rate": "train/learning_rate", "epoch": "train/epoch",
    "train_seconds": "cost/train_seconds", "ms_per_step": "cost/ms_per_step",
    "tokens_per_second": "cost/tokens_per_second", "peak_memory_bytes": "cost/peak_memory_bytes",
}  # fmt: skip


class WandbMirror:
    """A wandb run under the record's key, with a history by HISTORY and the record's fields as its summary.

    The first failure of wandb is reported in one line; after it the mirror does nothing, and training goes on.

    Args:
        record: of the run; it is filled while the curve is mirrored.
        folder: the run's folder, where wandb keeps its files.
        mode: "online", "offline" or "disabled".
        project, entity: where the run appears in wandb.

    Raises:
        InputError: the mode is unknown.
    """

    def __init__(self, record: RunRecord, folder: Path, *, mode: str, project: str, entity: str | None) -> None:
        if mode not in MODES:
            raise InputError(f"wandb.mode must be one of {', '.join(MODES)}. Got {mode!r}.")
        self.record = record
        self._run: Any = None

        names = [record.task, record.attn, record.protocol, record.scale]

        def begin() -> None:
            import wandb  # takes a second, which is saved where it is disabled

            self._run = wandb.init(
                mode=mode,  # type: ignore[arg-type]
                project=project,
                entity=entity,
                dir=folder,
                id=record.key,
                name=f"{'-'.join(names)}-seed{record.seed}",
                group="-".join(names),
                job_type="baseline" if record.is_baseline else "train",
                tags=[*names, record.device, f"group {record.group}"],
                config=record.config,
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(silent=True, console="off", disable_git=True),
            )
            self._run.define_metric(STEP)
            for name in HISTORY.values():
                self._run.define_metric(name, step_metric=STEP)

        if mode != "disabled":
            self._guard(begin)

    def log(self, values: Mapping[str, Any]) -> None:
        """Add one point of the learning curve; `step` must be among the values. What HISTORY does not name is left out.

        It is committed at once: at the end wandb would write its values over those of the summary.
        """
        if self._run is not None:
            point = {name: values[key] for key, name in HISTORY.items() if values.get(key) is not None}
            self._guard(lambda: self._run.log({STEP: values[STEP], **point}, step=values[STEP], commit=True))

    def finish(self) -> None:
        """Fill the summary from the record, whose configuration wandb has already, and end the wandb run."""
        run, self._run = self._run, None
        if run is not None:
            summary = {name: value for name, value in self.record.as_dict().items() if name != "config"}
            self._guard(lambda: run.summary.update(summary))
            self._guard(lambda: run.finish(exit_code=int(not self.record.is_final)))

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            log.warning("wandb failed (%s); the run goes on, and its record on disk is complete.", error)
            run, self._run = self._run, None
            if run is not None:
                with suppress(Exception):
                    run.finish(exit_code=1)


def to_record(config: Mapping[str, Any], summary: Mapping[str, Any]) -> RunRecord:
    """Make a record of the configuration and summary of a wandb run.

    Raises:
        ValueError: a field is lacking, or the record is of another schema.
    """
    names = {field.name for field in fields(RunRecord)}
    values = {name: value for name, value in summary.items() if name in names}
    values["config"] = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        return RunRecord.parse(json.dumps({"schema": SCHEMA, **values}, default=dict))
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
