"""Projections, landmarks and feature maps against implementations of other authors, on the same weights and draws."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from models.attention.efficient import EfficientAttention
from models.attention.linformer import LinformerAttention
from models.attention.nystromformer import NystromformerAttention
from models.attention.performer import PerformerAttention
from models.ops.feature_sums import attend_features

B, H, L, D = 3, 2, 24, 8
SIZES = {"num_heads": H, "head_dim": D, "max_len": L, "dropout": 0.0}


def inputs(batch: int = B, heads: int = H) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, heads, L, D)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


def all_real(batch: int = B) -> Tensor:
    return torch.ones(batch, L, dtype=torch.bool)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def assert_same(out: Tensor, expected: Tensor, wrt: list[Tensor], tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads, expected_grads = (torch.autograd.grad(x, wrt, seed, retain_graph=True) for x in (out, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=tolerance, atol=tolerance)


class Joined(nn.Module):
    """Stands in for a package's projection of its input: returns what it is given."""

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.tensors, -1)


@pytest.mark.slow  # importing the package takes seconds
@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("num_landmarks", [4, 12])
def test_nystromformer_equals_transformers(num_landmarks, convolution):
    """With the scale of each matrix that is here, which is one maximum for all of them there: one matrix at a time."""
    pytest.importorskip("transformers", reason="transformers 5.23 is an oracle of Nystromformer")
    from transformers import NystromformerConfig
    from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

    (q, k, v), W = inputs(1, 1), 5
    config = NystromformerConfig(
        hidden_size=D,
        num_attention_heads=1,
        num_landmarks=num_landmarks,
        segment_means_seq_len=L,
        conv_kernel_size=W,
        attention_probs_dropout_prob=0.0,
    )
    oracle = NystromformerSelfAttention(config).double()
    oracle.query, oracle.key, oracle.value = (Joined(merge(x)) for x in (q, k, v))
    sizes = {**SIZES, "num_heads": 1, "num_landmarks": num_landmarks}
    wrt, module = [q, k, v], NystromformerAttention(**sizes)
    if convolution:
        module = NystromformerAttention(**sizes, conv_size=W).double()
        with torch.no_grad():
            oracle.conv.weight.copy_(module.filters[:, None, :, None])
    else:
        oracle.conv_kernel_size = None
    # It makes an identity in the default type.
    torch.set_default_dtype(torch.float64)
    try:
        expected = oracle(merge(q))[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(merge(module(q, k, v, all_real(1))), expected, wrt)


def test_nystromformer_equals_nystrom_attention_with_padding():
    """It cuts the padded length into segments, and has a row for an empty one, which the converged inverse drops."""
    package = pytest.importorskip("nystrom_attention", reason="nystrom-attention 0.0.14 is an oracle of Nystromformer")
    (q, k, v), mask = inputs(), torch.arange(L) < torch.tensor([[18], [24], [6]])  # whole segments of 6
    oracle = package.NystromAttention(
        H * D, dim_head=D, heads=H, num_landmarks=4, pinv_iterations=60, residual=False, eps=1e-12
    ).double()
    oracle.to_qkv, oracle.to_out = Joined(merge(q), merge(k), merge(v)), nn.Identity()
    expected = oracle(merge(q), mask=mask)
    for b, num_landmarks in enumerate([3, 4, 1]):
        module = NystromformerAttention(**SIZES, num_landmarks=num_landmarks, pinv_iterations=60)
        out = merge(module(q, k, v, mask))
        assert_same(out[b, mask[b]], expected[b, mask[b]], [q, k, v], 1e-8)


def test_linformer_equals_the_linformer_package():
    package = pytest.importorskip("linformer", reason="linformer 0.2.3 is an oracle of Linformer")
    q, k, v = inputs()
    oracle = package.LinformerSelfAttention(H * D, L, k=6, heads=H).double()
    oracle.to_q, oracle.to_k, oracle.to_v = (Joined(merge(x)) for x in (q, k, v))
    oracle.to_out = nn.Identity()
    module = LinformerAttention(**SIZES, proj_len=6).double()
    torch.nn.init.normal_(module.E)
    with torch.no_grad():
        module.E[1] = module.E[0]  # the package has one projection for all heads
        oracle.proj_k.copy_(module.E[0].T)
        oracle.proj_v.copy_(module.E[0].T)
    assert_same(merge(module(q, k, v, all_real())), oracle(merge(q)), [q, k, v])


def performer(kernel: str) -> PerformerAttention:
    return PerformerAttention(**SIZES, num_features=20, kernel=kernel).double().eval()


@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_performer_equals_performer_pytorch(kernel, monkeypatch):
    package = pytest.importorskip("performer_pytorch.performer_pytorch", reason="performer-pytorch 1.1.4 is an oracle")
    # Without the constant that it adds to its exponential features.
    monkeypatch.setattr(package, "softmax_kernel", partial(package.softmax_kernel, eps=0))
    (q, k, v), module = inputs(), performer(kernel)
    oracle = package.FastAttention(D, 20, generalized_attention=kernel == "relu").double()
    oracle.projection_matrix.copy_(module.projection)
    assert_same(module(q, k, v, all_real()), oracle(q, k, v), [q, k, v])


def test_performer_is_near_performer_pytorch_as_released():
    """Its added 1e-4 moves a row a little towards the mean of the values."""
    package = pytest.importorskip("performer_pytorch", reason="performer-pytorch 1.1.4 is an oracle of Performer")
    q, k, v = (x / 2 for x in inputs())
    module, oracle = performer("softmax"), package.FastAttention(D, 20).double()
    oracle.projection_matrix.copy_(module.projection)
    torch.testing.assert_close(module(q, k, v, all_real()), oracle(q, k, v), rtol=0.02, atol=0.02)


def test_feature_maps_equal_linear_attention_transformer():
    """softmax over the width of queries and over the length of keys: its formula, through the feature maps here."""
    package = pytest.importorskip(
        "linear_attention_transformer.linear_attention_transformer", reason="linear-attention-transformer is an oracle"
    )

    class Exponential:
        """exp: once keys are normalised for each feature they are a softmax over the length."""

        def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            k = k.masked_fill(~mask, -torch.inf)
            return (k - k.logsumexp(2, keepdim=True)).exp(), k.new_zeros(1, 1, 1, D)

        def queries(self, q: Tensor, shift: Tensor) -> Tensor:
            return q.softmax(-1)

    q, k, v = inputs()
    mask = torch.arange(L) < torch.tensor([[L], [17], [3]])
    out = attend_features(Exponential(), D, q, k, v, mask)
    expected = package.linear_attn(q, k.clone(), v.clone(), kv_mask=mask) * D**0.5  # it scales queries a second time
    assert_same(out, expected, [q, k, v])


def test_efficient_attention_equals_linear_attention_transformer():
    package = pytest.importorskip(
        "linear_attention_transformer.linear_attention_transformer", reason="linear-attention-transformer is an oracle"
    )
    q, k, v = inputs()
    mask = torch.arange(L) < torch.tensor([[L], [17], [3]])
    out = EfficientAttention(**SIZES)(q, k, v, mask)
    expected = package.linear_attn(q, k.clone(), v.clone(), kv_mask=mask) * D**0.5  # it scales queries a second time
    assert_same(out, expected, [q, k, v])
