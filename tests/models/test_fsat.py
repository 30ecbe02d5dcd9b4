"""The reconstruction of FSAT: its cross, its sets, its gradients, and whether prediction beats chance."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.attention import fsat_r
from models.attention.fsat_r import FSATReconstructedAttention
from models.ops import exact_weights as masses
from models.ops.exact_weights import captured_mass, heaviest_keys, largest_mass
from models.ops.fourier_cross import cross
from models.ops.gathered_attention import attend_sets
from tests.helpers.frozen import freeze_draws
from tests.twins import fsat as twins

B, H, L, D = 5, 2, 21, 4
ESTIMATORS = ["learned", "oracle", "random", "local", "strided"]


def build(budget: int = 64, max_len: int = 32, **options: object) -> FSATReconstructedAttention:
    torch.manual_seed(0)
    module = FSATReconstructedAttention(
        num_heads=H, head_dim=D, max_len=max_len, dropout=0.0, budget=budget, **options
    ).double()
    if module.estimator == "learned":  # far from where it starts, so that contents matter
        torch.nn.init.normal_(module.index.weight, std=0.5)
    return freeze_draws(module)


def inputs(length: int = L) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, length, D, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


def holey_mask(length: int = L) -> Tensor:
    """Rows: holes, two tokens, everything, a single token, nothing."""
    at = torch.arange(length)
    return torch.stack([(at % 4 != 1) & (at < 19), (at == 3) | (at == 9), at >= 0, at == 5, at < 0])


def softmax(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask[:, None, None], -1e300)
    return real(scores.softmax(-1) @ v, mask)


def real(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0)


def assert_same(out: Tensor, expected: Tensor, variables: list[Tensor]) -> None:
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads, expected_grads = (
        torch.autograd.grad(x, variables, seed, allow_unused=True, materialize_grads=True) for x in (out, expected)
    )
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-9)


def sets(module: FSATReconstructedAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict:
    """Return the sets that a module chooses, by (sequence, head, position), as positions."""
    x = fsat_r._by_rank(q, k, v, mask)
    found = module._choose(x)
    names, seen, position = found.identities(), found.seen, x.rank_of.argsort(-1)
    return {
        (b, h, i): position[b, names[b, x.rank_of[b, i], h][seen[b, x.rank_of[b, i], h]]].tolist()
        for b, i in mask.nonzero().tolist()
        for h in range(H)
    }


@pytest.mark.parametrize("kind", ["convolution", "correlation"])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_the_cross_is_the_double_sum(length, kind):
    a, b = torch.randn(2, 2, length, 3, dtype=torch.float64)
    out = cross(a, b, kind)
    for x, y, found in zip(a, b, out, strict=True):
        torch.testing.assert_close(found, twins.cross(x, y, kind), rtol=1e-12, atol=1e-12)
    longer = cross(F.pad(a, (0, 0, 0, 9)), F.pad(b, (0, 0, 0, 9)), kind)
    torch.testing.assert_close(longer[:, :length], out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(longer[:, length:], torch.zeros_like(longer[:, length:]), rtol=0, atol=1e-12)


def test_the_cross_in_float32_is_close():
    a, b = torch.randn(2, 1, 4096, 2, dtype=torch.float64)
    for kind in ("convolution", "correlation"):
        torch.testing.assert_close(
            cross(a.float(), b.float(), kind).double(), cross(a, b, kind), rtol=1e-5, atol=1e-6 * 4096**0.5
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["convolution", "correlation", None])
@pytest.mark.parametrize("budget", [16, 256])
def test_equals_the_twin(budget, kind, training):
    module, qkv, mask = build(budget, cross=kind).train(training), inputs(), holey_mask()
    drawn, draw = [], module.draw
    module.draw = lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1]
    out = real(module(*qkv, mask), mask)
    expected, names = twins.fsat(module, *qkv, mask, drawn[0].double() if training else None)
    assert len(drawn) == training
    assert_same(out, expected, [*qkv, *module.parameters()])
    if not training:
        assert sets(module, *qkv, mask) == names


@pytest.mark.parametrize("estimator", ["random", "local", "strided", "oracle"])
def test_references_attend_to_their_sets(estimator):
    module, qkv, mask = build(estimator=estimator), inputs(), holey_mask()
    names = sets(freeze_draws(module), *qkv, mask)
    freeze_draws(module)
    q, k, v = qkv
    expected = torch.zeros_like(q)
    for (b, h, i), keys in names.items():
        expected[b, h, i] = twins.attend(q[b, h, i], [(j, k[b, h, j], v[b, h, j]) for j in keys])
    assert_same(real(module(*qkv, mask), mask), expected, qkv)


def test_references_choose_as_they_say():
    qkv, mask = [x.detach() for x in inputs()], holey_mask()
    q, k, _ = qkv
    size = 2 * build().window + 1 + build().num_slots
    local, strided, oracle = (sets(build(estimator=name), *qkv, mask) for name in ("local", "strided", "oracle"))
    for b, h, i in local:
        real_ones = mask[b].nonzero().flatten().tolist()
        rank, m = real_ones.index(i), mask[b].sum().item()
        assert local[b, h, i] == [j for r, j in enumerate(real_ones) if 2 * abs(r - rank) < size]
        slots = [real_ones[(rank + s * m // (build().num_slots + 1)) % m] for s in range(1, build().num_slots + 1)]
        assert set(slots) <= set(strided[b, h, i])
        scores = {j: (q[b, h, i] @ k[b, h, j]).item() for j in real_ones}
        assert sorted(oracle[b, h, i]) == sorted(sorted(real_ones, key=scores.get)[-size:])


@pytest.mark.parametrize("estimator", ["learned", "random", "strided", "local"])
def test_a_window_over_everything_is_softmax_attention(estimator):
    qkv, mask = inputs(), holey_mask()
    module = build(256, window=L, estimator=estimator)
    assert_same(real(module(*qkv, mask), mask), softmax(*qkv, mask), qkv)


def test_slots_on_every_key_are_softmax_attention():
    qkv, mask = inputs(), holey_mask()
    assert_same(real(build(256, window=L, estimator="oracle")(*qkv, mask), mask), softmax(*qkv, mask), qkv)
    tables = [x.transpose(1, 2) for x in qkv]
    lower = torch.arange(L).expand(B, L, H, L)
    out = attend_sets(*tables, 0, lower, torch.zeros(B, L, H, L).double(), mask[:, None, None].expand(B, L, H, L))
    assert_same(real(out.transpose(1, 2), mask), softmax(*qkv, mask), qkv)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("budget", [1, 16, 64, 256])
def test_sets_are_of_real_keys_each_once_and_never_larger_than_the_budget(budget, estimator, training):
    module, qkv, mask = build(budget, estimator=estimator).train(training), inputs(), holey_mask()
    plain = build(budget)
    for (b, _, i), keys in sets(module, *qkv, mask).items():
        assert all(mask[b, j] for j in keys)
        assert len(set(keys)) == len(keys) <= 2 * plain.window + 1 + plain.num_slots
        assert estimator == "oracle" or i in keys
        assert len(keys) > 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_padded_content_and_appended_padding_do_nothing(estimator):
    module, mask = build(estimator=estimator), holey_mask()
    qkv = inputs()
    out = real(module(*qkv, mask), mask)
    noisy = [torch.where(mask[:, None, :, None], x, 1e6 * torch.randn_like(x)) for x in qkv]
    assert torch.equal(real(module(*noisy, mask), mask), out)
    longer = module(*(F.pad(x, (0, 0, 0, 11), value=3.0) for x in qkv), F.pad(mask, (0, 11)))
    torch.testing.assert_close(real(longer[:, :, :L], mask), out, rtol=1e-10, atol=1e-10)
    alone = module(*(x[:1, :, mask[0]] for x in qkv), mask[:1, mask[0]])
    torch.testing.assert_close(alone, out[:1, :, mask[0]], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_captured_mass_is_the_sum_of_the_weights_of_the_set(estimator, monkeypatch):
    monkeypatch.setattr(masses, "NUMBERS", 4 * B * H * L)
    module, qkv, mask = build(estimator=estimator).eval(), [x.detach() for x in inputs()], holey_mask()
    names = sets(module, *qkv, mask)
    expected = twins.mass(*qkv[:2], mask, names)
    freeze_draws(module)
    figures = build(estimator=estimator).eval().diagnostics(*qkv, mask)
    assert figures["captured_mass"].item() == pytest.approx(sum(expected.values()) / len(expected), rel=1e-10)
    assert figures["num_keys"].item() == pytest.approx(sum(map(len, names.values())) / len(names), rel=1e-10)
    assert all(0 < x <= 1 + 1e-12 for x in expected.values())


def test_the_oracle_captures_most_of_all_sets_of_a_size():
    q, k, v = (x.detach() for x in inputs())
    mask = holey_mask()
    for estimator in ESTIMATORS:
        x = fsat_r._by_rank(q, k, v, mask)
        found = build(estimator=estimator).eval()._choose(x)
        Q, K, ranks = x.heads()
        seen = found.seen.transpose(1, 2)
        held = captured_mass(Q, K, ranks, found.identities().transpose(1, 2), seen)
        most = largest_mass(Q, K, ranks, seen.sum(-1))
        assert (held <= most + 1e-12)[ranks[:, None].expand_as(held)].all()
        if estimator == "oracle":
            torch.testing.assert_close(held, most, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 4, L])
def test_the_heaviest_keys_and_their_mass(size, monkeypatch):
    monkeypatch.setattr(masses, "NUMBERS", 5 * B * H * L)
    (q, k, _), mask = inputs(), holey_mask()
    weights = softmax(q, k, torch.eye(L).double().expand(B, H, L, L), mask).detach() * mask[:, None, None]
    expected = weights.topk(size).values.sum(-1)
    rows = mask[:, None].expand(B, H, L)
    sizes = torch.full((B, H, L), size)
    torch.testing.assert_close(largest_mass(q, k, mask, sizes)[rows], expected[rows], rtol=1e-12, atol=1e-12)
    assert (largest_mass(q, k, mask, 0 * sizes) == 0).all()
    index = heaviest_keys(q, k, mask, size)
    everything = captured_mass(q, k, mask, index, torch.ones_like(index, dtype=torch.bool))
    torch.testing.assert_close(everything[rows], expected[rows], rtol=1e-12, atol=1e-12)
    chosen = mask[:, None, None].expand(B, H, L, L).gather(-1, index).sum(-1)
    assert (chosen == mask.sum(-1).clamp(max=size)[:, None, None]).all()


def test_gradients_reach_the_predictor_through_the_interpolation_alone(monkeypatch):
    qkv, mask, module = inputs(), holey_mask(), build()
    parameters = dict(module.named_parameters())
    grads = torch.autograd.grad(module(*qkv, mask).square().sum(), list(parameters.values()))
    for name, grad in zip(parameters, grads, strict=True):
        assert grad.count_nonzero() > 0, name

    def cut(q, k, v, window, lower, share, seen):
        return attend_sets(q, k, v, window, lower, share.detach(), seen)

    monkeypatch.setattr(fsat_r, "attend_sets", cut)
    grads = torch.autograd.grad(
        module(*qkv, mask).square().sum(), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    assert all(grad.count_nonzero() == 0 for grad in grads)


@pytest.mark.parametrize("kind", ["convolution", "correlation"])
def test_gradients_match_finite_differences(kind):
    module, qkv, mask = build(cross=kind).eval(), inputs(), holey_mask()
    x = fsat_r._by_rank(*qkv, mask)
    halves = 2 * module._choose(x).position
    ends = halves.round() / 2
    outside = (ends == 0) | (ends == x.m[:, None, None, None] - 1)  # cut off, or near an end, where nothing jumps
    assert ((halves - halves.round()).abs() > 1e-4)[~outside].all()
    parameters = list(module.parameters())
    assert torch.autograd.gradcheck(lambda *_: real(module(*qkv, mask), mask), [*qkv, *parameters], fast_mode=True)


@pytest.mark.parametrize(("window", "slots"), [(0, 1), (0, 6), (3, 0), (3, 6), (2 * L + 1, 0), (2 * L + 1, 1)])
def test_gradients_of_the_kernel_match_finite_differences(window, slots):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, L, H, D, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    lower = torch.randint(L - 1, (2, L, H, slots), generator=generator)
    share = torch.rand(2, L, H, slots, generator=generator, dtype=torch.float64).requires_grad_()
    inside = (torch.arange(L)[:, None] + torch.arange(window) - window // 2)[:, None]
    inside = ((inside >= 0) & (inside < L)).expand(2, L, H, window)
    seen = torch.cat([inside, torch.rand(2, L, H, slots, generator=generator) < 0.8], -1)
    assert torch.autograd.gradcheck(
        lambda *x: attend_sets(*x[:3], window, lower, x[3], seen), (q, k, v, share), fast_mode=True
    )


def test_evaluation_is_training_without_noise():
    module, qkv, mask = build(), inputs(), holey_mask()
    out = module.eval()(*qkv, mask)
    assert torch.equal(out, module(*qkv, mask))
    module.train().draw = lambda distribution, shape, device: torch.zeros(shape)
    assert torch.equal(out, module(*qkv, mask))
    assert not torch.equal(out, freeze_draws(module)(*qkv, mask))


def test_clipping_shortens_the_gradient_of_a_query_s_positions():
    qkv, mask, kept = inputs(), holey_mask(), []
    for norm in (None, 1e-3):
        module = build(clip_norm=norm)
        positions = module._positions

        def watched(*arguments, positions=positions):
            out = positions(*arguments)
            out.register_hook(kept.append)  # after the module's own
            return out

        module._positions = watched
        torch.autograd.grad(module(*qkv, mask).square().sum(), list(module.parameters()))
    free, clipped = kept
    assert free.norm(dim=-1).max() > 1e-2
    torch.testing.assert_close(clipped.norm(dim=-1), free.norm(dim=-1).clamp(max=1e-3))
    torch.testing.assert_close(F.normalize(clipped, dim=-1), F.normalize(free, dim=-1))


def test_slots_begin_from_just_outside_the_window_to_half_of_the_length():
    module = FSATReconstructedAttention(num_heads=H, head_dim=D, max_len=2048, dropout=0.0, budget=256)
    assert (module.window, module.num_slots) == (8, 44)
    offsets = (module.start.tanh() * 2047).round().tolist()
    assert offsets[:6] == [9, -9, 11, -11, 14, -14]
    assert offsets[-2:] == [1024, -1024]
    q, k, v = torch.randn(3, 1, H, 2048, D)
    mask = torch.ones(1, 2048, dtype=torch.bool)
    position = module.eval()._choose(fsat_r._by_rank(q, k, v, mask)).position
    aim = (torch.arange(2048)[:, None] + module.start.tanh() * 2047).clamp(0, 2047)[:, None]
    assert (position - aim).square().mean().sqrt() < 2


@pytest.mark.parametrize(("budget", "max_len", "sizes"), [(256, 4096, (8, 48)), (64, 256, (2, 8)), (8, 61, (1, 2))])
def test_sizes_change_with_the_budget(budget, max_len, sizes):
    module = build(budget, max_len)
    assert (module.window, module.num_slots) == sizes
    local = build(budget, max_len, estimator="local")
    assert (2 * local.window, local.num_slots) == (2 * sizes[0] + sizes[1], 0)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"estimator": "lerned"}, "estimator must be one of"), ({"cross": "fourier"}, "cross must be one of")],
)
def test_a_wrong_name_lists_the_right_ones(option, message):
    with pytest.raises(ValueError, match=message):
        build(**option)


class _Counting(TorchDispatchMode):
    """Counts the numbers that every operation returns, and keeps the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor) and not x._is_view()]
        self.total, self.largest = self.total + sum(sizes), max([self.largest, *sizes])
        return out


def test_the_work_grows_as_n_log_n_and_no_square_is_made():
    counts = {}
    for n in (1024, 2048, 4096):
        module = FSATReconstructedAttention(num_heads=1, head_dim=16, max_len=n, dropout=0.0, budget=256)
        qkv = [torch.randn(1, 1, n, 16, requires_grad=True) for _ in range(3)]
        with _Counting() as counts[n]:
            out = module(*qkv, torch.ones(1, n, dtype=torch.bool))
            torch.autograd.grad(out.sum(), [*qkv, *module.parameters()])
        assert counts[n].largest < n * n / 4
    assert 2 < counts[2048].total / counts[1024].total < 2.3
    assert 2 < counts[4096].total / counts[2048].total < 2.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convolution", "correlation", None])
def test_what_is_learned_captures_more_than_chance(kind):
    """A query says how far away its token is; a predictor that reads it finds the token, chance does not."""
    n, width, distances = 64, 32, torch.tensor([-24, -16, 16, 24])
    torch.manual_seed(0)
    options = {"num_heads": 1, "head_dim": width, "max_len": n, "dropout": 0.0, "budget": 64}
    module = FSATReconstructedAttention(**options, cross=kind)
    random = FSATReconstructedAttention(**options, estimator="random")
    angles = math.pi / n * torch.arange(n)[:, None] * torch.arange(1, 15)
    places = torch.cat([angles.cos(), angles.sin()], -1)  # (n, 28): near places have near codes
    mask = torch.ones(16, n, dtype=torch.bool)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        code = torch.randint(4, (16, n))
        at = torch.arange(n) + distances[code]
        code = torch.where((at < 0) | (at >= n), 3 - code, code)  # the same distance to the other side
        wanted = torch.arange(n) + distances[code]
        q = torch.cat([4 * places[wanted], 4 * F.one_hot(code, 4)], -1)[:, None]
        return q, F.pad(places, (0, 4)).expand(16, 1, n, width), wanted

    q, k, _ = batch()
    before, chance = (x.eval().diagnostics(q, k, k, mask) for x in (module, random))
    optimizer = torch.optim.Adam(module.train().parameters(), lr=3e-3)
    for _ in range(400):
        q, k, wanted = batch()
        loss = (module(q, k, k, mask) - k[0, 0, wanted][:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    figures = module.eval().diagnostics(q, k, k, mask)
    assert figures["num_keys"] <= chance["num_keys"]
    assert figures["captured_mass"] > 3 * chance["captured_mass"]
    assert figures["captured_mass"] > before["captured_mass"] + 0.3
