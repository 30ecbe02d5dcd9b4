"""Attentions that do what none may: each waits for the device, or makes it wait."""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention import Attention


class ReadsAValue(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v * mask.sum().item()


class HasAShapeOfValues(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v[mask[:, None].expand(-1, v.shape[1], -1)].sum() + q


class IndexesWithAList(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v[:, :, [*range(v.shape[2])]]


class MakesATensorOfNumbers(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v * torch.tensor([1.0] * v.shape[-1], device=v.device)


class ForgetsTheDevice(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v + torch.ones(v.shape[-1])


class MakesAScalarOnTheHost(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v * torch.ones(())


class CountsItsSteps(Attention):
    steps = 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        self.steps += 1
        return v[:, :, : self.steps].sum() + q


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad if grad.sum() > 0 else 2 * grad


class ReadsAGradient(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return _Back.apply(v)


class WritesWhereAMaskIs(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        v = v.clone()
        v[~mask[:, None].expand(-1, v.shape[1], -1)] = v[0, 0, 0]
        return v


class DrawsRows(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return v.gather(2, mask.float().multinomial(1)[:, None, :, None].expand_as(v[:, :, :1])) + q


class Solves(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return torch.linalg.solve(q.mT @ k, v.mT).mT
