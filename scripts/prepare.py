"""Prepare tasks: python scripts/prepare.py task=all [scale=full] [plot=true] [key=value ...].

`task` is `all`, or names with commas between them. Every other key is one of `configs/`, as on run.py's command line:
`scale=mini`, `cache_dir=...`, `task.data_dir=...` (with a single task). Prepared data are only checked.
`plot=true` draws samples to `<results_dir>/tables/samples-<scale>.png`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from lra.arguments import help_if_asked
from lra.configuration import compose_config, options_of
from lra.errors import InputError
from lra.machine.terminal import secure_output
from lra.reports.report import markdown
from lra.runs.factory import make_task
from lra.runs.schema import resolve
from lra.tasks import Task
from lra.tasks.preview import HEAD, plot, rows


def main(arguments: list[str]) -> int:
    """Prepare the tasks that are named; return the number of those that could not be prepared."""
    if wrong := [word for word in arguments if "=" not in word]:
        raise InputError(f"Unknown argument {wrong[0]!r}: expected key=value, for example task=all.")
    values = dict(word.split("=", 1) for word in arguments)
    task_names, plotting = values.pop("task", "all"), values.pop("plot", "false")
    if plotting not in ("true", "false"):
        raise InputError(f"plot must be true or false. Got {plotting!r}.")
    all_names = options_of("task")
    names = all_names if task_names == "all" else task_names.split(",")
    if unknown := set(names) - set(all_names):
        raise InputError(f"There is no task {', '.join(sorted(unknown))}. Choose all, or from {', '.join(all_names)}.")

    prepared: dict[str, Task] = {}
    for name in names:
        cfg = compose_config(f"task={name}", *(f"{key}={value}" for key, value in values.items()))
        try:
            task = make_task(resolve(cfg))
            task.prepare()
            prepared[name] = task
            print(task.summary(name))
        except InputError as error:
            print(f"{name} could not be prepared: {error}", file=sys.stderr)
    if prepared:
        print(markdown(HEAD, [row for name, task in prepared.items() for row in rows(name, task)]))
    if plotting == "true" and prepared:
        path = Path(cfg.results_dir) / "tables" / f"samples-{cfg.scale}.png"
        plot(prepared, path)
        print(f"Samples are drawn in {path}.")
    return len(names) - len(prepared)


if __name__ == "__main__":
    secure_output()
    help_if_asked(__doc__)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        sys.exit(1 if main(sys.argv[1:]) else 0)
    except InputError as error:
        sys.exit(str(error))
