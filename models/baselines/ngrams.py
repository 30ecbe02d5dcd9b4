"""A bag of hashed n-grams: a baseline that shows how much of a byte task needs no order beyond a few bytes.

Joulin, Grave, Bojanowski and Mikolov 2017, "Bag of Tricks for Efficient Text Classification" (fastText), arXiv
1607.01759, over tokens instead of words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# 2^64 / golden ratio, made odd (Knuth, The Art of Computer Programming 3, section 6.4), as a signed number.
MULTIPLIER = -7046029254386353131


class NgramClassifier(nn.Module):
    """Mean embedding of all n-grams of 1 to `longest` tokens, hashed to buckets, and a linear classifier.

    Two inputs x and y enter the classifier as [x, y, x * y, x - y], so that it sees what they share.

    Args:
        num_inputs: 1 or 2.
        num_classes: classes of the task.
        longest: tokens of the longest n-gram.
        dim: width of an n-gram's embedding.
        bucket_bits: logarithm to base 2 of the number of embeddings; n-grams that collide share one.
    """

    version = 1

    def __init__(
        self, *, num_inputs: int, num_classes: int, longest: int = 4, dim: int = 16, bucket_bits: int = 16
    ) -> None:
        super().__init__()
        self.longest = longest
        self.bucket_bits = bucket_bits
        self.padding = 2**bucket_bits
        self.embedding = nn.EmbeddingBag(self.padding + 1, dim, mode="sum", padding_idx=self.padding)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.head = nn.Linear(dim if num_inputs == 1 else 4 * dim, num_classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Classify tokens (B, I, L) where `mask` (B, I, L) is True."""
        buckets = self.buckets(tokens.flatten(0, 1), mask.flatten(0, 1))
        count = buckets.ne(self.padding).sum(-1, keepdim=True).clamp_min(1)
        # The root keeps the size of the sum of independent embeddings the same for long and short texts.
        bags = (self.embedding(buckets) / count.sqrt()).unflatten(0, tokens.shape[:2])
        if bags.shape[1] == 1:
            return self.head(bags[:, 0])
        x, y = bags.unbind(1)
        return self.head(torch.cat([x, y, x * y, x - y], -1))

    def buckets(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Hash every n-gram of (B, L) tokens; those that reach into padding go to the padding's bucket."""
        parts = []
        state, real = torch.zeros_like(tokens, dtype=torch.int64), torch.ones_like(mask)
        for n in range(min(self.longest, tokens.shape[-1])):
            if n:
                state, real = state[:, :-1], real[:, :-1]
            # Folding the upper half down keeps n-grams from falling on a lattice of few buckets.
            state = ((state ^ (state >> 32)) + tokens[:, n:].long() + 1) * MULTIPLIER
            real = real & mask[:, n:]
            # The upper bits of a product are the well mixed ones.
            bucket = (state >> (64 - self.bucket_bits)) & (self.padding - 1)
            parts.append(bucket.masked_fill(~real, self.padding))
        return torch.cat(parts, -1)
