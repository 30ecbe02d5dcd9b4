"""What is timed at every length: a pass through an attention alone, or a step of the classifier around a mechanism."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from lra.benchmarks.mechanisms import HEAD_DIM, HEADS, AttentionFactory, Factory, factory
from lra.benchmarks.timing import Parts
from lra.benchmarks.transcriptions import transcription
from lra.configuration import compose_config
from lra.runs.factory import make_classifier

FUSED, MATERIALISED = "softmax", "softmax_materialised"


class Pass(NamedTuple):
    """What is timed.

    Attributes:
        prepare: makes the parts of a pass, from a mechanism's factory, a length, a batch and a device.
        whole: the direction that stands for all parts together.
        takes_mixers: whether the mechanism may be a mixer that is no attention.
    """

    prepare: Callable[[Any, int, int, torch.device], Parts]
    whole: str
    takes_mixers: bool


def contenders(name: str, budget: int) -> dict[str, Factory]:
    """Return what is timed in turn: the backbone, fused softmax, and a plain transcription where there is one."""
    makers = {name: factory(name, budget), FUSED: factory(FUSED, budget)}
    plain = None if name == FUSED else transcription(name, budget)
    return makers if plain is None else {**makers, "transcription": plain}


def prepare_attention(make: AttentionFactory, n: int, batch: int, device: torch.device) -> Parts:
    """Pass forward and backward through an attention, float32, no padding."""
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


def prepare_model(make: Factory, n: int, batch: int, device: torch.device) -> Parts:
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


PASSES = {
    "attention": Pass(prepare_attention, "both", takes_mixers=False),
    "model": Pass(prepare_model, "step", takes_mixers=True),
}
