"""The codebook of LongVQ, reconstructed, against an independent implementation of vector quantisation."""

from __future__ import annotations

import warnings

import pytest
import torch

from models.mixers.long_vq_r import LongVQReconstructed, assign

B, L, Z, S = 2, 40, 6, 7


def test_codes_and_their_update_are_those_of_vector_quantize_pytorch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    sizes = {"dim": 8, "max_len": 64, "dropout": 0.0, "shared_dim": Z, "num_codes": S}
    ours = LongVQReconstructed(**sizes, decay=0.8, least_keys=0.0)
    theirs = package.VectorQuantize(Z, codebook_size=S, decay=0.8, eps=1e-5, commitment_weight=0.0)
    with torch.no_grad():
        theirs._codebook.embed.copy_(ours.codebook)
        theirs._codebook.embed_avg.copy_(ours.codebook)
    mask = torch.arange(L) < torch.tensor([L, 25])[:, None]
    for _ in range(3):
        k = torch.randn(B, L, Z)
        k = k / k.square().mean(-1, keepdim=True).sqrt()
        expected = ours.codebook.clone()[assign(k, ours.codebook)[0]]
        quantised, code, _ = theirs.train()(k, mask=mask)
        assert torch.equal(code[mask], assign(k, ours.codebook)[0][mask])
        torch.testing.assert_close(quantised[mask], expected[mask])
        ours.attend(torch.zeros_like(k), k, torch.randn(B, L, 4), mask)
        with torch.no_grad():
            ours.scale.mul_(2)  # a step of the optimiser is over
        ours._follow_step()
        torch.testing.assert_close(ours.codebook, theirs.codebook, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.counts, theirs._codebook.cluster_size[0], rtol=1e-5, atol=1e-5)
