"""Renew the keys of a results folder: python scripts/rekey.py [results_dir=results].

Needed once for a folder whose runs are from the time when a key depended on where classes live. Without it the same
commands would train those runs again. It rewrites `measured/` and `runs/`, and changes nothing if all keys are right.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lra.arguments import help_if_asked, parse_several
from lra.errors import InputError
from lra.machine.terminal import secure_output
from lra.runs.rekeying import rekey


def main(arguments: list[str]) -> None:
    """Renew the keys, and say how many."""
    _, options = parse_several(arguments, verbs=(), options=("results_dir",))
    results_dir = Path(options.get("results_dir", "results"))
    if not results_dir.is_dir():
        raise InputError(f"There is no results folder {results_dir.resolve()}. Name another with results_dir=.")
    print(f"{len(rekey(results_dir))} runs in {results_dir} have a new key.")


if __name__ == "__main__":
    secure_output()
    help_if_asked(__doc__)
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
