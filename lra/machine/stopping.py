"""Stop a run between two steps when the user or the system asks for it, so that it can be taken up again there."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

# Sent by Ctrl-C, by a scheduler that ends a job, and as Slurm's early warning (the last one with submitit).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
OWN = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)


class StoppedError(KeyboardInterrupt):
    """The run was asked to stop, and did so where it can go on later."""


class StopRequest:
    """Whether the run was asked to stop, and by what.

    Attributes:
        cause: the signal; None until one comes.
    """

    def __init__(self) -> None:
        self.cause: signal.Signals | None = None

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            StoppedError: a signal came.
        """
        if self.cause is not None:
            raise StoppedError(f"stopped by {self.cause.name}")


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Turn the first signal into a request, and let the second one end the program at once.

    An earlier handler of that signal, such as submitit's, which puts a job back into its queue, gets it at the end.
    Only the main thread of a process can do so; in another one the request never comes.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.cause is not None:
            raise KeyboardInterrupt
        request.cause = signal.Signals(number)
        log.warning(
            "%s: the run stops after this step and keeps what it has; the same command goes on from there. "
            "Once more stops it at once.",
            request.cause.name,
        )

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if request.cause is not None and before[request.cause] not in OWN:
            signal.raise_signal(request.cause)
