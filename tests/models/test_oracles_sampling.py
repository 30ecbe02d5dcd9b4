"""YOSO, Reformer and Informer against implementations that are not ours; skipped where those are not installed."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.informer import InformerAttention
from models.attention.reformer import ReformerAttention
from models.attention.yoso import YosoAttention

# Importing transformers takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

B, H, L, D = 2, 3, 32, 8


def transformers_model(name: str) -> types.ModuleType:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return pytest.importorskip(f"transformers.models.{name}.modeling_{name}")


def inputs(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (B, H, L, D)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


def build(cls: type, **options):
    return cls(num_heads=H, head_dim=D, max_len=L, dropout=0.0, **options)


def everything() -> Tensor:
    return torch.ones(B, L, dtype=torch.bool)


def assert_same(out: Tensor, expected: Tensor, leaves: list[Tensor], rows: Tensor | None = None, tol=1e-9) -> None:
    """Compare outputs and gradients, on `rows` (B, H, L) alone if given."""
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    if rows is not None:
        out, expected, seed = (torch.where(rows[..., None], x, 0) for x in (out, expected, seed))
    torch.testing.assert_close(out, expected, rtol=tol, atol=tol)
    for grad, other in zip(
        *(torch.autograd.grad(x, leaves, seed, retain_graph=True) for x in (out, expected)), strict=True
    ):
        torch.testing.assert_close(grad, other, rtol=10 * tol, atol=10 * tol)


@pytest.mark.parametrize("num_bits", [1, 9, 12])
def test_yoso_expectation_and_its_lower_bound_are_those_of_transformers(num_bits):
    cumulate = transformers_model("yoso").YosoCumulation.apply
    q, k, v = inputs()
    units = [F.normalize(x, dim=-1) for x in (q, k)]
    ones = torch.ones(B * H, L, dtype=torch.float64)
    Y = cumulate(ones, ones, *(x.flatten(0, 1) for x in (*units, v)), {"hash_code_len": num_bits}).view(B, H, L, D)
    module = build(YosoAttention, estimator="expectation", backward="lower_bound", num_bits=num_bits)
    assert_same(module.weighted_sum(*units, v, everything()), Y, [q, k, v])
    assert_same(module(q, k, v, everything()), F.normalize(Y, dim=-1), [q, k, v])


def test_informer_with_every_query_is_that_of_transformers():
    oracle = transformers_model("informer").InformerProbSparseAttention(H * D, H, sampling_factor=20).double()
    x = torch.randn(B, L, H * D, dtype=torch.float64, requires_grad=True)
    q, k, v = (
        project(x).unflatten(-1, (H, D)).transpose(1, 2) for project in (oracle.q_proj, oracle.k_proj, oracle.v_proj)
    )
    module = build(InformerAttention, num_samples=L, log_scaled=False)
    out = oracle.out_proj(module(q, k, v, everything()).transpose(1, 2).flatten(2))
    assert_same(out, oracle(x)[0], [x, oracle.q_proj.weight, oracle.k_proj.weight, oracle.v_proj.weight])


def reformer_with(rotations: Tensor, **options) -> ReformerAttention:
    """Let the module draw `rotations` (H, R, D, columns)."""
    module = build(ReformerAttention, num_hashes=rotations.shape[1], **options)
    module.draw = lambda distribution, shape, device: rotations.expand(shape)
    return module


@pytest.mark.parametrize("num_hashes", [1, 2, 4])
def test_reformer_is_that_of_reformer_pytorch(num_hashes):
    """The paper's form: same bucket only, every key once; unpadded, since padding is hashed with the rest there."""
    package = pytest.importorskip("reformer_pytorch.reformer_pytorch", reason="reformer_pytorch is not installed")
    q, v = inputs(2)
    oracle = package.LSHAttention(
        bucket_size=4, n_hashes=num_hashes, attend_across_buckets=False, allow_duplicate_attention=False
    )
    torch.manual_seed(0)
    expected = oracle(q.flatten(0, 1), v.flatten(0, 1))[0].view(B, H, L, D)
    torch.manual_seed(0)
    rotations = torch.randn(1, D, num_hashes, L // 8, dtype=torch.float64).transpose(1, 2).expand(H, -1, -1, -1)
    module = reformer_with(rotations, chunk_size=4, num_buckets=L // 4)
    shared = q * D**-0.5  # logits are q . k / |k| / sqrt(D) there
    assert_same(module(shared, shared, v, everything()), expected, [q, v], tol=1e-7)


@pytest.mark.parametrize(("num_hashes", "chunk_size"), [(2, L), (1, 8), (2, 8), (3, 4)])
def test_reformer_across_buckets_is_that_of_transformers(num_hashes, chunk_size):
    """Rows of the first chunk of a round are left out: there it looks back at the last chunk of another round."""
    reformer = transformers_model("reformer")
    config = reformer.ReformerConfig(
        attention_head_size=D,
        num_attention_heads=H,
        hidden_size=H * D,
        lsh_attn_chunk_length=chunk_size,
        num_hashes=num_hashes,
        num_buckets=2 * L // chunk_size,
        hash_seed=0,
        is_decoder=False,
        lsh_attention_probs_dropout_prob=0.0,
    )
    oracle = reformer.LSHSelfAttention(config).double()
    x = torch.randn(B, L, H * D, dtype=torch.float64, requires_grad=True)
    result = oracle(x)
    q, v = (project(x).unflatten(-1, (H, D)).transpose(1, 2) for project in (oracle.query_key, oracle.value))
    torch.manual_seed(0)
    rotations = torch.randn(H, D, num_hashes, L // chunk_size, dtype=torch.float64).transpose(1, 2)
    module = reformer_with(rotations, chunk_size=chunk_size, same_bucket=False, count_once=False)
    out = module(q, q, v, everything()).transpose(1, 2).flatten(2)
    rows = torch.ones(B, L, H, dtype=torch.bool)
    if chunk_size < L:
        rank = result.buckets.sort(dim=-1, stable=True).indices.argsort(-1)
        rows = (rank >= chunk_size).all(2).transpose(1, 2)  # (B, L, H)
        assert rows.float().mean() > 0.2
    out, expected = (y.unflatten(-1, (H, D)) for y in (out, result.hidden_states))
    # There 1e-6 is added to the mean square of a key before the root.
    assert_same(out, expected, [x, oracle.query_key.weight, oracle.value.weight], rows, tol=1e-4)
