"""Batches against a plain loop; the order of training and the completeness of evaluation."""

import numpy as np
import pytest

from lra.data import LENGTH_MULTIPLE, batch, evaluation_batches, lengths, training_index
from tests.toy import ToyTask


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_a_batch_is_what_a_loop_over_its_examples_would_pad(num_inputs):
    task = ToyTask(num_inputs)
    split = task.split("train")
    index = np.array([5, 0, 255, 5])
    tokens, mask, labels = batch(split, index, task.max_len)
    assert tokens.shape == mask.shape
    for place, example in enumerate(index):
        for which in range(num_inputs):
            first, last = split.offsets[example * num_inputs + which :][:2]
            row = split.tokens[first:last].tolist()
            assert tokens[place, which].tolist() == row + [0] * (tokens.shape[-1] - len(row))
            assert mask[place, which].tolist() == [True] * len(row) + [False] * (tokens.shape[-1] - len(row))
    assert labels.tolist() == split.labels[index].tolist()


def test_the_width_is_rounded_up_but_not_beyond_the_longest_allowed():
    task = ToyTask()
    split = task.split("train")
    sizes = lengths(split)[:, 0]
    short, long = np.flatnonzero(sizes == 3)[:1], np.flatnonzero(sizes == 12)[:1]
    assert batch(split, short, task.max_len)[0].shape[-1] == LENGTH_MULTIPLE
    assert batch(split, long, task.max_len)[0].shape[-1] == 12


def test_a_zero_token_inside_a_sequence_is_not_padding():
    task = ToyTask()
    split = task.split("train")
    zeroed = split._replace(tokens=np.zeros_like(split.tokens))
    _, mask, _ = batch(zeroed, np.arange(10), task.max_len)
    assert mask.sum(-1)[:, 0].tolist() == lengths(split)[:10, 0].tolist()


def test_training_sees_every_example_equally_often_and_every_batch_is_full():
    seen = np.concatenate([training_index(10, 4, seed=3, step=step) for step in range(15)])
    assert np.bincount(seen).tolist() == [6] * 10
    for epoch in seen.reshape(6, 10):
        assert sorted(epoch) == list(range(10))


def test_the_order_depends_on_seed_epoch_and_step_alone():
    assert training_index(100, 7, 0, 20).tolist() == training_index(100, 7, 0, 20).tolist()
    assert training_index(100, 7, 0, 20).tolist() != training_index(100, 7, 1, 20).tolist()
    first, second = training_index(10, 10, 0, 0), training_index(10, 10, 0, 1)
    assert first.tolist() != second.tolist()
    assert (
        training_index(4, 10, 0, 0).tolist() == np.concatenate([training_index(4, 2, 0, s) for s in range(5)]).tolist()
    )


@pytest.mark.parametrize("batch_size", [1, 8, 66, 67, 1000])
def test_evaluation_counts_every_example_exactly_once(batch_size):
    task = ToyTask()
    split = task.split("test")
    parts = list(evaluation_batches(split, batch_size, task.max_len))
    assert sorted(np.concatenate([index for index, _ in parts])) == list(range(67))
    for index, (_, _, labels) in parts:
        assert labels.tolist() == split.labels[index].tolist()
