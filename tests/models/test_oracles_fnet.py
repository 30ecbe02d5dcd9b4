"""FNet against the independent implementation of its card."""

from __future__ import annotations

import pytest
import torch

from models.mixers.fnet import FNet
from tests.helpers.contract import MAX_LEN, B

C = 12


def test_the_transform_is_that_of_transformers_on_sequences_of_full_length():
    fnet = pytest.importorskip(
        "transformers.models.fnet.modeling_fnet", reason="transformers 5.23 is an oracle of FNet"
    )
    theirs = fnet.FNetBasicFourierTransform(fnet.FNetConfig(hidden_size=C, use_tpu_fourier_optimizations=False))
    x, mask = torch.randn(B, MAX_LEN, C), torch.ones(B, MAX_LEN, dtype=torch.bool)
    assert torch.equal(FNet(dim=C, max_len=MAX_LEN, dropout=0.0)(x, mask), theirs(x)[0])
