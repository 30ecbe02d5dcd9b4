"""The baselines that are no attention mechanisms: they learn what they should, and cannot what they should not."""

from __future__ import annotations

import pytest
import torch

from models.baselines.cnn import SmallCNN
from models.baselines.ngrams import NgramClassifier


def learn(model, tokens, mask, labels, steps=60) -> float:
    """Train on the first half; return the accuracy on the second."""
    half = len(labels) // 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens[:half], mask[:half]), labels[:half]).backward()
        optimizer.step()
    model.eval()
    return (model(tokens[half:], mask[half:]).argmax(-1) == labels[half:]).float().mean().item()


def test_the_cnn_learns_the_direction_of_stripes_and_not_random_labels():
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (256,))
    stripes = (torch.arange(16)[None] + torch.randint(0, 4, (256, 1))) % 4 < 2
    images = torch.where(labels[:, None, None] == 1, stripes[:, None, :], stripes[:, :, None]) * 200
    tokens = (images + torch.randint(0, 55, images.shape)).to(torch.uint8).flatten(1)[:, None]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert learn(SmallCNN(side=16, num_classes=2, width=8), tokens, mask, labels, steps=20) > 0.95
    assert learn(SmallCNN(side=16, num_classes=2, width=8), tokens, mask, labels[torch.randperm(256)], steps=20) < 0.65


def test_ngrams_see_neighbours_but_not_who_comes_first():
    """ "ab" against "ba" shows in pairs; which of two distant marks comes first shows in no short n-gram."""
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (2000,))
    tokens = torch.randint(10, 20, (2000, 16))
    mask = torch.ones(2000, 1, 16, dtype=torch.bool)
    pair = torch.where(labels[:, None] == 1, torch.tensor([1, 2]), torch.tensor([2, 1]))
    near, far = tokens.clone(), tokens.clone()
    near[:, 7:9] = pair
    far[:, 2], far[:, 13] = pair[:, 0], pair[:, 1]
    scores = [
        learn(NgramClassifier(num_inputs=1, num_classes=2), texts[:, None].byte(), mask, labels)
        for texts in (near, far)
    ]
    assert scores[0] > 0.95
    assert scores[1] < 0.65


def test_ngrams_of_two_inputs_see_what_they_share():
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (2000,))
    words = torch.randint(1, 9, (2000, 2, 1)).expand(-1, -1, 6).clone()
    words[:, 1] = torch.where(labels[:, None] == 1, words[:, 0], words[:, 0] % 8 + 1)
    mask = torch.ones_like(words, dtype=torch.bool)
    assert learn(NgramClassifier(num_inputs=2, num_classes=2), words.byte(), mask, labels, steps=150) > 0.95


@pytest.mark.parametrize("length", [1, 3, 12])
def test_ngrams_never_reach_into_the_padding(length):
    torch.manual_seed(0)
    model = NgramClassifier(num_inputs=1, num_classes=3)
    tokens = torch.randint(1, 256, (2, 1, 12))
    mask = (torch.arange(12) < length).expand(2, 1, 12)
    expected = model(tokens[..., :length], mask[..., :length])
    torch.testing.assert_close(model(tokens.masked_fill(~mask, 77), mask), expected)
    used = model.buckets(tokens[:, 0], mask[:, 0])
    assert (used != model.padding).sum(-1).tolist() == [sum(max(0, length - n) for n in range(4))] * 2


def test_ngrams_spread_over_the_buckets():
    model = NgramClassifier(num_inputs=1, num_classes=2)
    pairs = torch.cartesian_prod(torch.arange(1, 256), torch.arange(1, 256))
    buckets = model.buckets(pairs, torch.ones_like(pairs, dtype=torch.bool))[:, 2]
    # 65,025 balls in 65,536 bins: 1 - 1/e of the bins are hit.
    assert len(buckets.unique()) / 2**16 == pytest.approx(1 - 2.718**-0.992, abs=0.02)
