"""Values against their types: pydantic finds what does not fit, and this file says it in a sentence for each key."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from lra.errors import InputError
from lra.suggestions import leaves_of, meant_key

LARGEST_INTEGER = 2**31 - 1  # more does not fit into every array index
# Nothing is taken for something else: no text for a number, no true for 1. An integer is a number, though, and infinity
# is none.
STRICT = ConfigDict(
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    frozen=True,
    arbitrary_types_allowed=True,
    protected_namespaces=(),
)

Count = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
Whole = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Node(BaseModel):
    """Base class of the description of a node: a field for each of its keys, typed and with its range."""

    model_config = STRICT


def check_node(description: type[BaseModel], values: Any, name: str = "") -> None:
    """Hold values to the description of their node.

    Args:
        description: a field for each key.
        values: what came, as plain values.
        name: of the node, for the messages; "" for the top level.

    Raises:
        InputError: a key is missing or unknown, or has another type or an impossible value; a line for each.
    """
    try:
        description.model_validate(values)
    except ValidationError as error:
        sentences = (_sentence(description, values, name, problem) for problem in error.errors(include_url=False))
        raise InputError("\n".join(dict.fromkeys(sentences))) from None


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any], name: str) -> None:
    """Hold the keys of a node to the annotations of the function, or class, that they are arguments of.

    An argument that is not among the values is not missing here: something else may hand it in.

    Raises:
        InputError: as `check_node`.
    """
    check_node(_arguments_of(function), values, name)


@cache
def _arguments_of(function: Callable[..., Any]) -> type[BaseModel]:
    """Describe the arguments of a function or class; one whose type cannot be checked may be anything."""
    parameters = inspect.signature(function).parameters
    try:
        described: Any = vars(function).get("__init__", function) if isinstance(function, type) else function
        hints = typing.get_type_hints(described, include_extras=True)
    except (NameError, AttributeError, TypeError):  # an annotation that exists for type checkers alone
        hints = {}
    kinds = {kind.kind for kind in parameters.values()}
    fields: dict[str, Any] = {
        name: (_checkable(hints.get(name, Any)), Field(default=None))
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    config = {**STRICT, "extra": "allow"} if inspect.Parameter.VAR_KEYWORD in kinds else STRICT
    return create_model("Arguments", __config__=ConfigDict(**config), **fields)


def _checkable(annotation: Any) -> Any:
    """Return a type that plain values can be held to: `Any` for what pydantic has no description of."""
    if annotation is int:
        return Annotated[int, Field(le=LARGEST_INTEGER)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[tuple(_checkable(kind) for kind in typing.get_args(annotation))]  # noqa: UP007
    try:
        TypeAdapter(annotation, config=ConfigDict(strict=True)).json_schema()
    except (PydanticUserError, TypeError, NameError):
        return Any
    return annotation


def _sentence(description: type[BaseModel], values: Any, name: str, problem: Any) -> str:
    """Say what is wrong with a key, what it takes, and what came."""
    node: Any = description
    path, value = ([name] if name else []), values
    field: FieldInfo | None = None
    for step in problem["loc"]:
        fields = getattr(node, "model_fields", {})
        if step in fields:
            field = fields[step]
            node = model_in(field.annotation)
        elif problem["type"] != "extra_forbidden" or not fields:  # the name of a type, or the place in a list
            continue
        path.append(str(step))
        value = value.get(step) if isinstance(value, Mapping) else None
    key = ".".join(path) or "the configuration"
    if problem["type"] == "extra_forbidden":
        leaves = [] if name or not isinstance(values, Mapping) else [leaf for leaf in leaves_of(values) if leaf != key]
        return unknown_key(key, ".".join(path[:-1]), list(getattr(node, "model_fields", {})), leaves)
    expected = "a mapping of keys" if field is None else takes(field, value)
    if problem["type"] == "missing" and problem["loc"][-1] == path[-1]:
        return f"{key} is missing. It must be {expected}."
    meant = _choice_among(node, value)
    hint = f" Did you mean {key}.{meant}={value}?" if meant else ""
    return f"{key} must be {expected}. Got {value!r}.{hint}"


def _choice_among(node: Any, value: Any) -> str:
    """Name the key of a node that a value is a choice of, where it came in the place of the node; "" for none."""
    fields = getattr(node, "model_fields", {}) if isinstance(value, str) else {}
    return next((name for name, field in fields.items() if value in typing.get_args(field.annotation)), "")


def model_in(annotation: Any) -> Any:
    """Return the description of a node among the types of an annotation; None if there is none."""
    candidates = [annotation, *typing.get_args(annotation)]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def described_leaves(description: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the keys of a description that hold a value, with dots."""
    for name, field in description.model_fields.items():
        inner = model_in(field.annotation)
        yield from described_leaves(inner, f"{path}{name}.") if inner else [f"{path}{name}"]


def unknown_key(key: str, node: str, names: Sequence[str], leaves: Sequence[str] = ()) -> str:
    """Say that a key does not exist, which ones do, and which one it may have been.

    Args:
        key: what came.
        node: the innermost node that exists, "" for the top level.
        names: the keys that it has.
        leaves: all keys that hold a value, with dots, as far as they are known.
    """
    meant = meant_key(key, node, names, leaves)
    hint = f" Did you mean {meant}?" if meant else ""
    return f"{key} is no key.{hint} Keys of {node or 'the top level'}: {', '.join(names) or 'none'}."


def takes(field: FieldInfo, value: Any = None) -> str:
    """Say in words what a field takes; a bound that is only reached by mistake is named where `value` is beyond."""
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    schema = TypeAdapter(annotation).json_schema()
    return _in_words(schema, schema.get("$defs", {}), value)


def _in_words(schema: Mapping[str, Any], definitions: Mapping[str, Any], value: Any) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(_in_words(kind, definitions, value) for kind in schema["anyOf"]))
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        words = ["true" if choice is True else "false" if choice is False else str(choice) for choice in choices]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("an integer" if kind == "integer" else "a number") + _range(schema, value)
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        number = f"a list of {len(items)}" if "prefixItems" in schema else "a list"
        return f"{number}, each {_in_words(items[0], definitions, None)}" if items[0] else number
    if kind == "object":
        names = ", ".join(schema.get("properties", {}))
        return f"a mapping with the keys {names}" if names else "a mapping"
    simple = {
        "boolean": "true or false",
        "null": "null",
        "string": "text, not empty" if "minLength" in schema else "text",
    }
    return simple.get(str(kind), "another value")


def _range(schema: Mapping[str, Any], value: Any) -> str:
    """Say in words between what a number lies, with a space or a comma in front."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if high == LARGEST_INTEGER and not (isinstance(value, int) and value > high):
        high = None
    end = f"to {high}" if high is not None else f"to below {below}" if below is not None else ""
    if low is not None and end:
        return f" from {low} {end}"
    words = [f"at least {low}"] if low is not None else [f"more than {above}"] if above is not None else []
    words += [f"at most {high}"] if high is not None else [f"below {below}"] if below is not None else []
    return f", {' and '.join(words)}" if words else ""
