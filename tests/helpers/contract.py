"""What the contract tests of attentions and of mixers share: names, masks, and a run with its gradients."""

from __future__ import annotations

from typing import Any

import hydra
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lra.files import ROOT
from models.attention import Attention

CONFIGS = ROOT / "configs" / "attn"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))

B, H, L, D = 3, 2, 37, 8
MAX_LEN = 128


def configured(name: str, budget: int = 8) -> Any:
    """What `attn=<name>` instantiates: a class and its own settings."""
    config = OmegaConf.create({"budget": budget, "attn": OmegaConf.load(CONFIGS / f"{name}.yaml")})
    return hydra.utils.instantiate(config.attn)


def attention(name: str, budget: int = 8, head_dim: int = D, dropout: float = 0.0) -> Attention:
    """The attention of that name, tiny; its parameters are drawn with seed 0."""
    make = configured(name, budget)
    torch.manual_seed(0)
    return make(num_heads=H, head_dim=head_dim, max_len=MAX_LEN, dropout=dropout)


def heads(length: int = L, batch: int = B, dtype: torch.dtype = torch.float32, head_dim: int = D) -> list[Tensor]:
    """Queries, keys, values (B, H, L, D) as `MultiHead` makes them: heads are a strided view."""
    generator = torch.Generator().manual_seed(length)
    shape = (batch, length, H, head_dim)
    return [torch.randn(shape, generator=generator, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


def holey_mask(length: int = L) -> Tensor:
    """Rows: holes, a prefix, everything real."""
    positions = torch.arange(length)
    return torch.stack([(positions % 3 != 1) & (positions < 30), positions < length * 2 // 3, positions >= 0])


def rows_of(mask: Tensor, x: Tensor) -> Tensor:
    """The mask (B, L), shaped to be laid over (B, L, C) or (B, H, L, D)."""
    return mask[..., None] if x.ndim == 3 else mask[:, None, :, None]


def noisy(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The same rows with something else in the padding."""
    return torch.where(rows_of(mask, x), x, scale * torch.randn_like(x))


def run(module: nn.Module, inputs: list[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the output, and the gradients by all inputs of a loss that reads every real number.

    An attention leaves padded rows unspecified: they are zeroed. A mixer has to do that itself.
    """
    out = module(*inputs, mask)
    if out.ndim == 4:
        out = torch.where(rows_of(mask, out), out, 0)
    columns, rows = (torch.arange(1, size + 1, device=out.device) for size in (out.shape[-1], out.shape[-2]))
    loss = (out * columns * rows[:, None].sin()).sum()
    if not loss.requires_grad:
        return out.detach(), [torch.zeros_like(x) for x in inputs]
    grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return out.detach(), list(grads)
