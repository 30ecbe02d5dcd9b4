"""Tables from records: python scripts/report.py [verb] [key=value ...].

show, leaderboard   task x attn: mean, interval, n, failures, floors (the default)
table=NAME          a paper's table, or an experiment's, beside ours
cost                accuracy, time, memory, operations and parameters of every run; the Pareto front marked
failures            what ended otherwise than ok, never ended, or had no data
ranks               whether each scale ranks mechanisms as the published tables do
coverage            which runs of every experiment exist, and which are of none; experiment=NAME for one alone
retests             runs tested again on other examples, by `scripts/retest.py`
compare             ranks as far as McNemar's test supports them; a=NAME b=NAME for two mechanisms in detail
collect             merge the finished records of `runs/`, curves and predictions into `measured/`, which is committed
import from=FOLDER  merge somebody else's records into `measured/`
tables              rewrite `tables/`, with a figure of each leaderboard, from `measured/` and `published/` alone
figures             draw the leaderboard, accuracy against cost, learning curves and seeds into `figures/`
page                write `leaderboard.html`: tables, plots and every run, in one file that needs no network
watch               what runs now and when it may end, what ended and what failed; once=true prints it once

format=terminal|markdown|latex|csv: terminal on a terminal, else markdown. task= attn= protocol= scale= device= choose
among the records; wandb=entity/project takes them from Weights & Biases. results_dir=results.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lra.arguments import help_if_asked, parse
from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.figures.page.page import write_page
from lra.figures.runs import board, write_figures
from lra.figures.style import save
from lra.files import write_atomically
from lra.papers.published import load_models, load_tables
from lra.papers.ranks import rank_report
from lra.papers.tables import paper_report
from lra.records.collection import (
    FILTERS,
    collect,
    import_records,
    load_measured,
    load_records,
    load_retests,
    select,
    unfinished,
)
from lra.records.missing_data import load_missing
from lra.records.record import RunRecord
from lra.records.wandb_mirror import load_online
from lra.reports.comparison import compare_report
from lra.reports.costs import cost_report
from lra.reports.coverage import coverage
from lra.reports.experiments import choose, load_experiments
from lra.reports.failures import failure_report
from lra.reports.leaderboard import leaderboard_report
from lra.reports.names import comparable
from lra.reports.report import FORMATS, Report, write
from lra.reports.retests import retest_report
from lra.reports.watch import watch

OPTIONS = ("format", "table", "experiment", "a", "b", "from", "wandb", "once", *FILTERS)
VERBS = (
    "show",
    "leaderboard",
    "cost",
    "failures",
    "coverage",
    "ranks",
    "retests",
    "compare",
    "collect",
    "import",
    "tables",
    "page",
    "figures",
    "watch",
)


def main(arguments: list[str]) -> int:
    """Do what the verb says; return the exit code."""
    verb, options = parse(arguments, verbs=VERBS, options={"results_dir": "results", **dict.fromkeys(OPTIONS, "")})
    results_dir = Path(options["results_dir"])
    if verb in ("collect", "import"):
        if verb == "import" and not options["from"]:
            raise InputError("import needs a folder: from=FOLDER.")
        path, count, refused = (
            collect(results_dir) if verb == "collect" else import_records(results_dir, Path(options["from"]))
        )
        print(f"{path} holds {count} records.")
        return int(verb == "import" and refused > 0)
    if verb == "tables":
        rebuild(results_dir)
        return 0
    if verb == "figures":
        print(*write_figures(results_dir, select(load_records(results_dir), options)), sep="\n")
        return 0
    if verb == "page":
        print(write_page(results_dir, select(load_records(results_dir), options)))
        return 0
    if verb == "watch":
        if options["once"] not in ("", "true", "false"):
            raise InputError(f"once must be true or false. Got {options['once']!r}.")
        watch(results_dir, once=options["once"] == "true")
        return 0
    style = options["format"] or ("terminal" if sys.stdout.isatty() else "markdown")
    if style not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}. Got {style!r}.")
    print(write(answer(verb, options, results_dir), style))
    return 0


def answer(verb: str, options: dict[str, str], results_dir: Path) -> Report:
    """Answer a question to the records."""
    records = load_online(options["wandb"]) if options["wandb"] else load_records(results_dir)
    records = select(records, options)
    if verb == "cost":
        return cost_report(records)
    if verb == "compare":
        return compare_report(results_dir, records, options["a"], options["b"])
    if verb == "retests":
        return retest_report(load_retests(results_dir), records)
    if verb == "ranks":
        return ranks(records, results_dir)
    if verb in ("failures", "coverage"):
        begun, missing = unfinished(results_dir), load_missing(results_dir)
        if verb == "failures":
            return failure_report(records, unfinished=begun, missing=missing)
        experiments = load_experiments(CONFIGS / "experiment")
        name = options["experiment"]
        wanted = [choose(experiments, name)] if name else list(experiments.values())
        return coverage(wanted, records, unfinished=begun, missing=missing, others=not name)
    if options["table"]:
        return paper_table(options["table"], records, results_dir)
    return leaderboard_report(records)


def paper_table(name: str, records: Sequence[RunRecord], results_dir: Path) -> Report:
    """Set one table of `published/tables.csv` beside ours.

    Raises:
        InputError: there is none of this name.
    """
    known = load_tables(results_dir)
    if name not in known:
        raise InputError(f"There is no table {name!r}. Choose from {', '.join(known)}.")
    table = known[name]
    experiment = choose(load_experiments(CONFIGS / "experiment"), table.experiment) if table.experiment else None
    return paper_report(table, load_models(results_dir), experiment, records, results_dir / "benchmarks")


def ranks(records: Sequence[RunRecord], results_dir: Path) -> Report:
    """Compare the ranks of mechanisms with those of every published table of accuracies."""
    tables, experiments = load_tables(results_dir), load_experiments(CONFIGS / "experiment")
    return rank_report(list(tables.values()), load_models(results_dir), experiments, records)


def rebuild(results_dir: Path) -> None:
    """Write every table as Markdown, and where something is measured as CSV with the keys of the records behind it."""
    records = load_measured(results_dir)
    experiments = load_experiments(CONFIGS / "experiment")
    made: dict[str, Callable[[], Report]] = {
        "leaderboard": lambda: leaderboard_report(records),
        "cost": lambda: cost_report(records),
        "ranks": lambda: ranks(records, results_dir),
        "coverage": lambda: coverage(list(experiments.values()), records, others=True),
        "retests": lambda: retest_report(load_retests(results_dir, collected_alone=True), records),
        **{name: lambda name=name: paper_table(name, records, results_dir) for name in load_tables(results_dir)},  # type: ignore[misc]
    }
    folder = results_dir / "tables"
    try:
        for name, make in made.items():
            report = make()
            write_atomically(folder / f"{name}.md", write(report, "markdown") + "\n")
            if name != "coverage" and any(report.frame.get("key", report.frame.get("keys", []))):
                write_atomically(folder / f"{name}.csv", write(report, "csv") + "\n")
        for place, mine in comparable(records).items():
            if len({run.attn for run in mine}) > 1:
                save(board(mine), folder / f"board-{'-'.join(place)}")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    print(f"{len(made)} tables in {folder} are rebuilt from {len(records)} records.")


if __name__ == "__main__":
    help_if_asked(__doc__)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever reads, `head` for one, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        sys.exit(str(error))
