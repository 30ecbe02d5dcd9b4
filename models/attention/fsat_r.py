"""FSAT, reconstructed: each query predicts the few keys that it attends to, from Fourier-pooled products of all pairs.

Zhuang, Zhang, Tu 2022, "Long-range Sequence Modeling with Predictable Sparse Attention", ACL 2022, pages 234-243. Only
the abstract was at hand and no code is known, so this is a reconstruction, and its numbers say nothing about those of
the paper. The estimator `oracle`, a reference, is quadratic in time.

Theirs, from the abstract: an FFT-based cross of hidden states that pools all L^2 combinations in O(L log L); the
dominant elements of the attention matrix estimated from it; their indices learned "by reparameterization and gradient
truncation"; O(L log L) over all.

Ours is everything else, in particular:
- the cross (`fourier_cross.py`) reads X = the joined heads of q, and of k as its second factor: all three are linear in
  the layer's input. Its features are U = LayerNorm(X + cross(q, k));
- a linear map of U_i gives each head S positions i + tanh(mu) (m - 1) among the m real tokens, cut off at both ends, to
  which training adds normal noise of scale exp(s), s from the same map; evaluation takes them as they are;
- a position between two tokens reads the linear interpolation of both keys and of both values. Its integer part is a
  constant, so the gradient reaches it through the two weights alone;
- a window is always there. A key is its rank, a slot's is its rounded position, and what is named twice counts once;
- slots begin at fixed offsets on both sides, geometric from just outside the window to half of `max_len`, which shrink
  in proportion in shorter sequences. One unit of the map's output is UNIT positions of the longest sequence: if it were
  mu itself, a single step of Adam would throw slots across the sequence;
- positions are ranks among the real tokens, so that padding is never chosen and holes in a mask do not matter.

Everything happens in float32 or better, tokens in the order of their ranks and heads next to each other.
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import MOST_ROUNDS, at_least, one_of, positive
from models.mechanism import Card
from models.ops.block_attention import in_proportion
from models.ops.exact_weights import captured_mass, heaviest_keys, largest_mass
from models.ops.fourier_cross import FourierCross
from models.ops.fourier_cross import Kind as Cross
from models.ops.gathered_attention import attend_sets
from models.ops.precision import accumulation_dtype, linear, without_autocast
from models.ops.rows import take_tokens

Estimator = Literal["learned", "oracle", "random", "local", "strided"]

UNIT = 8  # positions of a sequence of max_len tokens


class _Ranked(NamedTuple):
    """A batch with its real tokens first: q, k, v (B, L, H, D), zero behind the m (B,) real ones.

    `rank_of` (B, L) is the rank of each token.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    m: Tensor
    rank_of: Tensor

    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k (B, H, L, D), and the mask (B, L) of ranks."""
        ranks = torch.arange(self.q.shape[1], device=self.q.device)
        return self.q.transpose(1, 2), self.k.transpose(1, 2), ranks < self.m[:, None]


class _Chosen(NamedTuple):
    """The sets of all rows, in ranks.

    Attributes:
        window: W, the keys around each token, or 0 for none.
        position: (B, L, H, S), between 0 and m - 1.
        seen: (B, L, H, W + S) bool, True on the members, each key once.
        clipped: (B, L, H, S) bool, True where a position was cut off.
    """

    window: int
    position: Tensor
    seen: Tensor
    clipped: Tensor

    def identities(self) -> Tensor:
        """Name the keys (B, L, H, W + S); those not seen are any."""
        around = _around(self.window, self.position).clamp(0, self.position.shape[1] - 1)
        return torch.cat([around.expand(*self.position.shape[:3], -1), self.position.round().long()], -1)


class FSATReconstructedAttention(Attention):
    """Softmax over a window and predicted keys.

    Args:
        budget: sizes are for 256, and change in proportion.
        slots_per_octave: S is this times ceil(log2 max_len) at a budget of 256, rounded up to an even number.
        window: keys of the window on each side, at a budget of 256.
        cross: what the features pool: "convolution" by sum i + j, "correlation" by distance j - i, or None: the
            ablation that predicts from X alone.
        estimator: where keys come from. "learned" is the mechanism. The others are its references, of W + S keys as
            well: "oracle" takes those of most weight, "random" S random ones beside the window, "strided" S evenly
            spaced ones beside it, "local" a wider window.
        clip_norm: largest norm of the gradient of a query's positions; None for no limit. Where it acts, the backward
            pass is not the derivative.
    """

    card: ClassVar[Card] = Card(
        what="FSAT, reconstructed: each query predicts the few keys that it attends to, from Fourier-pooled products "
        "of all pairs",
        family="predicted sparsity",
        time="O(L log L) for S = O(log L) predicted keys a query, besides sorts of the L S keys",
        memory="O(L log L)",
        paper="ACL 2022, pages 234-243",
        exact="the window covers the sequence",
        oracle="none found; a loop over rows in plain Python, and exact softmax where every key is chosen, stand in",
    )

    start: Tensor

    def __init__(
        self,
        *,
        budget: int,
        slots_per_octave: int = 4,
        window: int = 8,
        cross: Cross | None = "convolution",
        estimator: Estimator = "learned",
        clip_norm: float | None = None,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        one_of(get_args(Estimator), estimator=estimator)
        one_of((*get_args(Cross), None), cross=cross)
        octaves = max(1, math.ceil(math.log2(self.max_len)))
        self.estimator = estimator
        self.clip_norm = clip_norm
        at_least(1, MOST_ROUNDS, slots_per_octave=slots_per_octave)
        if clip_norm is not None:
            positive(clip_norm=clip_norm)
        self.window = min(in_proportion(budget, window=window), self.max_len)
        self.num_slots = 2 * math.ceil(in_proportion(budget, slots_per_octave=slots_per_octave * octaves) / 2)
        if self.num_slots > 2 * self.max_len + 2:
            raise ValueError(
                f"slots_per_octave must give a query no more than 2 max_len + 2 = {2 * self.max_len + 2} slots. "
                f"Got {self.num_slots}."
            )
        if estimator == "local":
            self.window, self.num_slots = self.window + self.num_slots // 2, 0
        if estimator == "learned":
            dim = self.num_heads * self.head_dim
            self.cross = None if cross is None else FourierCross(dim, cross)
            self.norm = nn.LayerNorm(dim)
            self.index = nn.Linear(dim, self.num_heads * self.num_slots * 2)
            # At the start the content moves a slot by about a position, as the noise does: U has a norm of sqrt(dim).
            nn.init.normal_(self.index.weight, std=1 / (UNIT * dim**0.5))
            nn.init.zeros_(self.index.bias)
            self.register_buffer("start", self._start(), persistent=False)

    def _start(self) -> Tensor:
        """Return where the slots begin, as mu (S,): o_k to the right and to the left in turn."""
        pairs, nearest = self.num_slots // 2, self.window + 1
        exponents = torch.linspace(0, 1, pairs, dtype=torch.float64) if pairs > 1 else torch.tensor([0.5])
        offsets = nearest * max(1.0, self.max_len / (2 * nearest)) ** exponents
        mu = (offsets / max(1, self.max_len - 1)).clamp(max=0.75).atanh()
        return torch.stack([mu, -mu], -1).flatten().float()

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        B, H, L, D = q.shape
        x = _by_rank(q, k, v, mask)
        chosen = self._choose(x)
        lower = chosen.position.detach().floor().minimum(x.m[:, None, None, None] - 2).clamp_(min=0)
        share = chosen.position - lower
        out = attend_sets(x.q, x.k, x.v, chosen.window, lower, share, chosen.seen)
        return take_tokens(out.flatten(2), x.rank_of).view(B, L, H, D).transpose(1, 2).to(q.dtype)

    @torch.no_grad()
    @without_autocast
    def diagnostics(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Measure the chosen sets, on average over real rows and heads; quadratic in time.

        Returns:
            captured_mass: of exact softmax attention, on the set.
            oracle_mass: on the heaviest set of as many keys, row by row.
            num_keys: distinct keys in a set.
            clipped: of predicted positions, the share that was cut off at an end, and so has no gradient.
        """
        x = _by_rank(q, k, v, mask)
        chosen = self._choose(x)
        Q, K, real = x.heads()
        seen = chosen.seen.transpose(1, 2)
        size = seen.sum(-1)
        measures = {
            "captured_mass": captured_mass(Q, K, real, chosen.identities().transpose(1, 2), seen),
            "oracle_mass": largest_mass(Q, K, real, size),
            "num_keys": size.to(Q.dtype),
        }
        if self.estimator == "learned":
            measures["clipped"] = chosen.clipped.to(Q.dtype).mean(-1).transpose(1, 2)
        rows = (self.num_heads * mask.sum()).clamp(min=1)
        return {name: measure.where(real[:, None], 0).sum() / rows for name, measure in measures.items()}

    def _choose(self, x: _Ranked) -> _Chosen:
        """Find every row's keys."""
        m, W = x.m[:, None, None, None], 2 * self.window + 1
        if self.estimator == "oracle":
            size = min(W + self.num_slots, x.q.shape[1])
            position = heaviest_keys(*x.heads(), size).transpose(1, 2).to(x.q.dtype)
            beyond = position >= m
            return _Chosen(0, position.minimum(m - 1).clamp(min=0), ~beyond, beyond)

        rank = torch.arange(x.q.shape[1], device=m.device)[:, None, None]
        unclipped = self._positions(x, rank, m)
        last = (m - 1).clamp(min=0).to(unclipped.dtype)
        position = unclipped.clamp(torch.zeros_like(last), last)
        with torch.no_grad():
            around = _around(W, unclipped)
            within = ((around >= 0) & (around < m)).expand(*unclipped.shape[:3], -1)
            key = position.round()
            repeated = (key - rank).abs() <= self.window
            ordered, slot = key.to(torch.int16 if self.max_len < 2**15 else torch.int32).sort(dim=-1, stable=True)
            repeats = F.pad(ordered[..., 1:] == ordered[..., :-1], (1, 0))[..., : self.num_slots]
            repeated |= repeats.scatter(-1, slot, repeats)
            return _Chosen(W, position, torch.cat([within, ~repeated], -1), unclipped != position)

    def _positions(self, x: _Ranked, rank: Tensor, m: Tensor) -> Tensor:
        """Return the slots' positions (B, L, H, S), in ranks, before they are cut off at the ends."""
        B, L, H, _ = x.q.shape
        S = self.num_slots
        if self.estimator == "local":
            return x.q.new_zeros(B, L, H, 0)
        if self.estimator == "random":
            return (self.draw("uniform", (B, L, H, S), x.q.device).to(x.q.dtype) * m).floor()
        if self.estimator == "strided":
            step = torch.arange(1, S + 1, device=x.q.device) * m // (S + 1)
            return ((rank + step) % m.clamp(min=1)).to(x.q.dtype).expand(B, L, H, S)

        U = x.q.flatten(2)
        if self.cross is not None:
            U = U + self.cross(U, x.k.flatten(2), x.m)
        U = F.layer_norm(U, U.shape[-1:], self.norm.weight.to(U.dtype), self.norm.bias.to(U.dtype), self.norm.eps)
        mu, log_scale = linear(self.index, U).view(B, L, H, 2, S).unbind(3)
        mu = mu * (UNIT / max(1, self.max_len - 1)) + self.start.to(mu.dtype)
        positions = rank + mu.tanh() * (m - 1)
        if self.training:
            noise = self.draw("normal", (B, L, H, S), x.q.device).to(mu.dtype)
            positions = positions + log_scale.exp() * noise
        if self.clip_norm is not None and positions.requires_grad:
            positions.register_hook(partial(_clip, norm=self.clip_norm))
        return positions


def _around(window: int, like: Tensor) -> Tensor:
    """Return the ranks (L, 1, W) of the windows, also beyond the ends."""
    offsets = torch.arange(window, device=like.device) - window // 2
    return torch.arange(like.shape[1], device=like.device)[:, None, None] + offsets


def _by_rank(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> _Ranked:
    """Sort real tokens to the front, in their order, and padding, as zeros, behind them."""
    m = mask.sum(-1)
    rank_of = torch.where(mask, mask.cumsum(-1) - 1, m[:, None] + mask.logical_not().cumsum(-1) - 1)
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(rank_of)
    position_of = torch.empty_like(rank_of).scatter_(1, rank_of, positions)
    dtype = accumulation_dtype(q)
    joined = (torch.where(mask[:, None, :, None], x, 0).to(dtype).transpose(1, 2).flatten(2) for x in (q, k, v))
    Q, K, V = (take_tokens(x, position_of).unflatten(-1, (q.shape[1], -1)) for x in joined)
    return _Ranked(Q, K, V, m, rank_of)


def _clip(grad: Tensor, norm: float) -> Tensor:
    """Shorten gradients (B, L, H, S) of queries' positions to a norm."""
    return grad * (norm / grad.norm(dim=-1, keepdim=True).clamp(min=norm))
