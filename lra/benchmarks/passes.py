"""What is timed at every length: a pass through a mixer or through an attention alone, or a step of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lra.benchmarks.mechanisms import HEAD_DIM, HEADS, WIDTH, AttentionFactory, Factory, factory
from lra.benchmarks.timing import Parts
from lra.benchmarks.transcriptions import transcription
from lra.configuration import compose_config
from lra.runs.factory import make_classifier, make_mixer

FUSED, MATERIALISED = "softmax", "softmax_materialised"
MIXER, ALONE, MODEL = "mixer", "attention alone", "model"


class Pass(NamedTuple):
    """What is timed.

    Attributes:
        prepare: makes the parts of a pass, from a mechanism's factory, a length, a batch and a device.
        whole: the direction that stands for all parts together.
        tensors: of (B, L, WIDTH), how many each direction must at least read and write; empty where no least time is
            asked for.
    """

    prepare: Callable[[Any, int, int, torch.device], Parts]
    whole: str
    tensors: Mapping[str, int]


def contenders(name: str, budget: int) -> dict[str, Factory]:
    """Return what is timed in turn: the backbone, fused softmax, and a plain transcription where there is one."""
    makers = {name: factory(name, budget), FUSED: factory(FUSED, budget)}
    plain = None if name == FUSED else transcription(name, budget)
    return makers if plain is None else {**makers, "transcription": plain}


def prepare_mixer(make: Factory, n: int, batch: int, device: torch.device) -> Parts:
    """Pass forward and backward through a mixer of rows of WIDTH, float32, no padding."""
    heads = {"num_heads": HEADS, "head_dim": HEAD_DIM}
    mixer = make_mixer(make, heads)(dim=WIDTH, max_len=n, dropout=0.0).to(device)
    return _both_ways(mixer, [torch.randn(batch, n, WIDTH, device=device)], n)


def prepare_attention(make: AttentionFactory, n: int, batch: int, device: torch.device) -> Parts:
    """Pass forward and backward through an attention alone, on heads that are handed in; else likewise."""
    attention = make(num_heads=HEADS, head_dim=HEAD_DIM, max_len=n, dropout=0.0).to(device)
    # As in the encoder, where the heads of a token are neighbours in memory.
    heads = [torch.randn(batch, n, HEADS, HEAD_DIM, device=device).transpose(1, 2) for _ in range(3)]
    return _both_ways(attention, heads, n)


def _both_ways(module: nn.Module, inputs: Sequence[Tensor], n: int) -> Parts:
    """Prepare both parts of a pass; the output has the shape of the first input."""
    g = torch.randn_like(inputs[0])
    mask = torch.ones(len(g), n, dtype=torch.bool, device=g.device)
    asked = [*(x.requires_grad_() for x in inputs), *module.parameters()]
    held: dict[str, Any] = {}

    def forward() -> None:
        held["out"] = module(*inputs, mask)

    def backward() -> None:
        # Not every backbone looks at queries and keys.
        torch.autograd.grad(held.pop("out"), asked, g, allow_unused=True)

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
    # x and y, and their gradients; without the weights, which do not grow with the length.
    MIXER: Pass(prepare_mixer, "both", {"forward": 2, "backward": 3, "both": 4}),
    # q, k, v and the output, and their gradients.
    ALONE: Pass(prepare_attention, "both", {"forward": 4, "backward": 7, "both": 8}),
    MODEL: Pass(prepare_model, "step", {}),
}
