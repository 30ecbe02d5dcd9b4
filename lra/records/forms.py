"""What the values of stored records may be: types with their ranges, and a sentence for a value that is none of them.

The types are checked by pydantic where a file is read, strictly: no text is taken for a number, true is no integer, and
NaN is no number. Objects whose keys are not fixed stay as they were written.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Generic, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes no other one before Python 3.12

T = TypeVar("T")

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
OPEN = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)  # of objects that may hold more than is named here


class Form(Generic[T]):
    """What JSON must hold, to be made into a value of a type."""

    def __init__(self, kind: type[T] | Any) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def parse(self, text: str | bytes) -> T:
        """Make the value of its JSON.

        Raises:
            ValueError: it is no JSON, or does not hold what it must; one sentence says in what.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None

    def check(self, value: Any) -> Any:
        """Return a plain value as it is, if it holds what it must.

        Raises:
            ValueError: it does not.
        """
        try:
            self._adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None
        return value


def _sentence(error: ValidationError) -> str:
    """Say what is wrong: what is lacking, what is too much, or the first value that cannot be; and how many more."""
    errors = error.errors(include_url=False)
    names = {
        kind: [_place(one["loc"]) for one in errors if one["type"] in types]
        for kind, types in {
            "it lacks": ("missing", "missing_argument", "missing_keyword_only_argument"),
            "it has fields that it should not have:": ("unexpected_keyword_argument", "extra_forbidden"),
        }.items()
    }
    others = [one for one in errors if _place(one["loc"]) not in [name for listed in names.values() for name in listed]]
    # What a check of ours says, for example that the schema is another, explains the rest.
    others.sort(key=lambda one: one["type"] != "value_error")
    said = [f"{text} {', '.join(listed)}" for text, listed in names.items() if listed]
    if others:
        first, place = others[0], _place(others[0]["loc"])
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("value_error", "json_invalid"):
            wanted = message.replace("Input should be", "must be")
            message = f"{place or 'it'} {wanted}, not {_short(first['input'])}"
        elif place and place != "schema":
            message = f"{place}: {message}"
        said.insert(0, f"{message}{more}")
    return "; ".join(said)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)  # raises ValueError for NaN and infinity, at any depth
    return value


# A name stands in paths and in titles, a title in titles alone: nothing there may end a line or begin a formula.
Title = Annotated[str, Field(pattern=r"^[^$\\\x00-\x1f\x7f]{1,200}$")]
Name = Annotated[str, Field(pattern=r"^[^/$\\\x00-\x1f\x7f]{1,200}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Object = Annotated[dict[str, Any], AfterValidator(_finite)]


@with_config(OPEN)
class _Sizes(TypedDict):
    test: Positive


@with_config(OPEN)
class _Sums(TypedDict):
    test: Name


@with_config(OPEN)
class _Data(TypedDict):
    source: Title
    variant: Title
    sizes: _Sizes
    sha256: _Sums


@with_config(OPEN)
class _Named(TypedDict):
    name: NotRequired[Name]


@with_config(OPEN)
class _Protocol(_Named):
    tested: NotRequired[Annotated[str, Field(pattern="^(best|last)$")]]


@with_config(OPEN)
class _Trainer(TypedDict):
    steps: NotRequired[Positive]


@with_config(OPEN)
class _Config(TypedDict):
    attn: _Named
    task: NotRequired[_Named]
    protocol: NotRequired[_Protocol]
    trainer: NotRequired[_Trainer]


@with_config(OPEN)
class _Mechanism(TypedDict):
    module: str
    version: str | None
    commit: str | None


@with_config(OPEN)
class _Environment(TypedDict):
    device_name: NotRequired[str | None]
    cpu_capability: NotRequired[str | None]
    num_threads: NotRequired[int | None]
    mechanism: NotRequired[_Mechanism]
    source: NotRequired[dict[Name, Title]]


# The description of a data set, the configuration of a run, and where it ran: what tables need of them.
Data = Annotated[Object, AfterValidator(Form(_Data).check)]
Config = Annotated[Object, AfterValidator(Form(_Config).check)]
Environment = Annotated[Object, AfterValidator(Form(_Environment).check)]


@with_config(OPEN)
class _BegunNode(TypedDict):
    name: Name


@with_config(OPEN)
class _Begun(TypedDict):
    task: _BegunNode
    attn: _BegunNode
    protocol: _BegunNode
    scale: Name
    seed: Count
    device: Name


@with_config(OPEN)
class _Point(TypedDict):
    step: Count
    val_accuracy: NotRequired[Share | None]
    train_seconds: NotRequired[Amount | None]


# A point of a learning curve.
Number = Annotated[int, Field(gt=-(2**63), lt=2**63)] | float | None
Point = Annotated[dict[Name, Number], AfterValidator(_finite), AfterValidator(Form(_Point).check)]

# The configuration with which a run was begun, whole.
BegunConfig = Annotated[Config, AfterValidator(Form(_Begun).check)]
