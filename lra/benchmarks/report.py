"""What was measured, to look at: every table in one file, and the figures of `lra.figures.benchmarks`."""

from __future__ import annotations

import json
from pathlib import Path

from lra.benchmarks.targets import TARGETS
from lra.benchmarks.timing import Row
from lra.errors import InputError
from lra.figures import benchmarks as plots
from lra.files import write_atomically


def write(folder: Path) -> None:
    """Make `tables.md` and the figures from the rows in a folder."""
    files = sorted(path for path in folder.glob("*.jsonl") if path.stem.partition("-")[2] in TARGETS)
    if not files:
        raise InputError(f"There are no rows in {folder.resolve()}. Measure something first, with out={folder}.")
    blocks = []
    for path in files:
        rows: list[Row] = [json.loads(line) for line in path.read_text().splitlines()]
        name = path.stem.partition("-")[2]
        blocks.append(f"## {path.stem}\n\n{_about(rows)}\n\n```\n{TARGETS[name].render(rows)}\n```\n")
        for made in plots.draw(name, rows, folder, path.stem):
            print(made)
    target = folder / "tables.md"
    title = "# Tables of the benchmarks\n\nMade by `python scripts/benchmark.py report` of the rows beside this file.\n"
    write_atomically(target, "\n".join([title, *blocks]))
    print(target)


def _about(rows: list[Row]) -> str:
    first = rows[0]
    environment = ", ".join(f"{key} {value}" for key, value in first["environment"].items())
    return f"{environment}; commit `{first['commit']}`, {first['date'] or 'date not kept'}."
