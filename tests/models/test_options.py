"""Options of mechanisms: what is wrong with one is said by its name."""

from __future__ import annotations

import copy

import pytest

from models.attention.skeinformer import SkeinformerAttention
from models.attention.softmax import SoftmaxAttention
from models.checks import at_least, one_of

SIZES = {"num_heads": 2, "head_dim": 8, "max_len": 64, "dropout": 0.0}


def test_an_option_that_a_mechanism_does_not_have_is_named_with_those_that_it_has():
    options = "num_samples, columns, normalization, reuse_pilot, pilot_per_head"
    for misspelt in ({"num_sample": 3}, {"num_samples": 3, "num_sample": 3}):
        with pytest.raises(TypeError, match=f"SkeinformerAttention has no option num_sample; it has {options}."):
            SkeinformerAttention(**SIZES, **misspelt)
    with pytest.raises(TypeError, match="SoftmaxAttention has no option num_samples; it has none."):
        SoftmaxAttention(**SIZES, num_samples=3)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'num_samples'"):
        SkeinformerAttention(**SIZES)


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
