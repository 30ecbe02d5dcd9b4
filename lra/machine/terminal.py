"""What a program prints, on whatever it is printed: no character and no reader that went away ends a run."""

from __future__ import annotations

import io
import os
import sys

STREAMS = ("stdout", "stderr")
HIGHEST_STANDARD = 2  # numbers 0 to 2 are the standard input, output and errors


class Output(io.TextIOWrapper):
    """A text stream that replaces the characters it has not, and is silent once nobody can read it any more."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        file = io.FileIO(descriptor, "w", closefd=False)
        super().__init__(io.BufferedWriter(file), encoding=encoding, errors="replace", line_buffering=True)

    def write(self, text: str) -> int:
        """Write a text, or do as if."""
        try:
            return super().write(text)
        except OSError:
            self._fall_silent()
            return len(text)

    def flush(self) -> None:
        """Write what is not written yet, or do as if."""
        try:
            super().flush()
        except OSError:
            self._fall_silent()

    def _fall_silent(self) -> None:
        """Let all that is still to come vanish, from C's libraries too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def replace_characters() -> None:
    """Let the output and the errors of this program replace the characters they have not.

    One that was closed goes nowhere from here on; and no file that is opened later gets its number, or C's libraries
    would print into that file. What is no stream of the interpreter's own, as in a notebook, is left alone.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= HIGHEST_STANDARD:
        pass
    os.close(number)
    for name in STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Output(os.open(os.devnull, os.O_WRONLY), "utf-8"))
        elif type(stream) is io.TextIOWrapper:
            stream.reconfigure(errors="replace")


def secure_output() -> None:
    """Make the output and the errors of this program `Output`s; twice does no harm.

    A run must not be lost to the closed pipe of `| head`, to a full disk below a log file, or to a terminal in ASCII.
    """
    replace_characters()
    for name in STREAMS:
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            setattr(sys, name, Output(stream.fileno(), stream.encoding))
