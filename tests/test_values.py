"""Values against their types: what fits passes, what does not is told in a sentence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, Strict

from lra.errors import InputError
from lra.values import Count, Node, Positive, Share, Text, Whole, check_arguments, check_node, takes


class Inner(Node):
    norm: Literal["layer", "batch"]
    std: Positive


class Outer(Node):
    count: Count
    whole: Whole
    rate: Share
    number: float
    text: Text
    flag: bool
    size: Count | Literal["auto"] | None
    pair: Annotated[tuple[Share, Share], Strict(False)]
    inner: Inner
    perhaps: Inner | None
    table: dict[str, Any]


GOOD = {
    "count": 1, "whole": 0, "rate": 0, "number": -2.5, "text": "a", "flag": False, "size": None, "pair": [0, 0.5],
    "inner": {"norm": "layer", "std": 2}, "perhaps": None, "table": {},
}  # fmt: skip


def test_what_fits_passes():
    check_node(Outer, GOOD)
    check_node(Outer, {**GOOD, "size": "auto", "perhaps": GOOD["inner"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count must be an integer, at least 1. Got 0."),
        ({"count": True}, "count must be an integer, at least 1. Got True."),
        ({"count": 1.0}, "count must be an integer, at least 1. Got 1.0."),
        ({"count": "1"}, "count must be an integer, at least 1. Got '1'."),
        ({"count": 2**31}, "count must be an integer from 1 to 2147483647. Got 2147483648."),
        ({"rate": 1.5}, "rate must be a number from 0 to below 1. Got 1.5."),
        ({"number": float("nan")}, "number must be a number. Got nan."),
        ({"number": float("inf")}, "number must be a number. Got inf."),
        ({"number": "1e-3"}, "number must be a number. Got '1e-3'."),
        ({"number": True}, "number must be a number. Got True."),
        ({"text": ""}, "text must be text, not empty. Got ''."),
        ({"text": 3}, "text must be text, not empty. Got 3."),
        ({"flag": 1}, "flag must be true or false. Got 1."),
        ({"size": "x"}, "size must be an integer, at least 1, or auto, or null. Got 'x'."),
        ({"pair": [0.5]}, "pair must be a list of 2, each a number from 0 to below 1. Got [0.5]."),
        ({"pair": [0.5, 2]}, "pair must be a list of 2, each a number from 0 to below 1. Got [0.5, 2]."),
        ({"pair": 0.5}, "pair must be a list of 2, each a number from 0 to below 1. Got 0.5."),
        ({"inner": {"norm": "layers", "std": 1}}, "inner.norm must be one of layer, batch. Got 'layers'."),
        ({"inner": {"norm": "layer"}}, "inner.std is missing. It must be a number, more than 0."),
        ({"inner": {**GOOD["inner"], "nrm": 1}},
         "inner.nrm is no key. Did you mean inner.norm? Keys of inner: norm, std."),
        ({"inner": 3}, "inner must be a mapping with the keys norm, std. Got 3."),
        ({"perhaps": {}}, "perhaps.norm is missing. It must be one of layer, batch.\n"
                          "perhaps.std is missing. It must be a number, more than 0."),
        ({"perhaps": True}, "perhaps must be a mapping with the keys norm, std, or null. Got True."),
        ({"table": "abc"}, "table must be a mapping. Got 'abc'."),
        ({"count": 0, "flag": "no"}, "count must be an integer, at least 1. Got 0.\n"
                                     "flag must be true or false. Got 'no'."),
        ({"cuont": 0}, "cuont is no key. Did you mean count? Keys of the top level: " + ", ".join(GOOD) + "."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_a_sentence_for_each_key(change, message):
    with pytest.raises(InputError) as error:
        check_node(Outer, {**GOOD, **change})
    assert str(error.value) == message


def test_a_node_has_its_name_in_front():
    with pytest.raises(InputError, match=r"^model.inner.std must be a number, more than 0. Got 0.$"):
        check_node(Outer, {**GOOD, "inner": {"norm": "layer", "std": 0}}, "model")
    with pytest.raises(InputError, match=r"^model must be a mapping"):
        check_node(Outer, 3, "model")


def test_no_mapping_at_all_is_told():
    with pytest.raises(InputError, match="^the configuration must be a mapping of keys. Got 3.$"):
        check_node(Outer, 3)


class Mechanism:
    def __init__(self, *, num_samples: int, kernel: Literal["relu", "exp"] = "exp", width: Unknown = 3) -> None:  # noqa: F821
        """Take an argument with a type that exists nowhere, as some that are only for type checkers."""


class Open:
    def __init__(self, *, num_samples: int, clip: float | None = None, call: Any = None, **sizes: int) -> None:
        """Hand on what it does not know."""


def test_arguments_are_held_to_the_annotations_of_a_class():
    check_arguments(Open, {"num_samples": 3, "clip": 2, "num_heads": 3}, "attn")
    check_arguments(Open, {}, "attn")  # something else may hand it in
    with pytest.raises(InputError, match="^attn.num_samples must be an integer. Got 1.5.$"):
        check_arguments(Open, {"num_samples": 1.5}, "attn")
    with pytest.raises(InputError, match="^attn.clip must be a number, or null. Got nan.$"):
        check_arguments(Open, {"clip": float("nan")}, "attn")


def test_a_type_that_cannot_be_known_takes_anything_but_other_names():
    check_arguments(Mechanism, {"num_samples": 1.5, "width": "any"}, "attn")
    with pytest.raises(InputError, match="^attn.widht is no key. Did you mean attn.width[?] Keys of attn: num_samples"):
        check_arguments(Mechanism, {"widht": 1}, "attn")


def test_a_range_is_put_into_words():
    field = Node.__class__("Range", (Node,), {"__annotations__": {"x": Annotated[float, Field(ge=0, lt=1)]}})
    assert takes(field.model_fields["x"]) == "a number from 0 to below 1"
