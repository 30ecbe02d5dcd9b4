"""Floating-point operations: of a model on one example, and of whatever runs under a counter.

A multiplication and an addition are two operations. Matrix products, convolutions and attention are counted, as is
usual, and so are Fourier transforms and sums of gathered rows, which some methods use instead. A product of complex
matrices is four of real ones; a complex transform of length N is 5 N log2 N, a real one half of that, as is usual too.
Operations entry by entry are not counted, nor then the recurrences and scans that are made of them. A model is run on
tensors without content, so that the count costs no memory and is the same on every machine.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

aten = torch.ops.aten

# It logs, with a traceback, whatever it raises; the caller says what became of it.
logging.getLogger(FakeTensorMode.__module__).setLevel(logging.CRITICAL)


def count_flops(model: nn.Module, num_inputs: int, length: int) -> tuple[int, int]:
    """Count the operations for one example of `num_inputs` sequences of `length` tokens.

    Args:
        model: maps tokens (B, I, L) and mask (B, I, L) to logits; it is left as it is.
        num_inputs: sequences in an example.
        length: tokens in each of them.

    Returns:
        The operations of the forward pass alone, and those of the forward and the backward pass of training.
    """
    was_training = model.training
    model.train()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            state = {
                name: mode.from_tensor(tensor.detach().cpu()).requires_grad_(tensor.requires_grad)
                for name, tensor in (*model.named_parameters(), *model.named_buffers())
            }
            tokens = torch.zeros(1, num_inputs, length, dtype=torch.uint8)
            mask = torch.ones(1, num_inputs, length, dtype=torch.bool)
            with WorkCounter() as counter:
                logits = functional_call(model, state, (tokens, mask))
                forward = counter.flops
                logits.sum().backward()
    finally:
        model.train(was_training)
    return forward, counter.flops


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *rest: Any, **_: Any) -> int:
    """Count the two products of attention."""
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _attention_backward(
    g: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any
) -> int:
    """Count the four products of its derivative, without the one that the fused kernel computes again."""
    return 2 * _attention(q, k, v)


def _real_transform(x: Sequence[int], dim: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Count a transform that has real numbers on one side as half of a complex one."""
    out = out_shape if isinstance(out_shape[0], int) else out_shape[0]
    # The side of complex numbers may have no more than the half of them that tells the rest.
    lengths = [max(x[axis], out[axis]) for axis in dim]
    return round(2.5 * math.prod(x) / math.prod(x[axis] for axis in dim) * _n_log2_n(lengths))


def _complex_transform(x: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    """Count 5 N log2 N for each transform of N numbers, over however many dimensions."""
    lengths = [x[axis] for axis in dim]
    return round(5 * math.prod(x) / math.prod(lengths) * _n_log2_n(lengths))


def _n_log2_n(lengths: Sequence[int]) -> float:
    return math.prod(lengths) * math.log2(math.prod(lengths))


def _gathered_sum(weight: Sequence[int], indices: Sequence[int], *rest: Any, out_shape: Any = None, **_: Any) -> int:
    """Count one addition for every number of every gathered row."""
    return math.prod(indices) * weight[1]


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._fft_r2c: _real_transform,
    aten._fft_c2r: _real_transform,
    aten._fft_c2c: _complex_transform,
    aten._embedding_bag: _gathered_sum,
    aten._embedding_bag_forward_only: _gathered_sum,
}


class WorkCounter(TorchDispatchMode):
    """Counts what runs under it, on tensors with content or without.

    Attributes:
        flops: as `count_flops` counts them.
        exponentials: entries of exponential functions and of softmax, those inside fused attention included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.exponentials = 0
        self._formulas = flop_registry | {packet: shape_wrapper(formula) for packet, formula in FORMULAS.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in self._formulas:
            flops = int(self._formulas[packet](*args, **(kwargs or {}), out_val=out))
            # The usual formulas look at shapes alone.
            of_complex = packet in flop_registry and isinstance(out, torch.Tensor) and out.is_complex()
            self.flops += 4 * flops if of_complex else flops
        if packet in EXPONENTIALS:
            self.exponentials += EXPONENTIALS[packet](*args)
        return out


def _scores(q: torch.Tensor, k: torch.Tensor, *_: Any) -> int:
    return q.shape[:-1].numel() * k.shape[-2]


def _scores_backward(g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, *_: Any) -> int:
    return _scores(q, k)


def _entries(x: torch.Tensor, *_: Any) -> int:
    return x.numel()


EXPONENTIALS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((aten.exp, aten.exp_, aten._softmax, aten.logsumexp), _entries),
    aten._scaled_dot_product_flash_attention_for_cpu: _scores,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _scores_backward,
    aten._scaled_dot_product_flash_attention: _scores,
    aten._scaled_dot_product_flash_attention_backward: _scores_backward,
    aten._scaled_dot_product_efficient_attention: _scores,
    aten._scaled_dot_product_efficient_attention_backward: _scores_backward,
}
