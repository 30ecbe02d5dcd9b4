"""The precision of a mechanism's arithmetic: its own choice, whether or not the model runs under autocast."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Method = TypeVar("Method", bound=Callable[..., Any])


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return the precision for sums over x: its own, but float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer in the precision of x."""
    return F.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


def without_autocast(method: Method) -> Method:
    """Switch autocast off within a method whose first argument is a tensor: operations keep the operands' precision."""

    @wraps(method)
    def wrapped(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return method(self, x, *args, **kwargs)

    return cast(Method, wrapped)
