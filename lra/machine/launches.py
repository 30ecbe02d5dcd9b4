"""What a device is asked to do: operations that launch something on it, and those that the host then waits for.

A small model on a GPU waits for the host, which takes microseconds over every launch; and a host that waits for a value
launches nothing meanwhile. An operation is one of torch's own, as its dispatcher sees it: it launches a kernel mostly,
sometimes a few. Views launch nothing, nor does memory that is not filled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

QUIET = {aten._unsafe_view, aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}
# These look at values inside, on CUDA, without a tag that would say so.
CHECKING = {aten.multinomial, aten._linalg_check_errors}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
SHAPED_BY_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def launches(func: Any) -> bool:
    """Say whether an operation, an overload of one of torch's, launches anything."""
    return func.namespace == "aten" and not func.is_view and func.overloadpacket not in QUIET


def waits(func: Any, args: Sequence[Any]) -> bool:
    """Say whether the host waits for the values of what an operation takes."""
    if func.overloadpacket in INDEXED:  # a mask becomes as many indices as it has ones
        return any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return func.overloadpacket in CHECKING or not SHAPED_BY_VALUES.isdisjoint(func.tags)


class LaunchCounter(TorchDispatchMode):
    """Counts under it, by parts of a step; what is in no part is not counted.

    Attributes:
        launched: operations of each part that launch something.
        waited: operations of each part that the host waits for; one that takes a device's tensor to the host is such.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.launched: Counter[str] = Counter()
        self.waited: Counter[str] = Counter()
        self._part: str | None = None

    @contextmanager
    def mark(self, part: str) -> Iterator[None]:
        """Count what runs here as a part's; it is a `lra.machine.profiling.Mark`."""
        self._part = part
        try:
            yield
        finally:
            self._part = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        if self._part is None:
            return out
        own, taken, made = self.device.type, _devices((args, kwargs)), _devices(out)
        if own in taken | made:
            self.launched[self._part] += launches(func)
            self.waited[self._part] += waits(func, args) or bool(own in taken and made and own not in made)
        return out


def _devices(tree: Any) -> set[str]:
    return {x.device.type for x in tree_leaves(tree) if isinstance(x, Tensor)}
