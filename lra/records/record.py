"""What a run was and what it produced: one JSON file a run, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, with_config

from lra.errors import InputError
from lra.files import write_atomically
from lra.machine.environment import current_commit, describe_environment, now
from lra.machine.source import changed, source_of
from lra.records.forms import (
    STRICT,
    Amount,
    Config,
    Count,
    Data,
    Environment,
    Form,
    Name,
    Object,
    Positive,
    Share,
    Title,
)
from lra.records.identity import fingerprint, run_group, run_key

if TYPE_CHECKING:
    import torch

SCHEMA = 1
RECORD_NAME = "record.json"
# Names of arrays in a run's predictions: LABELS has the true classes of the test split, FLOOR and a rule's name the
# classes that this rule predicts without a model, WEIGHTS those that the model predicts with its best or last weights.
LABELS, FLOOR, WEIGHTS = "labels", "floor_", ("best", "last")

Status = Literal["ok", "diverged", "out_of_memory", "failed", "interrupted"]
FINAL_STATUSES: tuple[Status, ...] = ("ok", "diverged", "out_of_memory")


def _of_this_schema(schema: int) -> int:
    if schema != SCHEMA:
        raise ValueError(f"its schema is {schema}, and this program reads {SCHEMA}")
    return schema


Schema = Annotated[int, AfterValidator(_of_this_schema)]


@with_config(STRICT)
@dataclass
class RunRecord:
    """Everything known about a run. Accuracies are fractions, times seconds unless named otherwise, sizes bytes.

    `test_accuracy` and `val_accuracy` belong to the weights of `best_step`, which had the highest validation
    accuracy; the `last_` ones to the weights of the last step. `group` is the key without the seed: runs that differ
    in nothing else share it. `pretraining` says which encoder the run began with, if any, and what that
    cost. `results/README.md` explains every field.
    """

    key: Name
    group: Name
    task: Name
    attn: Name
    protocol: Name
    scale: Name
    seed: Count
    config: Config
    data: Data
    status: Status
    error: str | None = None
    val_accuracy: Share | None = None
    test_accuracy: Share | None = None
    last_val_accuracy: Share | None = None
    last_test_accuracy: Share | None = None
    best_step: Count | None = None
    steps: Count = 0
    stopped_early: bool = False
    floors: dict[Title, Share] = field(default_factory=dict)
    train_seconds: Amount | None = None
    warmup_seconds: Amount | None = None
    compile_seconds: Amount | None = None
    wall_seconds: Amount | None = None
    ms_per_step: Amount | None = None
    ms_per_step_quartiles: Annotated[list[Amount | None], Field(min_length=2, max_length=2)] | None = None
    tokens_per_second: Amount | None = None
    padded_tokens_per_second: Amount | None = None
    peak_memory_bytes: Count | None = None
    peak_memory_reserved_bytes: Count | None = None
    load_average: Amount | None = None
    num_params: Count | None = None
    forward_flops: Count | None = None
    training_flops: Count | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    batch_size: Positive | None = None
    micro_batch: Positive | None = None
    num_processes: Positive = 1
    resumptions: list[Object] = field(default_factory=list)
    pretraining: Object | None = None
    dtype: str | None = None
    device: Name = "cpu"
    environment: Environment = field(default_factory=dict)
    commit: str | None = None
    command: str | None = None
    date: str | None = None
    schema: Schema = SCHEMA

    @classmethod
    def begin(
        cls,
        config: Mapping[str, Any],
        *,
        device: torch.device,
        batch_size: int,
        dtype: str,
        command: str,
        source: Mapping[str, str] | None = None,
    ) -> RunRecord:
        """Make the record of a run that is about to begin; its status is `failed` until another one is known.

        Args:
            config: all that determines the run, with the type of the device as `device`, the description of the data as
                `prepared`, and `num_processes` if there are several.
            device: where it is trained.
            batch_size: examples in one optimiser step.
            dtype: the precision.
            command: what repeats the run.
            source: of what is trained, a hash a module; None or empty where it is unknown.

        Raises:
            InputError: no record of such a run could be read.
        """
        facts = describe_environment(device, config["attn"].get("_target_"))
        record = cls(
            key=run_key(config),
            group=run_group(config),
            task=config["task"]["name"],
            attn=config["attn"]["name"],
            protocol=config["protocol"]["name"],
            scale=config["scale"],
            seed=config["seed"],
            config=dict(config),
            data=config["prepared"],
            status="failed",
            batch_size=batch_size,
            num_processes=config.get("num_processes", 1),
            dtype=dtype,
            device=config["device"],
            environment={**facts, "source": dict(source)} if source else facts,
            commit=current_commit(),
            command=command,
            date=now(),
        )
        try:
            cls.parse(json.dumps(record.as_dict()))
        except ValueError as error:
            raise InputError(f"There can be no record of this run: {error}. Give it another name or value.") from error
        return record

    @property
    def is_final(self) -> bool:
        """Whether the run is a result, good or bad; running it again would repeat it."""
        return self.status in FINAL_STATUSES

    @property
    def changed_modules(self) -> list[str]:
        """The modules of what was trained that are not now as they were; none where the record names no source."""
        before = self.environment.get("source", {})
        return changed(before, source_of(self.config["attn"].get("_target_"))) if before else []

    @property
    def is_baseline(self) -> bool:
        """Whether this is a small model to compare with, not an attention mechanism; tables list it last."""
        return self.attn.startswith(BASELINE)

    @property
    def contradiction(self) -> str:
        """In what the record contradicts its own configuration, as a sentence; "" if in nothing."""
        config = self.config
        if self.key != run_key(config) and self.key == fingerprint(config):
            return "its key was made by an earlier rule: run python scripts/rekey.py results_dir=FOLDER on its folder"
        if self.key != run_key(config) or self.group != run_group(config):
            return f"its configuration was altered: it hashes to {run_key(config)}, not to its key"
        named = [config.get(node, {}).get("name") for node in ("task", "attn", "protocol")]
        given = [*named, *(config.get(name) for name in ("scale", "seed", "prepared"))]
        if given != [self.task, self.attn, self.protocol, self.scale, self.seed, self.data]:
            return "its task, attn, protocol, scale, seed or data are not those of its configuration"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; `pretraining` only where there was one, as records were before it."""
        values = dataclasses.asdict(self)
        if self.pretraining is None:
            del values["pretraining"]
        return values

    def write(self, folder: Path) -> Path:
        """Write `record.json` into the run's folder, replacing an older one in a single step."""
        path = folder / RECORD_NAME
        write_atomically(path, json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def parse(cls, text: str | bytes) -> RunRecord:
        """Make a record of its JSON.

        Raises:
            ValueError: the text is no record, or one of another schema.
        """
        return FORM.parse(text)

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a record's file.

        Raises:
            ValueError: the file holds no record of this schema; the message names it.
            FileNotFoundError: there is none.
        """
        try:
            return cls.parse(path.read_bytes())
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no readable record: {error}") from error


FORM: Form[RunRecord] = Form(RunRecord)
# The name of a baseline's record begins with this.
BASELINE = "baseline_"


def tested(record: RunRecord) -> str:
    """Say which weights the run's protocol tests: `best` or `last`."""
    protocol = record.config.get("protocol")
    return protocol.get("tested", "best") if isinstance(protocol, dict) else "best"


def accuracy_of(record: RunRecord) -> float | None:
    """Return the test accuracy that the run's protocol asks for, a fraction; None if the run did not end ok."""
    if record.status != "ok":
        return None
    return record.last_test_accuracy if tested(record) == "last" else record.test_accuracy
