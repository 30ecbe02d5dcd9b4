"""Tables from records: python scripts/report.py [show | collect | tables] [results_dir=results].

show (the default) prints the leaderboard of every record; collect merges the finished records of `runs/` into
`measured/`, which is committed; tables rewrites `tables/` from `measured/` alone.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from lra.arguments import parse
from lra.errors import InputError
from lra.record import write_atomically
from lra.tables import collect, load_measured, load_records, render


def main(arguments: list[str]) -> None:
    """Do what the verb says."""
    verb, options = parse(arguments, verbs=("show", "collect", "tables"), options={"results_dir": "results"})
    results_dir = Path(options["results_dir"])
    if verb == "show":
        print(render(load_records(results_dir)))
    elif verb == "collect":
        path, count = collect(results_dir)
        print(f"{path} holds {count} records.")
    else:
        path = results_dir / "tables" / "leaderboard.md"
        write_atomically(path, render(load_measured(results_dir)) + "\n")
        print(f"{path} is rebuilt.")


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
