"""Tables from records: python scripts/report.py [verb] [key=value ...].

format=terminal|markdown|latex|csv: terminal on a terminal, else markdown. task= attn= protocol= scale= device= choose
among the records; wandb=entity/project takes them from Weights & Biases. results_dir=results.
"""

from __future__ import annotations

import logging
import os
import sys

from lra.errors import InputError
from lra.machine.terminal import replace_characters
from lra.reports.report import FORMATS, write
from lra.verbs import explain, understand


def main(arguments: list[str]) -> int:
    """Do what the verb says; return the exit code."""
    if {"-h", "--help"} & {*arguments}:
        usage, _, options = (__doc__ or "").partition("\n\n")
        print(f"{usage}\n\n{explain()}\n\n{options.strip()}")
        return 0
    verb, request = understand(arguments)
    if hasattr(verb, "act"):
        return verb.act(request)
    style = request["format"] or ("terminal" if sys.stdout.isatty() else "markdown")
    if style not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}. Got {style!r}.")
    print(write(verb.answer(request), style))
    return 0


if __name__ == "__main__":
    replace_characters()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # the reader, for example `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        sys.exit(str(error))
