"""State space models: every kernel and scan against the recurrence written as a loop, and against dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.mixers.lru import LRU
from models.mixers.s4 import S4
from models.mixers.s4d import S4D, S4DFourier
from models.mixers.s5 import S5
from models.mixers.state_space import Gate, StateSpaceMixer
from models.ops.state_space import hippo_legs
from tests.helpers.contract import holey_mask

B, L, C, N = 2, 21, 5, 8
SIZES = {"dim": C, "max_len": 32, "dropout": 0.0}


def close(result: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


def inputs(length: int = L, width: int = C) -> Tensor:
    return torch.randn(B, length, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def dense_legs(num_states: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS, entry by entry (arXiv 2111.00396, Equation 2)."""
    A, b = torch.zeros(num_states, num_states, dtype=torch.float64), torch.zeros(num_states, dtype=torch.float64)
    for n in range(num_states):
        b[n] = math.sqrt(2 * n + 1)
        for k in range(num_states):
            A[n, k] = -math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1) if n == k else 0
    return A, b


def complex_of(parts: Tensor) -> Tensor:
    return parts.detach()[..., 0] + 1j * parts.detach()[..., 1]


# What they share


@pytest.mark.parametrize("num_states", [2, 8, 64])
def test_hippo_is_a_normal_matrix_of_known_eigenvalues_less_one_of_rank_one(num_states):
    A, b = dense_legs(num_states)
    p = (torch.arange(num_states, dtype=torch.float64) + 0.5).sqrt()
    frequencies, weights = hippo_legs(num_states)
    eigenvalues = torch.linalg.eigvals(A + torch.outer(p, p))
    close(eigenvalues.real, torch.full_like(eigenvalues.real, -0.5), 1e-9)
    close(eigenvalues.imag.sort().values[num_states // 2 :], frequencies, 1e-9)
    # b* exp(t S) b, whatever the phases of the eigenvectors.
    for t in (0.1, 0.7):
        expected = b @ torch.matrix_exp(t * (A + torch.outer(p, p))) @ b
        close(4 * (weights**2 * math.exp(-t / 2) * (t * frequencies).cos()).sum(), expected, 1e-9)


def test_gates_are_those_of_their_papers():
    y = inputs()
    full, half, raw = (Gate(C, 0.0, gating).double() for gating in ("full", "half", "raw"))
    z = F.gelu(y)
    close(full(y), F.linear(z, full.linear.weight[:C], full.linear.bias[:C]) * full.linear(z)[..., C:].sigmoid())
    close(half(y), z * half.linear(z).sigmoid())
    close(raw(y), y * raw.linear(z).sigmoid())


def test_a_layer_has_a_skip_connection_and_a_gate_and_zeros_on_padding():
    mixer, x, mask = S4D(**SIZES).double(), inputs(37), holey_mask()[:B]
    u = x * mask[..., None]
    expected = mixer.gate(mixer.respond(u) + mixer.skip * u) * mask[..., None]
    close(mixer(x, mask), expected)


# S4D


def pairs_of(mixer: S4D | S4DFourier) -> tuple[Tensor, Tensor]:
    """The discretised poles and inputs (C, N / 2) as the papers have them."""
    if isinstance(mixer, S4DFourier):
        poles = torch.polar(torch.exp(-mixer.log_damping.detach().exp() / 2), mixer.angle.detach())
        return poles, complex_of(mixer.input)
    a = -mixer.log_decay.detach().exp() + 1j * mixer.frequency.detach()
    a_bar = torch.exp(mixer.log_step.detach().exp() * a)
    return a_bar, (a_bar - 1) / a * complex_of(mixer.input)


def recurrence(u: Tensor, a_bar: Tensor, b_bar: Tensor, c: Tensor) -> Tensor:
    """y_t = 2 Re(c h_t), h_t = a_bar h_{t-1} + b_bar u_t, one channel and one token after another."""
    y = torch.zeros_like(u)
    for channel in range(u.shape[2]):
        h = torch.zeros(u.shape[0], a_bar.shape[1], dtype=torch.complex128)
        for t in range(u.shape[1]):
            h = a_bar[channel] * h + b_bar[channel] * u[:, t, channel, None]
            y[:, t, channel] = 2 * (c[channel] * h).sum(-1).real
    return y


S4DS = [
    lambda **options: S4D(initialization="lin", num_states=N, **options, **SIZES),
    lambda **options: S4D(initialization="inv", num_states=N, tied=True, **options, **SIZES),
    lambda **options: S4D(initialization="legs", num_states=N, dt_min=0.1, dt_max=0.5, **options, **SIZES),
    lambda **options: S4DFourier(num_states=N, **options, **SIZES),
]


@pytest.mark.parametrize("make", S4DS)
def test_the_convolution_is_the_recurrence_in_both_directions(make):
    mixer, u = make().double(), inputs()
    a_bar, b_bar = (x.expand(C, -1) for x in pairs_of(mixer))
    forward, backward = complex_of(mixer.output)
    # The state of the backward direction is read before the token enters it.
    reverse = recurrence(u.flip(1), a_bar, b_bar, backward).flip(1)
    expected = recurrence(u, a_bar, b_bar, forward) + F.pad(reverse[:, 1:], (0, 0, 0, 1))
    close(mixer.respond(u), expected)
    one_way = make(bidirectional=False).double()
    one_way.load_state_dict({**mixer.state_dict(), "output": mixer.output[:1]})
    close(one_way.respond(u), recurrence(u, a_bar, b_bar, forward))


@pytest.mark.parametrize("make", S4DS)
def test_the_kernel_is_made_of_powers_of_the_matrix(make):
    mixer = make().double()
    a_bar, b_bar = (x.expand(C, -1) for x in pairs_of(mixer))
    kernel = mixer.kernels(L, torch.float64)[0]
    for channel in range(C):
        # The whole system, both of every pair.
        A = torch.diag(torch.cat([a_bar[channel], a_bar[channel].conj()]))
        b, c = (torch.cat([x[channel], x[channel].conj()]) for x in (b_bar, complex_of(mixer.output)[0]))
        for lag in (0, 1, 7, L - 1):
            close(kernel[channel, lag], (c @ torch.linalg.matrix_power(A, lag) @ b).real)


def test_s4d_starts_as_its_paper_says():
    lin, inv, legs = (S4D(initialization=kind, num_states=N, **SIZES) for kind in ("lin", "inv", "legs"))
    close(lin.frequency[2], math.pi * torch.arange(4.0), 1e-6)
    close(inv.frequency[2], torch.tensor([8 / math.pi * (8 / (2 * n + 1) - 1) for n in range(4)]), 1e-6)
    close(legs.frequency[2], hippo_legs(N)[0].float(), 1e-6)
    for mixer in (lin, inv, legs):
        close(-mixer.log_decay.exp(), torch.full((C, 4), -0.5), 1e-6)
        steps = mixer.log_step.exp()
        assert ((steps >= 1e-3 * (1 - 1e-6)) & (steps <= 0.1 * (1 + 1e-6))).all()


def test_dfout_spreads_its_poles_evenly_over_the_half_circle():
    angles = S4DFourier(num_states=N, **SIZES).angle.detach().flatten().sort().values
    close(angles, math.pi * torch.arange(C * N // 2) / (C * N // 2), 1e-6)


def test_parameters_of_the_state_have_their_own_rate_and_no_decay():
    assert S4D(**SIZES).learning_rates == dict.fromkeys(("log_decay", "frequency", "input", "log_step"), 1e-3)
    assert S4D(dt_learning_rate=None, **SIZES).learning_rates == dict.fromkeys(
        ("log_decay", "frequency", "input"), 1e-3
    )
    assert S4DFourier(ssm_learning_rate=None, **SIZES).learning_rates == {}
    for mixer in (S4D(**SIZES), S4DFourier(**SIZES)):
        own = {name for name, _ in mixer.named_parameters()}
        assert own - set(mixer.undecayed) == {"output", "skip", "gate.linear.weight", "gate.linear.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_states": 7}, r"num_states must be even\. Got 7\."),
        ({"num_states": 4096}, r"num_states must be at most 1024\. Got 4096\."),
        ({"dt_min": 0.2}, r"dt_max must be at least dt_min=0\.2\. Got 0\.1\."),
        ({"dt_max": math.inf}, r"dt_max must be positive and finite\. Got inf\."),
        ({"ssm_learning_rate": -1.0}, r"ssm_learning_rate must be at least 0 and finite\. Got -1\.0\."),
        ({"initialization": "log"}, r"initialization must be one of lin, inv, legs\. Got 'log'\."),
    ],
)
def test_an_impossible_option_is_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        S4D(**options, **SIZES)


def test_the_base_class_computes_nothing():
    with pytest.raises(NotImplementedError):
        StateSpaceMixer(**SIZES)(inputs().float(), torch.ones(B, L, dtype=torch.bool))


# S5 and LRU


def loop(u: Tensor, a: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """y_t = Re(C h_t), h_t = a h_{t-1} + B u_t, one token after another, for one direction."""
    h = torch.zeros(u.shape[0], len(a), dtype=torch.complex128)
    rows = []
    for t in range(u.shape[1]):
        h = a * h + u[:, t].to(h.dtype) @ inputs.T
        rows.append((h @ outputs.T).real)
    return torch.stack(rows, 1)


def both_ways(u: Tensor, a: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    return loop(u, a, inputs, outputs[0]) + loop(u.flip(1), a, inputs, outputs[1]).flip(1)


def test_s5s_scan_is_the_recurrence():
    mixer, u = S5(num_states=N, num_blocks=2, **SIZES).double(), inputs()
    poles, step = mixer.real.detach() + 1j * mixer.frequency.detach(), mixer.log_step.detach().exp()
    a = torch.exp(step * poles)
    into = ((a - 1) / poles)[:, None] * complex_of(mixer.input)
    expected = both_ways(u, a, into, 2 * complex_of(mixer.output))
    close(mixer.respond(u), expected)
    one_way = S5(num_states=N, num_blocks=2, bidirectional=False, **SIZES).double()
    one_way.load_state_dict({**mixer.state_dict(), "output": mixer.output[:1]})
    close(one_way.respond(u), loop(u, a, into, 2 * complex_of(mixer.output)[0]))


def test_s5_of_block_diagonal_inputs_and_outputs_is_one_s4d_a_channel():
    """A state space model for every channel, of N states each: S4D is the S5 in which no state sees two channels."""
    s4d, u = S4D(num_states=N, bidirectional=False, **SIZES).double(), inputs()
    s5 = S5(num_states=C * N, num_blocks=1, bidirectional=False, **SIZES).double()
    blocks = torch.eye(C, dtype=torch.float64).repeat_interleave(N // 2, 0)  # (states, channels)
    with torch.no_grad():
        s5.real.copy_(-s4d.log_decay.exp().flatten())
        s5.frequency.copy_(s4d.frequency.flatten())
        s5.log_step.copy_(s4d.log_step.expand(-1, N // 2).flatten())
        s5.input.copy_(blocks[..., None] * s4d.input.flatten(0, 1)[:, None])
        s5.output.copy_((blocks[..., None] * s4d.output[0].flatten(0, 1)[:, None]).transpose(0, 1)[None])
    close(s5.respond(u), s4d.respond(u))


def test_s5_starts_as_hippo_matrices_in_a_row_and_can_be_kept_stable():
    mixer = S5(num_states=N, num_blocks=2, clip_eigenvalues=True, **SIZES)
    close(mixer.frequency, hippo_legs(N // 2)[0].float().repeat(2), 1e-6)
    close(mixer.real, torch.full((N // 2,), -0.5))
    with torch.no_grad():
        mixer.real.fill_(1.0)
    assert (mixer.matrices(torch.float64)[0].abs() < 1).all()
    mixer.clip_eigenvalues = False
    assert (mixer.matrices(torch.float64)[0].abs() > 1).all()


@pytest.mark.parametrize(
    ("kind", "variance"), [("lecun_normal", 2 / (64 * 64)), ("trunc_standard_normal", 2 / 64), ("complex_normal", 1.0)]
)
def test_s5s_matrices_are_drawn_as_turned_ones(kind, variance):
    """The authors draw matrices and turn them by eigenvectors orthogonal to one another and to all conjugates."""
    torch.manual_seed(0)
    mixer = S5(num_states=64, num_blocks=1, output_initialization=kind, dim=64, max_len=8, dropout=0.0)
    assert complex_of(mixer.output).abs().square().mean() == pytest.approx(variance, rel=0.1)
    A, _ = dense_legs(64)
    p = (torch.arange(64, dtype=torch.float64) + 0.5).sqrt()
    vectors = torch.linalg.eigh(-1j * (A + torch.outer(p, p) + 0.5 * torch.eye(64))).eigenvectors[:, 32:]
    close(vectors.mH @ vectors, torch.eye(32, dtype=vectors.dtype))
    close(vectors.mT @ vectors, torch.zeros(32, 32, dtype=vectors.dtype))
    numbers = complex_of(mixer.input)
    assert numbers.abs().square().mean() == pytest.approx(1 / 64, rel=0.1)
    assert numbers.square().mean().abs() < 0.15 / 64  # real and imaginary parts alike, and independent


def test_the_authors_scripts_have_rates_and_decay_for_b_and_the_steps():
    usual = S5(**SIZES)
    assert usual.learning_rates == dict.fromkeys(("real", "frequency", "input", "log_step"), 1e-3)
    assert set(usual.undecayed) == {"real", "frequency", "input", "log_step"}
    fast = S5(input_learning_rate=None, input_decay=True, dt_learning_rate=None, **SIZES)
    assert fast.learning_rates == dict.fromkeys(("real", "frequency"), 1e-3)
    assert set(fast.undecayed) == {"real", "frequency"}


def test_lrus_scan_is_the_recurrence():
    mixer, u = LRU(num_states=N, **SIZES).double(), inputs()
    a = torch.polar(torch.exp(-mixer.nu.detach().exp()), mixer.theta.detach().exp())
    into = mixer.log_gamma.detach().exp()[:, None] * complex_of(mixer.input)
    close(mixer.respond(u), both_ways(u, a, into, complex_of(mixer.output)))


def test_lru_starts_in_its_ring_and_normalises():
    torch.manual_seed(0)
    mixer = LRU(num_states=1000, r_min=0.4, r_max=0.9, max_phase=1.0, **SIZES).double()
    a = mixer.matrices(torch.float64)[0].detach()
    assert a.abs().min() >= 0.4 - 1e-6
    assert a.abs().max() <= 0.9 + 1e-6
    assert a.angle().min() >= 0
    assert a.angle().max() <= 1.0 + 1e-6
    # Even over the area: the squares of the radii are uniform.
    assert a.abs().square().mean() == pytest.approx((0.4**2 + 0.9**2) / 2, rel=0.03)
    close(mixer.log_gamma.exp(), (1 - a.abs().square()).sqrt(), 1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (S5, {"num_states": 8, "num_blocks": 3}, r"num_blocks must divide num_states / 2 = 4\. Got 3\."),
        (S5, {"gating": "none"}, r"gating must be one of full, half, raw\. Got 'none'\."),
        (S5, {"output_initialization": "zeros"}, r"output_initialization must be one of .* Got 'zeros'\."),
        (LRU, {"r_min": 0.5, "r_max": 0.4}, r"r_max must lie between r_min=0\.5 and 1\. Got 0\.4\."),
        (LRU, {"r_max": 1.5}, r"r_max must lie between r_min=0\.0 and 1\. Got 1\.5\."),
        (LRU, {"num_states": 0}, r"num_states must be at least 1\. Got 0\."),
    ],
)
def test_an_impossible_option_of_a_scan_is_named(kind, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**options, **SIZES)


# S4


def bilinear(A: Tensor, b: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The bilinear transform of a dense model (arXiv 2111.00396, Equation 3)."""
    identity = torch.eye(len(A), dtype=A.dtype)
    inverse = torch.linalg.inv(identity - step / 2 * A)
    return inverse @ (identity + step / 2 * A), inverse @ b * step


def powers(c: Tensor, A: Tensor, b: Tensor, length: int) -> Tensor:
    """c A^l b for every lag, one product after another."""
    taps = []
    for _ in range(length):
        taps.append((c @ b).real)
        b = A @ b
    return torch.stack(taps)


def s4(num_states: int = N, **options) -> tuple[S4, Tensor]:
    """An S4 in float64 whose A and B are HiPPO's to the last digit, and the C from which its outputs are made."""
    mixer = S4(num_states=num_states, **options, **SIZES).double()
    frequencies, weights = hippo_legs(num_states)
    outputs = torch.randn(2, C, num_states // 2, dtype=torch.complex128)
    with torch.no_grad():
        mixer.frequency.copy_(frequencies)
        mixer.log_decay.fill_(math.log(0.5))
        for parameter, factor in ((mixer.low_rank, 1), (mixer.input, math.sqrt(2))):
            parameter.copy_(torch.stack([factor * weights, torch.zeros_like(weights)], -1))
        mixer.output.copy_(torch.view_as_real(mixer.within_period(outputs)))
    return mixer, outputs


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("num_states", [2, 8, 64])
def test_s4s_kernel_is_that_of_the_dense_hippo_matrix(num_states, tied):
    mixer, outputs = s4(num_states, tied=tied)
    A, b = dense_legs(num_states)
    # Eigenvectors as `hippo_legs` turns them, upper half; C in the basis of the dense matrix is real.
    p = b / math.sqrt(2)
    skew = A + torch.outer(p, p) + 0.5 * torch.eye(num_states)
    vectors = torch.linalg.eigh(-1j * skew).eigenvectors[:, num_states // 2 :]
    along = vectors.mH @ p.to(vectors.dtype)
    vectors = vectors * (along / along.abs())
    kernels = mixer.kernels(32, torch.float64)
    for direction in range(2):
        for channel in range(C):
            c = 2 * (outputs[direction, channel] @ vectors.mH).real
            A_bar, b_bar = bilinear(A, b, mixer.log_step[channel].exp().item())
            close(kernels[direction, channel], powers(c, A_bar, b_bar, 32), 1e-8)


def test_s4_without_its_low_rank_part_is_a_diagonal_model_by_the_bilinear_transform():
    mixer, outputs = s4()
    with torch.no_grad():
        mixer.low_rank.zero_()
        mixer.frequency.mul_(torch.rand_like(mixer.frequency))
        mixer.output.copy_(torch.view_as_real(mixer.within_period(outputs)))
    kernels = mixer.kernels(L, torch.float64)
    for channel in range(C):
        poles = -mixer.log_decay[channel].exp() + 1j * mixer.frequency[channel]
        A_bar, b_bar = bilinear(
            torch.diag(poles), complex_of(mixer.input)[channel], mixer.log_step[channel].exp().item()
        )
        close(kernels[0, channel], 2 * powers(outputs[0, channel], A_bar, b_bar, L))


def test_float32_computes_s4s_kernel_to_five_digits():
    mixer, _ = s4(64, dt_min=1e-4)
    exact = mixer.kernels(32, torch.float64)
    assert (mixer.kernels(32, torch.float32) - exact).abs().max() < 1e-5 * exact.abs().max()


def test_s4s_layer_is_two_convolutions():
    mixer, _ = s4()
    u, (forward, backward) = inputs(), mixer.kernels(L, torch.float64)
    expected = torch.zeros_like(u)
    for i in range(L):
        for j in range(L):
            expected[:, i] += u[:, j] * (forward[:, i - j] if i >= j else backward[:, j - i - 1])
    close(mixer.respond(u), expected)
