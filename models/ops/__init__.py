"""Functions of tensors that several mechanisms share. They know no contract of a layer.

An operation is written in torch here. Where torch has no kernel that does it at once, one in Triton may stand beside
it, in `triton/` under the same name. `fused` says which of the two is used: the only place that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_torch_alone = False


@contextmanager
def reference() -> Iterator[None]:
    """Compute in torch alone, which Triton's kernels are held to.

    It holds for all threads, since CUDA's backward passes have their own: they must run within, too.
    """
    global _torch_alone
    before, _torch_alone = _torch_alone, True
    try:
        yield
    finally:
        _torch_alone = before


def fused(x: Tensor) -> bool:
    """Say whether Triton's kernel of an operation is used: on CUDA, where there is Triton.

    Tensors without content, which operations are counted on, and what torch compiles itself take the form in torch.
    """
    if not x.is_cuda or _torch_alone or torch.compiler.is_compiling() or isinstance(x, FakeTensor):
        return False
    return _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
