"""What was measured, to look at: every table in one file, and the figures of `lra.figures.benchmarks`."""

from __future__ import annotations

from pathlib import Path

from lra.benchmarks.targets import TARGETS
from lra.errors import InputError
from lra.figures import benchmarks as figures
from lra.files import write_atomically
from lra.records.benchmark_rows import Origin, load_rows, target_of


def write(folder: Path) -> None:
    """Make `tables.md` and the figures from the rows in a folder.

    Raises:
        InputError: no file of the folder has rows that can be read.
    """
    blocks = []
    for path in sorted(filter(target_of, folder.glob("*.jsonl"))):
        rows, target = load_rows(path), target_of(path)
        if rows:
            table = TARGETS[target].render(rows)
            blocks.append(f"## {path.stem}\n\n{_about(rows[0].origin)}\n\n```\n{table}\n```\n")
            for made in figures.draw(target, rows, folder, path.stem):
                print(made)
    if not blocks:
        raise InputError(f"There are no rows in {folder.resolve()}. Measure something first, with out={folder}.")
    title = "# Tables of the benchmarks\n\nMade by `python scripts/benchmark.py report` of the rows beside this file.\n"
    write_atomically(folder / "tables.md", "\n".join([title, *blocks]))
    print(folder / "tables.md")


def _about(origin: Origin) -> str:
    environment = ", ".join(f"{key} {value}" for key, value in origin.environment.items())
    return f"{environment}; commit `{origin.commit}`, {origin.date or 'date not kept'}."
