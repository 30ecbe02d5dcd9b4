"""How mechanisms are made, and told apart."""

from __future__ import annotations

from functools import partial

import pytest

from lra.benchmarks.mechanisms import factory, makes_attention
from lra.errors import InputError
from models.mixers.multi_head import MultiHead
from tests.helpers.toy_mixer import ToyMixer


def test_an_attention_is_told_from_a_mixer():
    assert makes_attention(factory("vmean", 8))
    assert not makes_attention(ToyMixer)
    assert not makes_attention(partial(MultiHead, factory("vmean", 8)))
    with pytest.raises(InputError, match="must be a subclass"):
        makes_attention(dict)


def test_the_budget_is_the_mechanisms():
    assert factory("skeinformer", 8)(num_heads=1, head_dim=4, max_len=64, dropout=0.0).num_samples == 8
