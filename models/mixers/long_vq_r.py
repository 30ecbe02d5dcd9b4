"""LongVQ, reconstructed: MEGA's gated block with attention to a codebook of vector-quantised keys.

Liu et al. 2024, "LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory", arXiv 2404.11163, of
which no code and only summaries were at hand. They tell of: a damped moving average as structured memory, gates, keys
replaced by the codes of a codebook of fixed size, straight-through gradients, a codebook that follows the keys by
moving averages, and a bias for a local window. The rest is filled in, so its accuracies say nothing of the authors':

- averages, projections and gates are MEGA's (arXiv 2209.10655);
- attention to codes is Transformer-VQ's (arXiv 2309.16354), and so are keys with a root mean square of 1, so that codes
  drawn from a normal distribution lie among them;
- the bias only raises weights, by 1 + exp(b), so that nothing is subtracted;
- a gradient reaches a key through the window as if its code were it, and through the codes as if its place among them
  had been softmax(-distance^2 / sqrt(Z)): the former everywhere would take O(L S Z E) time;
- the codebook learns the keys of a step once that step is over, at the start of the next one: within a pass, no
  sequence depends on others. Codes that attract hardly any key become keys drawn at random, without which nearly all
  keys end up with one code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from models.checks import at_least, not_negative, rate
from models.mechanism import Card
from models.mixers.mega import Mega
from models.ops.block_attention import PUBLISHED_BUDGET
from models.ops.code_attention import attend_to_codes
from models.ops.precision import accumulation_dtype

EPS = 1e-5  # added to the number of keys of each code, so that none is 0
EPS_KEYS = 1e-12  # added to the mean square of a key


class LongVQReconstructed(Mega):
    """MEGA with softmax attention to the codes of the keys, and more weight for those in a window.

    With several processes every one has a codebook of its own, of its own keys; an evaluation takes the first one's.

    Args:
        num_codes: S.
        window: w; keys fewer than so many tokens away have more weight.
        decay: of the moving averages that make the codebook.
        least_keys: codes that attract fewer keys a step, by the moving average, are replaced; 0 for never.
        shared_dim: Z, the width of queries and keys.
        expansion: the width of values, in multiples of C.
        ema_dim: moving averages of a channel, in each direction.
        dim, max_len, dropout: see `Mixer`.

    Raises:
        ValueError: an option is out of its range.
    """

    surrogate_gradient: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        what="LongVQ, reconstructed: MEGA whose keys are replaced by the codes of a learned codebook",
        family="gated",
        time="O(L log L + L S + L w) for S codes and a window of w",
        memory="O(L S + L w)",
        paper="2404.11163",
        oracle="vector-quantize-pytorch VectorQuantize, codes and the update of the codebook; for attention, none "
        "found: softmax attention to the quantised keys stands in",
    )
    codebook: Tensor
    counts: Tensor
    sums: Tensor
    new_counts: Tensor
    new_sums: Tensor
    candidates: Tensor
    scale_seen: Tensor

    def __init__(
        self,
        *,
        num_codes: int,
        window: int = 16,
        decay: float = 0.99,
        least_keys: float = 1.0,
        shared_dim: int = 64,
        expansion: int = 2,
        ema_dim: int = 16,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        at_least(1, num_codes=num_codes, window=window)
        rate(decay=decay)
        not_negative(least_keys=least_keys)
        super().__init__(
            shared_dim=shared_dim,
            expansion=expansion,
            ema_dim=ema_dim,
            chunk=window,
            budget=PUBLISHED_BUDGET,
            dim=dim,
            max_len=max_len,
            dropout=dropout,
        )
        self.decay = decay
        self.least_keys = least_keys
        codes = torch.randn(num_codes, shared_dim)
        for name, value in {
            "codebook": codes, "counts": torch.ones(num_codes), "sums": codes,
            "new_counts": torch.zeros(num_codes), "new_sums": torch.zeros_like(codes),
            "candidates": codes, "scale_seen": self.scale.detach(),
        }.items():  # fmt: skip
            self.register_buffer(name, value.clone())

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend to the codes of the keys, (B, L, E)."""
        if self.training:
            self._follow_step()
        given, dtype = v.dtype, accumulation_dtype(q)
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = (x.to(dtype) for x in (q, k, v))
            codes, padding = self.codebook.to(dtype), ~mask[..., None]
            k = k * torch.rsqrt(k.square().mean(-1, keepdim=True) + EPS_KEYS)
            code, nearness = assign(k, codes)
            assigned = (code[..., None] == torch.arange(len(codes), device=code.device)).to(dtype)
            assigned = assigned.masked_fill(padding, 0)
            if self.training:
                self._collect(k, assigned, mask)
            soft = nearness.softmax(-1).masked_fill(padding, 0)
            quantised = k + (F.embedding(code, codes) - k).detach()
            v = v.masked_fill(padding, 0)
            gain = self.bias.to(dtype).exp()
            out = attend_to_codes(q, quantised, v, assigned + (soft - soft.detach()), codes, gain, mask)
        return out.to(given)

    @torch.no_grad()
    def _collect(self, k: Tensor, assigned: Tensor, mask: Tensor) -> None:
        """Note the real keys of a pass, for the codebook, and draw as many of them as there are codes."""
        self.new_counts += assigned.sum((0, 1)).to(self.new_counts.dtype)
        self.new_sums += torch.einsum("bls,blz->sz", assigned, k).to(self.new_sums.dtype)
        real_first = mask.flatten().to(torch.uint8).argsort(descending=True, stable=True)
        rank = (self.draw("uniform", tuple(self.counts.shape), k.device) * mask.sum()).long()
        drawn = F.embedding(real_first[rank.clamp(max=mask.numel() - 1)], k.flatten(0, 1))
        self.candidates.copy_(torch.where(mask.any(), drawn, self.candidates))

    @torch.no_grad()
    def _follow_step(self) -> None:
        """Update the codebook by the keys noted, if weights have changed since: a step of the optimiser is over.

        Whether they have stays on the device.
        """
        over = (self.scale != self.scale_seen).any()
        self.scale_seen.copy_(self.scale)
        known = over & (self.new_counts.sum() > 0)
        share = (1 - self.decay) * known.to(self.counts.dtype)
        self.counts.lerp_(self.new_counts, share)
        self.sums.lerp_(self.new_sums, share)
        dead = known & (self.counts < self.least_keys)
        self.counts.masked_fill_(dead, self.least_keys)
        self.sums.copy_(torch.where(dead[:, None], self.candidates * self.least_keys, self.sums))
        total = self.counts.sum()
        counts = (self.counts + EPS) / (total + len(self.counts) * EPS) * total
        self.codebook.copy_(torch.where(known, self.sums / counts[:, None], self.codebook))
        self.new_counts.masked_fill_(over, 0)
        self.new_sums.masked_fill_(over, 0)


def assign(k: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of every key, (B, L), and -distance^2 / sqrt(Z) up to what is the same for all codes."""
    nearness = (2 * k @ codes.T - codes.square().sum(-1)) * codes.shape[-1] ** -0.5
    return nearness.argmax(-1), nearness
