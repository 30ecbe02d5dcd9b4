"""YOSO: attention weights that are collision probabilities of random hyperplane hashes, computed or sampled.

Zeng, Xiong, Ravi, Acharya, Fung, Singh 2021, "You Only Sample (Almost) Once: Linear Cost Self-Attention Via Bernoulli
Sampling", arXiv 2111.09714. The weight of key j for query i is P_ij = (1 - arccos(q_i . k_j) / pi)^tau on unit
vectors, the chance that all tau bits of a code agree; Y = P V, and each row of Y is divided by its norm.

Computed, that is exact; sampled, Y (not its direction) is unbiased for Gaussian hyperplanes.

Gradients of q and k are the authors' surrogate by default, not derivatives: the lower bound (tau / 2) f of f', which
is infinite at equal vectors. `backward="sampled"` estimates it from the forward pass's own codes (version 1 of the
authors' code).

Departures from the authors' code (github.com/mlpen/YOSO): cosines are clamped to [-1, 1], so that equal vectors give
no nan; queries and keys are normalised at evaluation too; a row that nothing collides with is 0 and passes no
gradient, whereas their division by eps would multiply it by 1e12; hashes are Gaussian by default, since the bits of
fast Hadamard rotations depend on one another and collide too rarely. Those pad heads narrower than 32 to a power of
two, theirs to 32.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.attention import Attention, Sizes
from models.checks import MOST_ROUNDS, at_least, odd, one_of
from models.mechanism import Card
from models.ops.hash_sums import (
    expected_gradients,
    expected_sum,
    hadamard_planes,
    hyperplane_codes,
    sampled_gradients,
    sampled_sum,
)
from models.ops.precision import accumulation_dtype, without_autocast

Estimator = Literal["expectation", "sampled"]
Backward = Literal["true", "lower_bound", "sampled"]
Hashing = Literal["gaussian", "hadamard"]


class YosoAttention(Attention):
    """Bernoulli-sampled attention.

    Args:
        estimator: of the weights: "expectation" computes them all, "sampled" counts collisions.
        backward: "true" derivative of the expectation, its "lower_bound", or the lower bound "sampled".
        num_hashes: m, hashes drawn afresh for every sequence and head at every call.
        num_bits: tau, bits of a code; None for log2 of `max_len`, rounded up.
        hashing: hyperplanes that are independent ("gaussian") or fast ("hadamard").
        conv_window: odd width of a depthwise convolution of V added to the output, one kernel a head; None for none.
    """

    card: ClassVar[Card] = Card(
        what="YOSO: attention weights that are collision probabilities of random hyperplane hashes, computed or "
        "sampled",
        family="hashing",
        time="O(L^2) computed (`estimator=expectation`); sampled with m hashes O(L m D) forward and O(L m D^2) "
        "backward if 2^tau is at most about L, but O(L^2 (m + D)) backward up to L = 256 D, where that is faster",
        memory="O(L) computed, O(L m) sampled",
        paper="2111.09714",
        oracle="transformers YosoCumulation, outputs and lower-bound gradients of the expectation; none found for the "
        "sampled form, which the formulas over all pairs of equal codes check",
    )

    identity_on_one: ClassVar[bool] = False  # a lone token receives its value divided by its norm
    surrogate_gradient: ClassVar[bool] = True  # the gradient is not the derivative of the output

    def __init__(
        self,
        *,
        estimator: Estimator = "sampled",
        backward: Backward = "sampled",
        num_hashes: int = 32,
        num_bits: int | None = None,
        hashing: Hashing = "gaussian",
        conv_window: int | None = None,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        one_of(get_args(Estimator), estimator=estimator)
        one_of(get_args(Backward), backward=backward)
        one_of(get_args(Hashing), hashing=hashing)
        if estimator == "expectation" and backward == "sampled":
            raise ValueError("backward='sampled' needs estimator='sampled': otherwise there are no codes to reuse.")
        at_least(1, MOST_ROUNDS, num_hashes=num_hashes)
        if num_bits is not None:
            at_least(0, 20, num_bits=num_bits)
        if conv_window is not None:
            odd(conv_window=conv_window)
        self.estimator = estimator
        self.backward_form = backward
        self.num_hashes = num_hashes
        self.num_bits = (self.max_len - 1).bit_length() if num_bits is None else num_bits
        self.hashing = hashing
        self.conv: nn.Conv2d | None = None
        if conv_window is not None:
            size, padding = (conv_window, 1), (conv_window // 2, 0)
            self.conv = nn.Conv2d(
                self.num_heads, self.num_heads, size, padding=padding, groups=self.num_heads, bias=False
            )

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype, real = accumulation_dtype(q), mask[:, None, :, None]
        Q, K, V = (torch.where(real, x, 0).to(dtype) for x in (q, k, v))
        Y = self.weighted_sum(F.normalize(Q, dim=-1), F.normalize(K, dim=-1), V, mask)
        norm = torch.linalg.vector_norm(Y, dim=-1, keepdim=True)
        out = torch.where(real & (norm > 0), Y / norm.clamp(min=1e-12), 0)
        if self.conv is not None:
            weight = self.conv.weight.to(dtype)
            out = out + F.conv2d(V, weight, padding=self.conv.padding, groups=self.num_heads)
        return out.to(q.dtype)

    def weighted_sum(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Return Y (B, H, L, D), before its rows are normalised, for unit q and k that are 0 on padding, as v is."""
        codes = self.codes(q, k, mask) if self.estimator == "sampled" else ()
        flat = [x.flatten(0, 1) for x in (q, k, v)]
        Y: Tensor = _WeightedSum.apply(*flat, self.num_bits, self.backward_form, *codes)
        return Y.view_as(v)

    @torch.no_grad()
    def codes(self, q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Draw hashes and return the codes of queries and keys, (B H, m, L) each."""
        (B, H, L, D), m, tau = q.shape, self.num_hashes, self.num_bits
        x = torch.cat([q, k], 2).flatten(0, 1)  # (B H, 2 L, D)
        if tau == 0:
            codes = torch.zeros(B * H, m, 2 * L, dtype=torch.int32, device=q.device)
        else:
            codes = hyperplane_codes(x, self._planes(B, H, D, q.device), tau)
        # Padding adds nothing wherever it goes: spread it, so that no bucket grows long.
        spread = torch.arange(2 * L, dtype=torch.int32, device=q.device) % 2**tau
        codes = torch.where(mask.repeat(1, 2).repeat_interleave(H, 0)[:, None], codes, spread)
        return codes[..., :L], codes[..., L:]

    def _planes(self, B: int, H: int, D: int, device: torch.device) -> Tensor:
        m, tau = self.num_hashes, self.num_bits
        if self.hashing == "gaussian":
            return self.draw("normal", (B, H, D, m * tau), device).flatten(0, 1)
        width = 2 ** max(D - 1, tau - 1).bit_length()
        rotations = math.ceil(m / (width // tau))
        signs = self.draw("uniform", (B, H, rotations, 3, width), device).flatten(0, 1).lt(0.5) * 2 - 1
        return hadamard_planes(signs, D, tau, m)


class _WeightedSum(torch.autograd.Function):
    """Y = P V, computed or (given codes) sampled, with the surrogate gradients; (N, L, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, num_bits: int, backward: Backward, *codes: Tensor) -> Tensor:
        saved_codes = codes if backward == "sampled" else ()
        ctx.save_for_backward(q, k, v, *saved_codes)
        ctx.num_bits, ctx.backward_form = num_bits, backward
        if not codes:
            return expected_sum(q, k, v, num_bits)
        codes_q, codes_k = codes
        return sampled_sum(codes_q, codes_k, v, num_bits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *codes = ctx.saved_tensors
        if codes:
            codes_q, codes_k = codes
            grads = sampled_gradients(grad, q, k, v, codes_q, codes_k, ctx.num_bits)
        else:
            grads = expected_gradients(grad, q, k, v, ctx.num_bits, ctx.backward_form == "true")
        return (*grads, *[None] * (len(ctx.needs_input_grad) - 3))
