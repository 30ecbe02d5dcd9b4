"""Options of mechanisms: what is wrong with one is said by its name."""

from __future__ import annotations

import copy
import math
from functools import partial
from inspect import signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from models.attention.none import NoneAttention
from models.attention.skeinformer import SkeinformerAttention
from models.checks import at_least, finite, not_negative, odd, one_of, positive, rate
from models.mechanism import Mechanism
from models.mixers import StreamMixer
from tests.helpers.contract import (
    C,
    D,
    H,
    TwoLayers,
    attentions,
    configured,
    files,
    heads,
    holey_mask,
    mechanism_in,
    rows,
    run,
)

# What the model gives; Luna's heads are an option of its own, which the model's are the default of.
HANDED_IN = ("num_heads", "head_dim", "dim", "max_len", "dropout", "sizes")
SIZES = {"num_heads": 2, "head_dim": 8, "max_len": 64, "dropout": 0.0}


def test_an_option_that_a_mechanism_does_not_have_is_named_with_those_that_it_has():
    options = "num_samples, columns, normalization, reuse_pilot, pilot_per_head"
    for misspelt in ({"num_sample": 3}, {"num_samples": 3, "num_sample": 3}):
        with pytest.raises(TypeError, match=f"SkeinformerAttention has no option num_sample; it has {options}."):
            SkeinformerAttention(**SIZES, **misspelt)
    with pytest.raises(TypeError, match="NoneAttention has no option num_samples; it has none."):
        NoneAttention(**SIZES, num_samples=3)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'num_samples'"):
        SkeinformerAttention(**SIZES)


def options_of(name: str) -> dict[str, Any]:
    """The annotations of a mechanism's own options."""
    hints = get_type_hints(mechanism_in(files()[name]).__init__)
    return {option: hint for option, hint in hints.items() if option not in (*HANDED_IN, "return")}


def kinds_in(annotation: Any) -> list[Any]:
    """The types in a union, or the one that it is."""
    return [kind for part in get_args(annotation) for kind in kinds_in(part)] if is_union(annotation) else [annotation]


def is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


@pytest.mark.parametrize("name", files())
def test_every_option_has_a_type_that_a_value_can_be_held_to(name):
    parameters = signature(mechanism_in(files()[name]).__init__).parameters
    assert set(parameters) - {"self", *HANDED_IN} == set(options_of(name))
    for option, annotation in options_of(name).items():
        for kind in kinds_in(annotation):
            assert kind in (int, float, bool, NoneType) or get_origin(kind) is Literal, (option, kind)


def tried(annotation: Any) -> list[Any]:
    """Values of the types of an annotation, sensible ones and others."""
    values: list[Any] = []
    for kind in kinds_in(annotation):
        values += {
            int: [-(10**30), -1, 0, 1, 2, 3, 50, 2**20, 2**20 + 1, 2**31, 10**30],
            float: [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-3, 1.0],
            bool: [True, False],
            NoneType: [None],
        }.get(kind, [*get_args(kind), "another"])
    return values


# An honest wish for a great deal of memory is no wrong value; of a mixer nearly every size is one.
GREEDY = {"proj_len", "num_features", "rank", "num_landmarks", "num_samples", "conv_size", "conv_window", "num_buckets"}
IMPOSSIBLE = ("nan", "inf", "-inf", "-1.0", str(10**30), str(-(10**30)), "another")


@pytest.mark.parametrize("name", files())
def test_a_mechanism_that_can_be_built_works_and_another_is_refused_by_the_name_of_an_option(name):
    mask = holey_mask(9)
    inputs = heads(9) if name in attentions() else rows(9)
    for option, annotation in options_of(name).items():
        for value in tried(annotation):
            if value == 2**20 and (option in GREEDY or name not in attentions()):
                continue
            made, refusal = built(name, option, value)
            if made is None:
                assert any(own in refusal for own in options_of(name)), (option, value)
                assert "\n" not in refusal
                continue
            assert str(value) not in IMPOSSIBLE, (option, value)
            out, grads = run(made, inputs, mask)
            for x in (out, *grads):
                assert x.isfinite().all(), (option, value)


def built(name: str, option: str, value: Any) -> tuple[Mechanism | None, str]:
    """A mechanism with one option of another value, or None and what its constructor says."""
    make, sizes = partial(configured(name), **{option: value}), {"max_len": 16, "dropout": 0.0}
    try:
        if name in attentions():
            return make(num_heads=H, head_dim=D, **sizes), ""
        mixer = make(dim=C, **sizes)
        return TwoLayers(mixer) if isinstance(mixer, StreamMixer) else mixer, ""
    except ValueError as error:
        return None, str(error)


def test_a_mechanism_can_be_copied():
    module = SkeinformerAttention(**SIZES, num_samples=3)
    assert copy.deepcopy(module).num_samples == 3


def test_numbers_below_the_least_are_named():
    at_least(1, rank=1)
    at_least(0, rank=0)
    with pytest.raises(ValueError, match=r"^rank must be at least 1\. Got 0\.$"):
        at_least(1, rank=0)
    with pytest.raises(ValueError, match=r"^height must be at least 2\. Got 1\.$"):
        at_least(2, width=2, height=1)
    with pytest.raises(ValueError, match=r"^rank must be at least 0\. Got -1\.$"):
        at_least(0, rank=-1)
    with pytest.raises(ValueError, match=r"^model\.depth must be at least 1\. Got 0\.$"):
        at_least(1, **{"model.dim": 8, "model.depth": 0})


@pytest.mark.parametrize("value", [1.5, "2", True, None])
def test_numbers_that_are_no_integers_are_named(value):
    with pytest.raises(ValueError, match=rf"^rank must be an integer, at least 1\. Got {value!r}\.$"):
        at_least(1, rank=value)


def test_values_that_are_no_choice_are_named():
    one_of(("soft", "hard"), kernel="soft")
    with pytest.raises(ValueError, match=r"^kernel must be one of soft, hard\. Got 'sfot'\.$"):
        one_of(("soft", "hard"), kernel="sfot")


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (odd, [1, 35], [0, 2, -1, 1.0, True]),
        (finite, [-1.5, 0, 3], [math.nan, math.inf, "1", True, None]),
        (positive, [1e-30, 2], [0, -1.0, math.nan, math.inf, "1", True]),
        (not_negative, [0, 0.5], [-1e-9, math.nan, math.inf, False]),
        (rate, [0, 0.0, 0.999], [1, 1.0, -0.1, math.nan, "0.1", True, None]),
    ],
)
def test_numbers_out_of_range_are_named(check, right, wrong):
    for value in right:
        check(width=value)
    for value in wrong:
        with pytest.raises(ValueError, match=r"^width must be .*\. Got .*\.$"):
            check(width=value)


def test_numbers_beyond_every_sensible_one_are_named():
    at_least(1, rank=2**20)
    with pytest.raises(ValueError, match=r"^rank must be at most 1048576\. Got 1048577\.$"):
        at_least(1, rank=2**20 + 1)
    with pytest.raises(ValueError, match=r"^bits must be at most 20\. Got 21\.$"):
        at_least(0, 20, bits=21)
