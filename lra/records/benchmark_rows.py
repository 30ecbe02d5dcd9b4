"""What a benchmark leaves: a row for every case, and how a file of rows is written and read.

A file `<device>-<target>.jsonl` of `scripts/benchmark.py` has a line of JSON for every case: the fields of its row, and
where and when it was measured. A field that is at its default is left out. What a case gave is there where its `status`
is ok; else the status says why there is nothing, and the row is of the class that has no more than the case.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from lra.errors import InputError

log = logging.getLogger(__name__)

OK = "ok"
WHOLE = ("both", "step")  # directions that have every part of a pass
SHAPES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    NoneType: "null",
    Any: "anything",
}


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
    environment: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    date: str | None = None

    @property
    def machine(self) -> str:
        """The name of the device."""
        return self.environment.get("device_name", "unknown device")


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """What every row has; see results/benchmarks/README.md for the fields of each kind."""

    status: str = OK
    origin: Origin = Origin()


@dataclass(frozen=True, kw_only=True)
class LengthCase(BenchmarkRow):
    """A backbone at a length: of the targets `attention` and `model`."""

    backbone: str
    n: int
    direction: str
    batch: int
    budget: int
    dtype: str
    rates: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class LengthRow(LengthCase):
    """What a length cost; ratios are to the time of other ways to attend."""

    ms: float
    ms_quartiles: list[float]
    repeats: int
    ratio_to_fused: float
    flops: int
    exponentials: int
    ratio_to_materialised: float | None = None
    ratio_to_transcription: float | None = None
    peak_bytes: int | None = None
    cold_ms: float | None = None
    least_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class FlopsRow(BenchmarkRow):
    """Counted operations of a backbone, and its formula's leading terms; a mixer that is no attention has none."""

    backbone: str
    n: int
    budget: int
    quadratic: float | None
    linear: float | None
    model_forward_flops: int
    model_training_flops: int
    published: dict[str, float] | None
    agrees: bool | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class ApproximationCase(BenchmarkRow):
    """A kind of input, or a backbone, that is not measured."""

    input: str = ""
    backbone: str = ""


@dataclass(frozen=True, kw_only=True)
class ApproximationRow(BenchmarkRow):
    """How far a mechanism is from exact attention: means over trials, and halves of their 95 % intervals."""

    input: str
    backbone: str
    n: int
    budget: int
    trials: int
    entropy_nats: float
    spectral_error: float
    spectral_error_half_width: float
    frobenius_error: float
    frobenius_error_half_width: float
    captured_mass: float | None = None
    captured_mass_half_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainCase(BenchmarkRow):
    """A part of what training costs."""

    part: str
    name: str
    unit: str = ""
    backbone: str = ""
    task: str = ""
    n: int | None = None
    batch: int | None = None
    budget: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainRow(TrainCase):
    """What it was, and whether that is what was aimed at."""

    value: float
    target_text: str = ""
    met: bool | None = None
    quartiles: list[float] | None = None
    ms: float | None = None
    bare_ms: float | None = None
    plain_ms: float | None = None
    plain_ms_half_width: float | None = None
    rounds_ms: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class BatchRow(BenchmarkRow):
    """The largest batch of a task and a method that fits; 0 where none does."""

    task: str
    backbone: str
    memory_gib: float
    protocol: str
    budget: int
    n: int | None = None
    wanted: int | None = None
    largest: int = 0


@dataclass(frozen=True, kw_only=True)
class QuantityCase(BenchmarkRow):
    """A quantity of the targets `data` and `listops`."""

    name: str


@dataclass(frozen=True, kw_only=True)
class QuantityRow(QuantityCase):
    """Its value, and the ratio to the first value of its unit."""

    value: float
    unit: str
    note: str
    ratio: float


class Kind(NamedTuple):
    """The classes of a target's rows: of what was not measured, and of what was."""

    case: type[BenchmarkRow]
    measured: type[BenchmarkRow]


KINDS = {
    "attention": Kind(LengthCase, LengthRow),
    "model": Kind(LengthCase, LengthRow),
    "flops": Kind(FlopsRow, FlopsRow),
    "approximation": Kind(ApproximationCase, ApproximationRow),
    "train": Kind(TrainCase, TrainRow),
    "max_batch": Kind(BatchRow, BatchRow),
    "data": Kind(QuantityCase, QuantityRow),
    "listops": Kind(QuantityCase, QuantityRow),
}

Row = TypeVar("Row", bound=BenchmarkRow)


def measured(rows: Iterable[BenchmarkRow], kind: type[Row]) -> list[Row]:
    """Take the rows of a kind that were measured."""
    return [row for row in rows if isinstance(row, kind) and row.status == OK]


def target_of(path: Path) -> str:
    """Return the target whose rows a file has, by its name; "" if that is no name of such a file."""
    target = path.name.removesuffix(".jsonl").partition("-")[2]
    return target if target in KINDS and path.suffix == ".jsonl" else ""


def load_rows(path: Path) -> list[BenchmarkRow]:
    """Read a file of `scripts/benchmark.py`; a damaged row is named in a warning, and left out.

    Raises:
        InputError: the file cannot be read, or its name is not that of such a file.
    """
    target = target_of(path)
    if not target:
        raise InputError(
            f"{path} must be a file of `python scripts/benchmark.py`, named DEVICE-TARGET.jsonl with a target of "
            f"{', '.join(KINDS)}."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. `python scripts/benchmark.py` writes such files.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_row(target, line))
        except ValueError as error:
            log.warning("Left out: %s, line %d: %s", path, number, error)
    return rows


def parse_row(target: str, line: str) -> BenchmarkRow:
    """Make a row of its line of JSON.

    Raises:
        ValueError: the line is no row of the target; the message says what is wrong.
    """
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"a row must be an object, not {values!r}")
    own = {name: values.pop(name) for name in [one.name for one in fields(Origin)] if name in values}
    kind = KINDS[target].measured if values.get("status") == OK else KINDS[target].case
    expected = [one for one in fields(kind) if one.name != "origin"]
    if lacking := [one.name for one in expected if _is_required(one) and one.name not in values]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if unknown := sorted(values.keys() - {one.name for one in expected}):
        raise ValueError(f"it has fields that a row of {target} has not: {', '.join(unknown)}")
    _check_types(Origin, own)
    _check_types(kind, values)
    return kind(**values, origin=Origin(**own))


def format_row(row: BenchmarkRow) -> str:
    """Write a row as its line of JSON, without the end of the line."""
    values = {one.name: getattr(row, one.name) for one in fields(row) if one.name not in ("status", "origin")}
    optional = {one.name: one.default for one in fields(row) if not _is_required(one)}
    shown = {name: value for name, value in values.items() if name not in optional or value != optional[name]}
    own = {} if row.origin == Origin() else asdict(row.origin)
    return json.dumps({**shown, "status": row.status, **own}, allow_nan=False)


def _is_required(one: Any) -> bool:
    return one.name == "status" or (one.default is MISSING and one.default_factory is MISSING)


_hints = cache(get_type_hints)


def _check_types(kind: type, values: dict[str, Any]) -> None:
    for name, value in values.items():
        expected = _hints(kind)[name]
        if not _fits(value, expected):
            raise ValueError(f"{name} must be {_described(expected)}, not {value!r}")


def _fits(value: Any, expected: Any) -> bool:
    """Say whether a value that was JSON is of a field's type."""
    if isinstance(expected, UnionType):
        return any(_fits(value, one) for one in get_args(expected))
    if expected is Any:
        return True
    if get_origin(expected) is list:
        return isinstance(value, list) and all(_fits(one, get_args(expected)[0]) for one in value)
    if get_origin(expected) is dict:
        return isinstance(value, dict) and all(_fits(one, get_args(expected)[1]) for one in value.values())
    if expected in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float) if expected is float else isinstance(value, expected)


def _described(expected: Any) -> str:
    if isinstance(expected, UnionType):
        return " or ".join(_described(one) for one in get_args(expected))
    if get_origin(expected) in (list, dict):
        inner = _described(get_args(expected)[-1])
        return f"a list, each {inner}" if get_origin(expected) is list else f"an object, each value {inner}"
    return SHAPES[expected]
