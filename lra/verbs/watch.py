"""what runs now and when it may end, what ended and what failed; once=true prints it once"""

from __future__ import annotations

from lra.errors import InputError
from lra.reports.watch import watch
from lra.verbs import Request

OPTIONS = ("once",)


def act(request: Request) -> int:
    """Print the state of the runs until it is interrupted, or once."""
    if request["once"] not in ("", "true", "false"):
        raise InputError(f"once must be true or false. Got {request['once']!r}.")
    watch(request.results_dir, once=request["once"] == "true")
    return 0
