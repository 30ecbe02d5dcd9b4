"""What a benchmark leaves: a row for every case, and how a file of rows is written and read.

A file `<device>-<target>.jsonl` of `scripts/benchmark.py` has a line of JSON for every case: the fields of its row, and
where and when it was measured. A field that is at its default is left out. What a case gave is there where its `status`
is ok; else the status says why there is nothing, and the row is of the class that has no more than the case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import with_config

from lra.errors import InputError
from lra.records.forms import STRICT, Amount, Count, Environment, Form, Name, Positive
from lra.records.reading import leaving_out, read_lines

OK = "ok"
WHOLE = ("both", "step")  # directions that have every part of a pass


@with_config(STRICT)
@dataclass(frozen=True)
class Origin:
    """Where and when a row was measured; empty for one that is not in a file.

    Attributes:
        target: of `scripts/benchmark.py`.
        device: `cpu` or `cuda`.
        environment: machine, threads, versions.
        commit: of the code; None outside git.
        date: UTC; None where it was not kept.
    """

    target: str = ""
    device: str = ""
    environment: Environment = field(default_factory=dict)
    commit: str | None = None
    date: str | None = None

    @property
    def machine(self) -> str:
        """The name of the device."""
        return self.environment.get("device_name") or "unknown device"


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """What every row has; see results/benchmarks/README.md for the fields of each kind."""

    status: str = OK
    origin: Origin = Origin()


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class LengthCase(BenchmarkRow):
    """A backbone at a length: of the targets `attention` and `model`.

    Attributes:
        as_mixer: whether its projections are part of it; else it is an attention alone, or a whole model.
    """

    backbone: Name
    n: Positive
    direction: str
    batch: Positive
    budget: Positive
    dtype: str
    rates: dict[str, float]
    as_mixer: bool = False

    @property
    def what(self) -> str:
        """What a whole pass is, in words."""
        if self.direction == "step":
            return "an optimiser step of the model"
        return "a forward and backward pass" + (", projections included" if self.as_mixer else "")


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class LengthRow(LengthCase):
    """What a length cost; ratios are to the time of other ways to attend."""

    ms: Amount
    ms_quartiles: list[Amount]
    repeats: Positive
    ratio_to_fused: Amount
    flops: Count
    exponentials: Count
    ratio_to_materialised: Amount | None = None
    ratio_to_transcription: Amount | None = None
    peak_bytes: Count | None = None
    cold_ms: Amount | None = None
    least_ms: Amount | None = None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class FlopsRow(BenchmarkRow):
    """Counted operations of a backbone, and its formula's leading terms; a mixer that is no attention has none."""

    backbone: Name
    n: Positive
    budget: Positive
    quadratic: float | None
    linear: float | None
    model_forward_flops: Count
    model_training_flops: Count
    published: dict[str, float] | None
    agrees: bool | None
    reason: str


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ApproximationCase(BenchmarkRow):
    """A kind of input, or a backbone, that is not measured."""

    input: str = ""
    backbone: str = ""


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class ApproximationRow(BenchmarkRow):
    """How far a mechanism is from exact attention: means over trials, and halves of their 95 % intervals."""

    input: str
    backbone: Name
    n: Positive
    budget: Positive
    trials: Positive
    entropy_nats: float
    spectral_error: float
    spectral_error_half_width: float
    frobenius_error: float
    frobenius_error_half_width: float
    captured_mass: float | None = None
    captured_mass_half_width: float | None = None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class TrainCase(BenchmarkRow):
    """A part of what training costs."""

    part: str
    name: str
    unit: str = ""
    backbone: str = ""
    task: str = ""
    n: Positive | None = None
    batch: Positive | None = None
    budget: Positive | None = None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class TrainRow(TrainCase):
    """What it was, and whether that is what was aimed at."""

    value: float
    target_text: str = ""
    met: bool | None = None
    quartiles: list[float] | None = None
    ms: Amount | None = None
    bare_ms: Amount | None = None
    plain_ms: Amount | None = None
    plain_ms_half_width: float | None = None
    rounds_ms: list[Amount] | None = None


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class BatchRow(BenchmarkRow):
    """The largest batch of a task and a method that fits; 0 where none does."""

    task: Name
    backbone: Name
    memory_gib: Amount
    protocol: Name
    budget: Positive
    n: Positive | None = None
    wanted: Count | None = None
    largest: Count = 0


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class QuantityCase(BenchmarkRow):
    """A quantity of the targets `data`, `listops` and `operators`."""

    name: str


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class QuantityRow(QuantityCase):
    """Its value, and the ratio to the first value of its unit."""

    value: float
    unit: str
    note: str
    ratio: float


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class LaunchesRow(BenchmarkRow):
    """Operations that a training step launches on the device, by its parts, and those that the host waits for.

    Attributes:
        launches, waits: by the names of `lra.machine.profiling.PARTS`.
        launches_before, waits_before: all of a step's, in the rows that these are compared with.
    """

    backbone: Name
    n: Positive
    batch: Positive
    budget: Positive
    precision: Name
    launches: dict[str, Count]
    waits: dict[str, Count]
    launches_before: Count | None = None
    waits_before: Count | None = None


class Kind(NamedTuple):
    """The classes of a target's rows: of what was not measured, and of what was."""

    case: type[BenchmarkRow]
    measured: type[BenchmarkRow]


KINDS = {
    "attention": Kind(LengthCase, LengthRow),
    "model": Kind(LengthCase, LengthRow),
    "flops": Kind(FlopsRow, FlopsRow),
    "launches": Kind(LaunchesRow, LaunchesRow),
    "approximation": Kind(ApproximationCase, ApproximationRow),
    "train": Kind(TrainCase, TrainRow),
    "max_batch": Kind(BatchRow, BatchRow),
    "data": Kind(QuantityCase, QuantityRow),
    "operators": Kind(QuantityCase, QuantityRow),
    "listops": Kind(QuantityCase, QuantityRow),
}

Row = TypeVar("Row", bound=BenchmarkRow)

# A line as it is written: the fields of the row and of its origin in one object.
LINE: Form[dict[str, Any]] = Form(dict[str, Any])


FORMS: dict[type[BenchmarkRow], Form[BenchmarkRow]] = {one: Form(one) for kind in KINDS.values() for one in kind}


def measured(rows: Iterable[BenchmarkRow], kind: type[Row]) -> list[Row]:
    """Take the rows of a kind that were measured."""
    return [row for row in rows if isinstance(row, kind) and row.status == OK]


def comparable(rows: Iterable[BenchmarkRow]) -> list[LengthCase]:
    """Take the rows of a whole pass; where every backbone was measured as a mixer, those rows alone."""
    whole = [row for row in rows if isinstance(row, LengthCase) and row.direction in WHOLE]
    return [row for row in whole if row.as_mixer] or whole


def target_of(path: Path) -> str:
    """Return the target whose rows a file has, by its name; "" if that is no name of such a file."""
    target = path.name.removesuffix(".jsonl").partition("-")[2]
    return target if target in KINDS and path.suffix == ".jsonl" else ""


def load_rows(path: Path) -> list[BenchmarkRow]:
    """Read a file of `scripts/benchmark.py`; a damaged row is named in a warning, and left out.

    Raises:
        InputError: there is no such file, or its name is not that of one.
    """
    target = target_of(path)
    if not target:
        raise InputError(
            f"{path} must be a file of `python scripts/benchmark.py`, named DEVICE-TARGET.jsonl with a target of "
            f"{', '.join(KINDS)}."
        )
    if not path.is_file():
        raise InputError(f"{path} is no file. `python scripts/benchmark.py` writes such files.")
    return [row for _, row in read_lines(path, partial(parse_row, target))]


def load_rows_of(folder: Path, pattern: str) -> dict[Path, list[BenchmarkRow]]:
    """Read the files of a folder, by their path; what is no such file, or cannot be read, is named and left out."""
    rows = {}
    for path in sorted(folder.glob(pattern)):
        with leaving_out(path):
            rows[path] = load_rows(path)
    return rows


def parse_row(target: str, line: str | bytes) -> BenchmarkRow:
    """Make a row of its line of JSON.

    Raises:
        ValueError: the line is no row of the target; the message says what is wrong.
    """
    values = LINE.parse(line)
    own = {name: values.pop(name) for name in [one.name for one in fields(Origin)] if name in values}
    if "status" not in values:
        raise ValueError("it lacks status")
    kind = KINDS[target].measured if values["status"] == OK else KINDS[target].case
    return FORMS[kind].parse(json.dumps({**values, "origin": own}))


def format_row(row: BenchmarkRow) -> str:
    """Write a row as its line of JSON, without the end of the line."""
    values = {one.name: getattr(row, one.name) for one in fields(row) if one.name not in ("status", "origin")}
    optional = {one.name: one.default for one in fields(row) if not _is_required(one)}
    shown = {name: value for name, value in values.items() if name not in optional or value != optional[name]}
    own = {} if row.origin == Origin() else asdict(row.origin)
    return json.dumps({**shown, "status": row.status, **own}, allow_nan=False)


def _is_required(one: Any) -> bool:
    return one.name == "status" or (one.default is MISSING and one.default_factory is MISSING)
