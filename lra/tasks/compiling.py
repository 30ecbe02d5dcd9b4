"""Functions compiled by numba whose machine code is kept on disk, where the disk allows it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from numba import njit


def kept_on_disk(signature: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function, at once for a signature, or without one for those that it is called with.

    The machine code is kept beside the source or in the home folder. Where neither can be written or read, or the disk
    is full, every process compiles it anew, in seconds.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        unkept = cache(lambda: njit(signature, nogil=True)(function))
        try:
            Path.home()  # an error where there is none: numba would make a folder of the name ~
            kept = njit(signature, nogil=True, cache=True)(function)
        except (OSError, RuntimeError):
            return unkept()

        @wraps(function)
        def call(*arguments: Any) -> Any:
            try:
                return kept(*arguments)
            except OSError:  # of the disk; compiled code has none
                return unkept()(*arguments)

        return call

    return decorate
