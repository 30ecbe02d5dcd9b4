"""Batches against a plain loop; the order of training and the completeness of evaluation."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from lra.errors import InputError
from lra.training.batching import LENGTH_MULTIPLE, Batching, lengths
from models.attention.softmax import SoftmaxAttention
from tests.helpers.toy import ToyTask
from tests.helpers.training import model_for

PLAIN = Batching(padding="batch", bucket_batches=1, mask_zero=False)
BUCKETS = Batching(padding="batch", bucket_batches=5, mask_zero=False)


def steps(batching: Batching, split, batch_size: int, seed: int, count: int, first: int = 0) -> list[np.ndarray]:
    return list(islice(batching.training(split, batch_size, seed, first), count))


def padded_by_hand(split, example: int, which: int, inputs: int, width: int) -> tuple[list[int], list[bool]]:
    first, last = split.offsets[example * inputs + which], split.offsets[example * inputs + which + 1]
    padding = width - (last - first)
    return [*split.tokens[first:last].tolist(), *[0] * padding], [True] * (last - first) + [False] * padding


@pytest.mark.parametrize("index", [[5, 0, 7, 5], [255, 1], [255]])
@pytest.mark.parametrize("padding", ["batch", "max"])
@pytest.mark.parametrize("inputs", [1, 2])
def test_a_batch_is_what_a_loop_over_its_examples_would_pad(inputs, padding, index):
    """The last examples of a split, whose padding lies beyond its end, take a path of their own."""
    task = ToyTask(inputs)
    split = task.split("train")
    batch = Batching(padding=padding, bucket_batches=1, mask_zero=False).gather(split, np.array(index), task.max_len)
    width = batch.tokens.shape[-1]
    for place, example in enumerate(index):
        for which in range(inputs):
            row = batch.tokens[place, which].tolist(), batch.mask[place, which].tolist()
            assert row == padded_by_hand(split, example, which, inputs, width)
    assert batch.labels.tolist() == split.labels[index].tolist()


def test_the_width_is_the_longest_rounded_up_but_not_beyond_the_longest_allowed():
    task = ToyTask()
    split = task.split("train")
    sizes = lengths(split, np.arange(256))
    short, long = np.flatnonzero(sizes == 3)[:1], np.flatnonzero(sizes == 12)[:1]
    assert PLAIN.gather(split, short, task.max_len).tokens.shape[-1] == LENGTH_MULTIPLE
    assert PLAIN.gather(split, long, task.max_len).tokens.shape[-1] == 12
    assert Batching("max", 1, mask_zero=False).gather(split, short, task.max_len).tokens.shape[-1] == 12


def test_padding_changes_nothing_that_comes_out_of_the_model():
    task = ToyTask()
    split, model = task.split("train"), model_for(task, SoftmaxAttention).double().eval()
    short = np.flatnonzero(lengths(split, np.arange(256)) < 6)[:9]
    narrow, wide = (
        Batching(padding, 1, mask_zero=False).gather(split, short, task.max_len) for padding in ("batch", "max")
    )
    assert narrow.tokens.shape != wide.tokens.shape
    torch.testing.assert_close(model(narrow.tokens, narrow.mask), model(wide.tokens, wide.mask), rtol=0, atol=1e-12)


def test_a_zero_token_inside_a_sequence_is_not_padding():
    task = ToyTask()
    split = task.split("train")
    zeroed = split._replace(tokens=np.zeros_like(split.tokens))
    batch = PLAIN.gather(zeroed, np.arange(10), task.max_len)
    assert batch.mask.sum(-1)[:, 0].tolist() == lengths(split, np.arange(10)).tolist()


def test_a_zero_token_is_padding_where_the_protocol_wants_it_so():
    task = ToyTask()
    split = task.split("train")
    split.tokens[split.offsets[3] + 1] = 0
    batch = Batching("batch", 1, mask_zero=True).gather(split, np.array([3, 4]), task.max_len)
    assert torch.equal(batch.mask, batch.tokens != 0)
    assert not batch.mask[0, 0, 1]


@pytest.mark.parametrize("index", [[5, 0, 7], [255]])
def test_a_padded_length_is_the_width_of_every_batch(index):
    task = ToyTask()
    split = task.split("train")
    padded, plain = (
        Batching("max", 1, mask_zero=False, padded_length=length).gather(split, np.array(index), task.max_len)
        for length in (16, None)
    )
    assert padded.tokens.shape[-1] == 16
    assert torch.equal(padded.tokens[..., :12], plain.tokens)
    assert torch.equal(padded.mask[..., :12], plain.mask)
    assert not padded.tokens[..., 12:].any()
    assert not padded.mask[..., 12:].any()


def test_a_padded_length_that_cannot_be_is_refused():
    task = ToyTask()
    for padding in ("batch", "max"):
        batching = Batching(padding, 1, mask_zero=False, padded_length=11)
        with pytest.raises(InputError, match="data.padded_length must be at least 12, the task's longest. Got 11."):
            batching.gather(task.split("train"), np.arange(3), task.max_len)


@pytest.mark.parametrize("batching", [PLAIN, BUCKETS])
def test_training_sees_every_example_equally_often_and_every_batch_is_full(batching):
    split = ToyTask(sizes=(10, 1, 1)).split("train")
    batches = steps(batching, split, 4, 3, 15)
    assert {len(index) for index in batches} == {4}
    assert np.bincount(np.concatenate(batches)).tolist() == [6] * 10
    first_window = np.concatenate(batches[:5])
    assert np.bincount(first_window).tolist() == [2] * 10


@pytest.mark.parametrize("batching", [PLAIN, BUCKETS])
@pytest.mark.parametrize("first", [1, 5, 12])
def test_training_may_begin_at_any_step(batching, first):
    split = ToyTask(sizes=(10, 1, 1)).split("train")
    whole = steps(batching, split, 4, 3, 15)
    assert np.array_equal(whole[first:], steps(batching, split, 4, 3, 15 - first, first))


def test_epochs_have_orders_of_their_own_that_depend_on_the_seed():
    split = ToyTask(sizes=(100, 1, 1)).split("train")
    orders = [order.tolist() for seed in (0, 1) for order in steps(PLAIN, split, 100, seed, 2)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    cut = np.concatenate(steps(PLAIN, split, 20, 0, 5))
    assert cut.tolist() == orders[0]


def test_buckets_hold_sequences_of_like_length_in_no_order():
    split = ToyTask().split("train")
    sizes = [lengths(split, index) for index in steps(BUCKETS, split, 16, 0, 15)]
    plain = [lengths(split, index) for index in steps(PLAIN, split, 16, 0, 15)]
    assert np.mean([np.ptp(s) for s in sizes]) < 0.5 * np.mean([np.ptp(s) for s in plain])
    means = np.array([s.mean() for s in sizes]).reshape(3, 5)
    assert all((np.diff(window) < 0).any() for window in means)  # not from short to long every time


@pytest.mark.parametrize("batch_size", [1, 8, 66, 67, 1000])
def test_evaluation_counts_every_example_exactly_once(batch_size):
    task = ToyTask()
    split = task.split("test")
    parts = list(PLAIN.evaluation(split, batch_size, task.max_len))
    assert sorted(np.concatenate([index for index, _ in parts])) == list(range(67))
    for index, batch in parts:
        assert batch.labels.tolist() == split.labels[index].tolist()
