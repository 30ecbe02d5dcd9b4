"""Positions that act in an attention: rotary and ALiBi, the contract of mixers with them, and who cannot take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor

from lra.errors import InputError
from lra.runs.factory import check_model, make_mixer
from models.attention.local import LocalBlockAttention
from models.attention.softmax import SoftmaxAttention
from models.mixers import Mixer
from models.mixers.multi_head import MultiHead
from models.positions import Positions
from models.positions.alibi import Alibi, slopes_of
from models.positions.rotary import Rotary
from tests.helpers.configurations import composed, resolved
from tests.helpers.contract import (
    MAX_LEN,
    B,
    C,
    D,
    H,
    L,
    Uploads,
    attentions,
    configured,
    files,
    heads,
    holey_mask,
    mechanism_in,
    noisy,
    rows,
    run,
)
from tests.helpers.frozen import freeze_draws

BIASED = [name for name in attentions() if mechanism_in(files()[name]).takes_bias]
TURNED = [name for name in attentions() if not mechanism_in(files()[name]).unread]
# One of each way to read queries and keys: the others are slow tests.
SAMPLE = ("softmax", "local_block", "longformer_global", "reformer", "linformer", "performer", "skeinformer", "fsat_r")
CASES = [("alibi", name) for name in BIASED] + [
    pytest.param("rotary", name, marks=() if name in SAMPLE else pytest.mark.slow) for name in TURNED
]


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Modules made here have weights and tables in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(positions: Positions, name: str, **more: bool | str) -> MultiHead:
    torch.manual_seed(0)
    model = {"num_heads": H, "head_dim": D, "positions": positions, **more}
    mixer = make_mixer(configured(name), model)(dim=C, max_len=MAX_LEN, dropout=0.0)
    assert isinstance(mixer, MultiHead)
    return mixer


@pytest.mark.parametrize(("positions", "name"), CASES)
def test_padded_content_changes_no_bit_and_gets_no_gradient(positions, name):
    module, mask, clean = freeze_draws(build(positions, name)), holey_mask(), rows()
    out, grads = run(module, clean, mask)
    noisy_out, noisy_grads = run(module, [noisy(x, mask, 1e4) for x in clean], mask)
    assert torch.equal(out, noisy_out)
    assert torch.equal(grads[0], noisy_grads[0])
    assert out[~mask].count_nonzero() == grads[0][~mask].count_nonzero() == 0


@pytest.mark.parametrize(("positions", "name"), CASES)
def test_neither_batch_mates_nor_appended_padding_matter(positions, name):
    module, mask, (x,) = freeze_draws(build(positions, name)).double(), holey_mask(), rows(dtype=torch.float64)
    out, (grad,) = run(module, [x], mask)
    alone, (alone_grad,) = run(module, [x[:1]], mask[:1])
    torch.testing.assert_close(out[:1], alone, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grad[:1], alone_grad, rtol=1e-9, atol=1e-9)
    longer, (longer_grad,) = run(module, [F.pad(x, (0, 0, 0, 64), value=2.0)], F.pad(mask, (0, 64)))
    torch.testing.assert_close(longer[:, :L], out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(longer_grad[:, :L], grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 33, MAX_LEN])
@pytest.mark.parametrize(("positions", "name"), CASES)
def test_any_length_and_any_mask_is_accepted(positions, name, length):
    module, one, none = build(positions, name), torch.zeros(B, length, dtype=torch.bool), torch.zeros(B, length).bool()
    one[:, length // 2] = True
    for mask in (holey_mask(length), ~none, one, none):
        out, (grad,) = run(module, rows(length), mask)
        assert out.isfinite().all()
        assert out[~mask].count_nonzero() == 0
        assert grad.isfinite().all()


@pytest.mark.parametrize(("positions", "name"), CASES)
def test_bfloat16_autocast_stays_finite_at_large_numbers(positions, name):
    module, mask, (x,) = build(positions, name), holey_mask(), rows()
    mask[1] = False
    with torch.autocast("cpu", torch.bfloat16):
        out = module(50 * x, mask)
    assert out.isfinite().all()
    for grad in torch.autograd.grad(out.float().sum(), [x, *module.parameters()], allow_unused=True):
        assert grad is None or grad.isfinite().all()


@pytest.mark.parametrize(("positions", "name"), CASES)
def test_nothing_is_uploaded_to_the_device(positions, name, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    module = build(positions, name).to("meta")
    x = torch.empty(B, L, C, device="meta", requires_grad=True)
    mask = torch.empty(B, L, dtype=torch.bool, device="meta")
    with Uploads("meta", [x, mask, *module.parameters(), *module.buffers()]) as uploads:
        torch.autograd.grad(module(x, mask).sum(), x)
    assert uploads.found == []


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_positions_are_no_parameters_and_no_state(positions):
    with_positions, without = build(positions, "softmax"), build("none", "softmax")
    state = without.state_dict()
    assert with_positions.state_dict().keys() == state.keys()
    assert all(torch.equal(x, state[name]) for name, x in with_positions.state_dict().items())  # nothing is drawn
    (x,), mask = rows(), holey_mask()
    assert not torch.allclose(with_positions(x, mask), without(x, mask))


def test_rotary_turns_as_transformers_does(in_float64):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k, _ = heads(MAX_LEN, dtype=torch.float64)
    frequencies = 10_000 ** (-torch.arange(0, D, 2) / D)
    angles = (torch.arange(MAX_LEN)[:, None] * frequencies).repeat(1, 2)[None]
    rotary = Rotary(D, MAX_LEN)
    expected = llama.apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    for x, turned in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rotary(x), turned, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(rotary(x[:, :, :5]), turned[:, :, :5], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(rotary(x).norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=1e-12)


def test_a_rotary_pair_is_a_complex_number_turned(in_float64):
    [x, *_] = heads(dtype=torch.float64)
    pairs = torch.complex(*x.chunk(2, -1))
    for place in (0, 1, 7, L - 1):
        for d in range(D // 2):
            turn = torch.polar(torch.ones(()), torch.tensor(place / 10_000 ** (2 * d / D)))
            found = torch.complex(*Rotary(D, MAX_LEN)(x).chunk(2, -1))
            torch.testing.assert_close(found[:, :, place, d], pairs[:, :, place, d] * turn)


@pytest.mark.parametrize("shift", [1, 9, MAX_LEN - L])
def test_scores_of_turned_rows_depend_on_offsets_alone(in_float64, shift):
    rotary = Rotary(D, MAX_LEN)
    q, k, _ = heads(dtype=torch.float64)
    moved_q, moved_k = (rotary(F.pad(x, (0, 0, shift, 0)))[:, :, shift:] for x in (q, k))
    torch.testing.assert_close(moved_q @ moved_k.mT, rotary(q) @ rotary(k).mT, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(rotary(q) @ k.mT, moved_q @ k.mT)


@pytest.mark.parametrize("shift", [1, 64])
@pytest.mark.parametrize(
    ("positions", "name"), [("rotary", "softmax"), *(("alibi", name) for name in BIASED if name != "longformer_global")]
)
def test_padding_in_front_moves_nothing_that_matters(in_float64, positions, name, shift):
    """A global token is the first row. Blocks begin at fixed places, so that a shift has to be one that keeps them."""
    if name == "local_block" and shift % 64:
        pytest.skip("other blocks")
    module, mask, (x,) = freeze_draws(build(positions, name)), holey_mask(), rows(dtype=torch.float64)
    moved = module(F.pad(x, (0, 0, shift, 0), value=3.0), F.pad(mask, (shift, 0)))[:, shift:]
    torch.testing.assert_close(moved, module(x, mask), rtol=1e-9, atol=1e-9)


def test_angles_are_float32_inside_autocast():
    """In bfloat16, places 256 and 257 have one and the same angle."""
    rotary = Rotary(2, 300)
    x = torch.ones(1, 1, 300, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        turned = rotary(x)
    assert turned.dtype == torch.bfloat16
    places = torch.arange(300.0)
    expected = torch.stack([places.cos() - places.sin(), places.sin() + places.cos()], -1).bfloat16()
    torch.testing.assert_close(turned[0, 0], expected, rtol=0.01, atol=0.01)


def test_a_shared_projection_stays_shared_when_turned():
    module = build("rotary", "reformer")
    seen: list[tuple[Tensor, ...]] = []
    module.attention.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    (x,) = rows()
    module(x, holey_mask())
    [(q, k, v, _)] = seen
    assert torch.equal(q, k)
    torch.testing.assert_close(q, module.rotary(module._heads(module.query(x))))
    torch.testing.assert_close(v, module._heads(module.value(x)))  # values are not turned


def test_the_row_of_a_learned_vector_is_not_turned():
    x = torch.randn(1, 1, 5, D)
    assert torch.equal(Rotary(D, 5)(x)[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6, 8, 12, 20])
def test_slopes_are_the_papers(num_heads):
    assert slopes_of(8) == [2**-h for h in range(1, 9)]
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float64)[:, 0, 1]  # at distance 1
    torch.testing.assert_close(torch.tensor(slopes_of(num_heads), dtype=torch.float64), theirs, rtol=1e-6, atol=0)


def twin(name: str, mask: Tensor, qkv: list[Tensor], with_cls: bool) -> Tensor:
    """Softmax over explicit scores, pair by pair."""
    q, k, v = qkv
    length = mask.shape[1]
    out = torch.zeros_like(v)
    for b, h, i in torch.cartesian_prod(*(torch.arange(size) for size in (len(mask), H, length))).tolist():
        seen = [j for j in range(length) if mask[b, j] and sees(name, i, j, length)]
        if mask[b, i]:
            free = [with_cls and 0 in (i, j) for j in seen]
            bias = [0.0 if is_free else -slopes_of(H)[h] * abs(i - j) for j, is_free in zip(seen, free, strict=True)]
            scores = k[b, h, seen] @ q[b, h, i] / D**0.5 + torch.tensor(bias)
            out[b, h, i] = scores.softmax(0) @ v[b, h, seen]
    return out


def sees(name: str, i: int, j: int, length: int) -> bool:
    """Whether query i sees key j, at a budget of 8."""
    if name == "local":
        return abs(i - j) <= 4
    if name.startswith("longformer"):
        return abs(i - j) <= 8 or (name == "longformer_global" and 0 in (i, j))
    if name == "local_block":
        return i // 4 == j // 4
    if name == "strided":
        blocks = -(-length // 4)
        return i % blocks == j % blocks
    return True


@pytest.mark.parametrize("with_cls", [False, True])
@pytest.mark.parametrize("name", [*BIASED, "strided"])
def test_a_bias_is_taken_from_the_scores(in_float64, name, with_cls, monkeypatch):
    monkeypatch.setattr("models.ops.biased_attention.MOST_SCORES", 7 * B * H * L)  # several blocks of rows
    sizes = {"num_heads": H, "head_dim": D, "max_len": MAX_LEN, "dropout": 0.0}
    blocks = partial(LocalBlockAttention, block_size=4, budget=256, strided_groups=name == "strided")
    make = blocks if name in ("local_block", "strided") else configured(name)
    qkv, mask = heads(dtype=torch.float64), holey_mask()
    out = make(**sizes)(*qkv, mask, bias=Alibi(H, with_cls=with_cls))
    expected = twin(name, mask, qkv, with_cls)
    real = mask[:, None, :, None]
    torch.testing.assert_close(torch.where(real, out, 0), expected, rtol=1e-12, atol=1e-12)
    grads, theirs = (torch.autograd.grad((x * real).square().sum(), qkv) for x in (out, expected))
    for grad, other in zip(grads, theirs, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-10, atol=1e-10)


def test_mixers_know_of_the_learned_vector():
    assert build("alibi", "softmax", pooling="cls").alibi.with_cls
    assert not build("alibi", "softmax", pooling="mean").alibi.with_cls


@pytest.mark.parametrize(
    ("attn", "positions", "message"),
    [
        ("performer", "alibi", "needs scores that a bias can be added to, and PerformerAttention has none. "
         "Choose rotary, learned, sinusoidal or none."),
        ("vmean", "alibi", "and VmeanAttention has none. Choose learned, sinusoidal or none."),
        ("aaren", "rotary", "turns queries and keys, and AarenAttention never reads its query. "
         "Choose learned, sinusoidal or none."),
        ("none", "rotary", "NoneAttention never reads its query and key"),
        ("s4d", "rotary", "acts in the heads of an attention, and S4D is a mixer that is none. "
         "Choose learned, sinusoidal or none."),
        ("mega", "alibi", "acts in the heads of an attention, and Mega is a mixer that is none"),
    ],
)  # fmt: skip
def test_who_cannot_take_positions_is_named_before_data_are_prepared(attn, positions, message, tmp_path):
    cfg = composed(f"attn={attn}", f"model.positions={positions}", f"cache_dir={tmp_path}")
    with pytest.raises(InputError, match=f"model.positions={positions} .*{message}"):
        check_model(resolved(cfg), instantiate(cfg.task)(cache_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_odd_width_of_a_head_cannot_be_turned():
    with pytest.raises(ValueError, match="model.head_dim must be even for model.positions=rotary. Got 7."):
        MultiHead(SoftmaxAttention, num_heads=2, head_dim=7, positions="rotary", dim=C, max_len=L, dropout=0.0)


def test_positions_that_there_are_not_are_refused():
    message = "model.positions must be one of learned, sinusoidal, rotary, alibi, none. Got 'relative'."
    with pytest.raises(ValueError, match=message):
        MultiHead(SoftmaxAttention, num_heads=2, head_dim=8, positions="relative", dim=C, max_len=L, dropout=0.0)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_what_the_encoder_adds_leaves_mixers_as_they_are(positions):
    made = make_mixer(configured("s4d"), {"positions": positions})(dim=C, max_len=MAX_LEN, dropout=0.0)
    assert isinstance(made, Mixer)
    module = build(positions, "softmax")
    assert module.rotary is None
    assert module.alibi is None
