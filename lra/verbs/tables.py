"""rewrite `tables/`, with figures of each leaderboard and of accuracy by difficulty, from `measured/` and `published/`
alone
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lra.figures.difficulty import difficulty_figures
from lra.figures.effect import effect_figure
from lra.figures.runs import board
from lra.figures.style import save
from lra.files import write_atomically, writing
from lra.papers.best import records_report
from lra.papers.published import load_tables, read_numbers
from lra.records.arrays import Packed
from lra.records.collection import MEASURED, load_measured, load_retests
from lra.records.record import RunRecord
from lra.reports import backbones
from lra.reports.costs import cost_report
from lra.reports.coverage import coverage
from lra.reports.difficulty import difficulty_report, divides
from lra.reports.leaderboard import leaderboard_report
from lra.reports.names import comparable
from lra.reports.report import Report, write
from lra.reports.retests import retest_report
from lra.verbs import Request
from lra.verbs.effect import effect
from lra.verbs.ranks import ranks
from lra.verbs.show import paper_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIONS = ()
REFERENCE = "s4d"  # the mechanism to which an experiment shows the gap, where it was run
DRAWN = ("listops",)  # tasks whose accuracy by difficulty is drawn; the verb figures draws it for all


def act(request: Request) -> int:
    """Write every table as Markdown, and those with measured values as CSV too, with the keys of their records."""
    records = load_measured(request.results_dir)
    packed = Packed.load((request.results_dir / MEASURED).parent)
    effects = list(_effects(request, records))
    folder = request.results_dir / "tables"
    count = 0
    with writing(folder, "Make it writable."):
        for name, report in [*_reports(request, records, packed), *effects]:
            write_atomically(folder / f"{name}.md", write(report, "markdown") + "\n")
            if name != "coverage" and any(report.frame.get("key", report.frame.get("keys", []))):
                write_atomically(folder / f"{name}.csv", write(report, "csv") + "\n")
            count += 1
        write_atomically(folder / "backbones.md", backbones.markdown())
        for name, figure in _figures(records, packed):
            save(figure, folder / name)
        for name, report in effects:
            save(effect_figure(report.title, report.frame), folder / name)
    print(f"{count} tables in {folder} are rebuilt from {len(records)} records.")
    return 0


def _reports(request: Request, records: list[RunRecord], packed: Packed) -> Iterator[tuple[str, Report]]:
    """Make the reports one by one, with the names of their files."""
    yield "leaderboard", leaderboard_report(records)
    yield "cost", cost_report(records)
    yield "ranks", ranks(request, records)
    yield "records", records_report(read_numbers(request.results_dir))
    yield "coverage", coverage(list(request.experiments().values()), records, others=True)
    yield "retests", retest_report(load_retests(request.results_dir, collected_alone=True), records)
    for name in load_tables(request.results_dir):
        yield name, paper_table(request, name, records)
    for task in sorted({run.task for run in records if divides(run, packed)}):
        yield f"difficulty-{task}", difficulty_report([run for run in records if run.task == task], packed)


def _figures(records: list[RunRecord], packed: Packed) -> Iterator[tuple[str, Figure]]:
    """Draw the figures one by one, with the names of their files."""
    for setting, runs in comparable(records).items():
        if len({run.attn for run in runs}) > 1:
            yield f"board-{setting.stem}", board(runs)
    for task, figure in difficulty_figures([run for run in records if run.task in DRAWN], packed):
        yield f"difficulty-{task}", figure


def _effects(request: Request, records: list[RunRecord]) -> Iterator[tuple[str, Report]]:
    """Make a report of each experiment that sweeps one more setting and has runs with two values of it."""
    for name, experiment in request.experiments().items():
        own = [run for run in records if experiment.has(run)]
        if len({experiment.level(run.config) for run in own}) > 1:
            yield name, effect(request, own, experiment.factor, REFERENCE)
