"""The reconstruction of FSAT step by step: explicit double sums, one query at a time, sets as lists."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.fsat_r import UNIT, FSATReconstructedAttention
from models.ops.fourier_cross import FourierCross

Set = list[tuple[int, Tensor, Tensor]]  # a key's name, the key, its value


def cross(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Pool all products of a and b (m, C) of one sequence into (m, 2 C)."""
    m = len(a)
    rows = []
    for t in range(m):
        halves = []
        for half in (0, 1):
            total = torch.zeros_like(a[0])
            for i in range(m):
                for j in range(m):
                    pooled = i + j == 2 * t + half if kind == "convolution" else j - i == (-t if half else t)
                    if pooled:
                        total = total + a[i] * b[j]
            halves.append(total)
        rows.append(torch.cat(halves))
    return torch.stack(rows)


def features(module: FSATReconstructedAttention, x: Tensor, y: Tensor) -> Tensor:
    """Return U (m, C) from the joined queries and keys (m, C) of one sequence's real tokens."""
    layer: FourierCross | None = module.cross
    if layer is not None:
        pooled = cross(x @ layer.a.weight.T, y @ layer.b.weight.T, layer.kind) / len(x) ** 0.5
        folded = pooled @ layer.fold.weight.T + layer.fold.bias
        x = x + F.gelu(folded) @ layer.update.weight.T + layer.update.bias
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + module.norm.eps).sqrt()
    return normal * module.norm.weight + module.norm.bias


def positions(module: FSATReconstructedAttention, u: Tensor, i: int, h: int, m: int, noise: Tensor | None) -> Tensor:
    """Return the positions (S,) that query i of m predicts in head h."""
    S = module.num_slots
    out = (module.index.weight @ u + module.index.bias).view(-1, 2, S)[h]
    mu = module.start.to(u.dtype) + out[0] * UNIT / (module.max_len - 1)
    place = i + mu.tanh() * (m - 1)
    if noise is not None:
        place = place + out[1].exp() * noise
    return place.clamp(0, m - 1)


def chosen(k: Tensor, v: Tensor, i: int, window: int, places: Tensor) -> Set:
    """Collect what query i reads of the real keys and values (m, D), each name once."""
    m = len(k)
    found: Set = [(j, k[j], v[j]) for j in range(m) if abs(j - i) <= window]
    for place in places:
        name = round(place.item())
        if name in [other for other, _, _ in found]:
            continue
        lower = min(int(place.item()), max(m - 2, 0))
        upper = min(lower + 1, m - 1)
        share = place - lower
        found.append((name, (1 - share) * k[lower] + share * k[upper], (1 - share) * v[lower] + share * v[upper]))
    return found


def fsat(
    module: FSATReconstructedAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, noise: Tensor | None
) -> tuple[Tensor, dict[tuple[int, int, int], list[int]]]:
    """Attend with a learned estimator, given the noise (B, L, H, S) by rank, or none as at evaluation.

    Returns:
        The output, 0 on padded rows, and by (sequence, head, position) the positions of the keys that were chosen.
    """
    out, names = torch.zeros_like(q), {}
    for b in range(len(q)):
        real = mask[b].nonzero().flatten().tolist()
        m = len(real)
        if m == 0:
            continue
        joined_q, joined_k = (x[b, :, real].transpose(0, 1).flatten(1) for x in (q, k))
        U = features(module, joined_q, joined_k)
        for h in range(q.shape[1]):
            for i, position in enumerate(real):
                places = positions(module, U[i], i, h, m, None if noise is None else noise[b, i, h])
                found = chosen(k[b, h, real], v[b, h, real], i, module.window, places)
                out[b, h, position] = attend(q[b, h, position], found)
                names[b, h, position] = [real[name] for name, _, _ in found]
    return out, names


def attend(q: Tensor, found: Set) -> Tensor:
    """Attend to a set."""
    weights = torch.stack([q @ key for _, key, _ in found]).div(len(q) ** 0.5).softmax(0)
    return sum(w * value for w, (_, _, value) in zip(weights, found, strict=True))


def mass(q: Tensor, k: Tensor, mask: Tensor, names: dict[tuple[int, int, int], list[int]]) -> dict:
    """Sum the exact softmax weights of the named keys, row by row."""
    masses = {}
    for (b, h, i), keys in names.items():
        real = mask[b].nonzero().flatten().tolist()
        weights = torch.stack([q[b, h, i] @ k[b, h, j] for j in real]).div(q.shape[-1] ** 0.5).softmax(0)
        masses[b, h, i] = sum(weights[real.index(j)].item() for j in keys)
    return masses
