"""What is suggested where a key or a choice does not exist."""

from __future__ import annotations

import pytest

from lra.configuration import CHOICES as GROUPS
from lra.configuration import TABLES, options_of
from lra.suggestions import CHOICES, KEYS, leaves_of, meant_choice, meant_key
from tests.helpers.configurations import resolved, stacked

CONFIGURATION = resolved(stacked(attn="skeinformer", scale="smoke"))
TOP = list(CONFIGURATION)
LEAVES = list(leaves_of(CONFIGURATION, without=TABLES))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "optimizer.learning_rate"), ("LR", "optimizer.learning_rate"), ("batch_size", "trainer.batch_size"),
        ("gpu", "device=cuda"), ("sed", "seed"), ("batch-size", "trainer.batch_size"), ("n_layers", "model.depth"),
        ("num_samples", "attn.num_samples"), ("max_length", "task.max_length"), ("zzz", ""),
        ("modle.dim", "model.dim"), ("training.lr", "optimizer.learning_rate"), ("dropout", "model.dropout"),
        ("learning_rat", "optimizer.learning_rate"), ("dataset", "task"),
    ],
)  # fmt: skip
def test_the_key_that_was_meant_is_found(key, meant):
    assert meant_key(key, "", TOP, LEAVES) == meant


def test_epochs_are_explained():
    assert meant_key("epochs", "", TOP, LEAVES).startswith("trainer.steps (training is counted in steps of")


@pytest.mark.parametrize(
    ("key", "node", "meant"),
    [
        ("trainer.stepz", "trainer", "trainer.steps"), ("trainer.lr", "trainer", "optimizer.learning_rate"),
        ("model.batch_size", "model", "trainer.batch_size"), ("trainer.optim.lr", "trainer", "optimizer.learning_rate"),
    ],
)  # fmt: skip
def test_the_keys_of_the_node_come_first(key, node, meant):
    assert meant_key(key, node, list(CONFIGURATION[node]), LEAVES) == meant


@pytest.mark.parametrize(
    ("group", "choice", "meant"),
    [
        ("attn", "linear", "linear_transformer"), ("attn", "flash", "softmax"), ("attn", "Skeinformer", "skeinformer"),
        ("attn", "skienformer", "skeinformer"), ("attn", "H-Transformer-1D", "h_transformer_1d"), ("attn", "zzz", ""),
        ("task", "imdb", "text"), ("task", "cifar", "image"), ("task", "Path-X", "pathx"), ("scale", "tiny", "smoke"),
        ("protocol", "yoso", "nystromformer"), ("hydra/launcher", "slurm_locale", "slurm_local"),
    ],
)  # fmt: skip
def test_the_choice_that_was_meant_is_found(group, choice, meant):
    assert meant_choice(group, choice, options_of(group)) == meant


def test_other_words_for_keys_lead_to_keys_and_are_none_themselves():
    for meant, words in KEYS.items():
        key = meant.partition(" ")[0].partition("=")[0]
        assert key in {*LEAVES, *GROUPS}, key
        assert not {*words} & {*TOP}, meant
    every = [word for words in KEYS.values() for word in words]
    assert len(every) == len({*every})


def test_other_words_for_choices_lead_to_choices_and_are_none_themselves():
    for group, meanings in CHOICES.items():
        assert {*meanings} <= {*options_of(group)}
        every = [word for words in meanings.values() for word in words]
        assert len(every) == len({*every})
        assert not {*every} & {*options_of(group)}
