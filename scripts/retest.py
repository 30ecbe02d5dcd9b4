"""Test trained runs again: python scripts/retest.py task=listops scale=mini task.data_seed=1 task.num_test=50000.

task.NAME=VALUE     a changed setting of the task. Another `data_seed` gives other examples, `num_test` more,
                    `max_depth` (with another `data_seed`) harder ones, `length` longer ones; without any change the
                    test is repeated. Of several values, as in `task.length=512,1024,2048`, each is tested
task= attn= protocol= scale= key=
                    which of the finished runs in `results_dir`, by name, or by the key that is their folder's name
device=             where to test: cpu, cuda, or auto
task.data_dir= results_dir=results cache_dir=
                    where raw files, runs and prepared data are

Needs the weights that a run leaves in its folder. A test that was done is not done again. `python scripts/report.py
retests` prints the results, `python scripts/report.py length` those over lengths.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lra.arguments import help_if_asked, parse, repeating
from lra.errors import InputError
from lra.machine.devices import claimed_device
from lra.machine.stopping import stoppable
from lra.machine.terminal import secure_output
from lra.records.collection import FILTERS, load_records, select
from lra.records.folder import RunFolder
from lra.records.record import RunRecord
from lra.records.retest_record import Retest
from lra.reports.report import write
from lra.reports.retests import retest_report
from lra.runs.retest import Tasks, retest

CHANGE, DATA_DIR = "task.", "data_dir"
OPTIONS = {**dict.fromkeys((*FILTERS, "key", "cache_dir"), ""), "device": "auto", "results_dir": "results"}

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Test every chosen run, and print the results beside the runs' own; return 1 if one could not be tested."""
    located, changes = parse_changes([word for word in arguments if word.startswith(CHANGE)])
    _, options = parse([word for word in arguments if not word.startswith(CHANGE)], verbs=("",), options=OPTIONS)
    results_dir = Path(options["results_dir"])
    runs = choose(results_dir, options)
    all_tasks = [Tasks(change, located, options["cache_dir"] or None) for change in changes]
    command = repeating("scripts/retest.py", arguments)
    retests: list[Retest] = []
    failures = []
    with claimed_device(options["device"]) as device:
        for tasks, (folder, run) in product(all_tasks, runs.items()):
            try:
                tasks.of(run)  # may take long, and must end at once on Ctrl-C, so it is outside `stoppable`
                with stoppable() as stop:
                    retests.append(retest(run, folder, tasks, device=device, command=command, stop=stop))
            except InputError as error:
                failures.append(str(error))
    if retests:
        print(write(retest_report(retests, list(runs.values())), "terminal"))
    for failure in failures:
        log.error("Not tested: %s", failure)
    return int(bool(failures))


def parse_changes(words: list[str]) -> tuple[str | None, list[dict[str, Any]]]:
    """Read `task.name=value` or `task.name=value,value`, each value as YAML.

    Returns:
        The folder of raw files, None where it was not given; and every combination of the others' values.

    Raises:
        InputError: a word has no value, or one that is none of a setting.
    """
    values: dict[str, list[Any]] = {}
    for word in words:
        name, equals, text = word.removeprefix(CHANGE).partition("=")
        try:
            read = [yaml.safe_load(part) for part in ([text] if name == DATA_DIR else text.split(","))]
        except yaml.YAMLError:
            read = [[text]]
        if not equals or any(isinstance(value, list | dict) for value in read):
            raise InputError(f"Unknown argument {word!r}: expected task.name=value, for example task.num_test=50000.")
        values[name] = list(dict.fromkeys(read))
    (data_dir,) = values.pop(DATA_DIR, [None])
    return data_dir, [dict(zip(values, combined, strict=True)) for combined in product(*values.values())]


def choose(results_dir: Path, options: Mapping[str, str]) -> dict[RunFolder, RunRecord]:
    """Find the finished runs that the options name and that have a folder; baselines only if they are asked for.

    Raises:
        InputError: there are none.
    """
    named = select(load_records(results_dir), {**options, "device": ""})
    ok = [run for run in named if run.status == "ok" and options["key"] in ("", run.key)]
    if not (options["key"] or options["attn"]):
        ok = [run for run in ok if not run.is_baseline]
    with_folder = {folder: run for run in ok if (folder := RunFolder.of(results_dir, run)).path.is_dir()}
    if not with_folder:
        raise InputError(
            f"{results_dir.resolve()} has {len(ok)} finished runs of that name or key, and none with its folder in "
            "runs/, where its weights are; collected records have none. Train one first, with run.py."
        )
    return with_folder


if __name__ == "__main__":
    secure_output()
    help_if_asked(__doc__)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        sys.exit(main(sys.argv[1:]))
    except (InputError, KeyboardInterrupt) as error:
        sys.exit(str(error) or "Stopped.")
