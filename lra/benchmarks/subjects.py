"""What a length sweep measures: a mechanism alone, or the classifier around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate

from lra.benchmarks.timing import Parts
from lra.benchmarks.transcriptions import transcription
from lra.configuration import compose_config
from lra.runs.factory import make_classifier
from models.attention import Attention

HEADS, HEAD_DIM = 2, 32  # of the encoder in every protocol but LRA's own
FUSED, MATERIALISED = "softmax", "softmax_materialised"

Factory = Callable[..., Attention]
Subject = Callable[[Factory, int, int, torch.device], Parts]


def factory(name: str, budget: int, *overrides: str) -> Factory:
    """Return what makes a backbone."""
    return instantiate(compose_config(f"attn={name}", f"budget={budget}", *overrides).attn)


def contenders(name: str, budget: int) -> dict[str, Factory]:
    """Return what is timed in turn: the backbone, fused softmax, and a plain transcription where there is one."""
    found = {name: factory(name, budget), FUSED: factory(FUSED, budget)}
    plain = None if name == FUSED else transcription(name, budget)
    return found if plain is None else {**found, "transcription": plain}


def attention(make: Factory, n: int, batch: int, device: torch.device) -> Parts:
    """Pass forward and backward through a mechanism, float32, no padding."""
    module = make(num_heads=HEADS, head_dim=HEAD_DIM, max_len=n, dropout=0.0).to(device)
    # As in the encoder, where the heads of a token are neighbours in memory.
    q, k, v, g = (torch.randn(batch, n, HEADS, HEAD_DIM, device=device).transpose(1, 2) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    mask = torch.ones(batch, n, dtype=torch.bool, device=device)
    held: dict[str, Any] = {}

    def forward() -> None:
        held["out"] = module(q, k, v, mask)

    def backward() -> None:
        # Not every backbone looks at queries and keys.
        torch.autograd.grad(held.pop("out"), (*inputs, *module.parameters()), g, allow_unused=True)

    return {"forward": forward, "backward": backward}


def model(make: Factory, n: int, batch: int, device: torch.device) -> Parts:
    """Take an optimiser step of the default classifier on sequences of n tokens."""
    settings = {**compose_config("scale=mini").model, "num_positions": None}
    classifier = make_classifier(make, settings, vocab_size=256, max_len=n, num_classes=2, num_inputs=1).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-4)
    tokens = torch.randint(1, 256, (batch, 1, n), dtype=torch.uint8, device=device)
    labels, mask = torch.zeros(batch, dtype=torch.long, device=device), tokens > 0
    held: dict[str, Any] = {}

    def forward() -> None:
        held["loss"] = torch.nn.functional.cross_entropy(classifier(tokens, mask), labels)

    def backward() -> None:
        optimizer.zero_grad(set_to_none=True)
        held.pop("loss").backward()

    return {"forward": forward, "backward": backward, "optimizer": partial(optimizer.step)}


SUBJECTS: dict[str, tuple[Subject, str]] = {"attention": (attention, "both"), "model": (model, "step")}
