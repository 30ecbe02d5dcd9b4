"""Matches published numbers with measured ones: each number of a paper's table with each group of our runs.

A number of a smaller scale is never subtracted from a published one. Other differences are named in `remarks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lra.papers.measuring import Measurement, Ours, measure
from lra.papers.methods import AVERAGE
from lra.papers.published import METRICS, Models, PaperTable, PublishedNumber, find_model
from lra.records.record import RunRecord
from lra.reports.experiments import Experiment
from lra.reports.own_settings import PUBLISHED_SCALE
from lra.reports.report import MINUS, TIMES
from lra.statistics import sampling_half_width

NOT_AVERAGED = {AVERAGE, "pathx"}


@dataclass(frozen=True)
class Match:
    """A number of a paper's table, and one measurement of ours.

    Attributes:
        table, metric, unit, model, task: of the paper's number; the model is "" where the paper has none.
        attn: our mechanism; "" where we have none, and for averages.
        note: how our mechanism differs from the paper's.
        number: the paper's; None where it has none.
        scale: of our measurement; "" where no training run measured it.
        ours: None where nothing was measured.
        difference: ours less the paper's, as text; None where the two are not comparable.
    """

    table: str
    metric: str
    unit: str
    model: str
    task: str
    attn: str = ""
    note: str = ""
    number: PublishedNumber | None = None
    scale: str = ""
    ours: Ours | None = None
    difference: str | None = None

    @property
    def published(self) -> float | None:
        """The paper's value."""
        return self.number.value if self.number else None

    @property
    def printed(self) -> str:
        """The paper's value as it is printed."""
        return self.number.text if self.number else ""

    @property
    def length(self) -> str:
        """The length at which the paper measured; "" where it has only one."""
        return self.number.length if self.number else ""

    @property
    def text(self) -> str:
        """Our measurement as text; "" where nothing was measured."""
        return self.ours.text if self.ours else ""

    @property
    def remarks(self) -> str:
        """Differences from the paper's runs."""
        return self.ours.remarks if self.ours else ""

    @property
    def paper_error(self) -> float:
        """The sampling error of the paper's test set, in points, if it is not ours and was as large; else 0."""
        if self.published is None or not self.ours or not self.ours.own_test:
            return 0.0
        return 100 * sampling_half_width(self.published / 100, self.ours.own_test)

    def measured(self, scale: str, ours: Ours) -> Match:
        """Add our measurement at a scale; the difference is taken only at the published scale."""
        match = replace(self, scale=scale, ours=ours)
        if scale != PUBLISHED_SCALE:
            return match
        return replace(match, difference=_difference(match, match.paper_error))


def match_table(table: PaperTable, models: Models, experiment: Experiment, records: Sequence[RunRecord]) -> list[Match]:
    """Match a table with records of its protocol.

    Returns:
        For each number, in the order of the table: a match without a measurement if there is none at the published
        scale, and one for each group of runs that measured it. Mechanisms that the paper does not have follow, and
        the averages come last.
    """
    matches = []
    for metric in table.metrics:
        measurements = measure(records, METRICS[metric])
        of_numbers = []
        for number in _numbers(table, models, experiment, metric):
            own = [measurement for measurement in measurements if measurement.name == (number.attn, number.task)]
            of_numbers += _missing(number, own)
            of_numbers += [number.measured(measurement.scale, measurement.ours) for measurement in own]
        matches += of_numbers + _unpublished(table, metric, of_numbers, measurements)
        if METRICS[metric].is_accuracy:
            matches += _averages(table, metric, of_numbers)
    return matches


def begin_match(table: PaperTable, models: Models, number: PublishedNumber) -> Match:
    """Make a match of a published number and our mechanism, without a measurement."""
    model = find_model(models, table.source, number.model, number.task)
    attn, note = (model.attn, model.note) if model else ("", "")
    return Match(table.name, number.metric, number.unit, number.model, number.task, attn, note, number)


def _numbers(table: PaperTable, models: Models, experiment: Experiment, metric: str) -> list[Match]:
    """Begin a match for each number; without a paper, for each task and mechanism of the experiment."""
    if table.source:
        return [begin_match(table, models, number) for number in table.numbers_of(metric) if number.task != AVERAGE]
    return [
        Match(table.name, metric, "percent", attn, task, attn) for task in experiment.tasks for attn in experiment.attns
    ]


def _missing(number: Match, measurements: Iterable[Measurement]) -> list[Match]:
    """Return a match that says that a number was not measured at the published scale, if that is so."""
    if any(measurement.scale == PUBLISHED_SCALE for measurement in measurements):
        return []
    return [replace(number, scale=PUBLISHED_SCALE)]


def _unpublished(
    table: PaperTable, metric: str, matches: Iterable[Match], measurements: Iterable[Measurement]
) -> list[Match]:
    """Match measurements of mechanisms that the paper does not have, on the tasks that it has."""
    numbers = table.numbers_of(metric)
    tasks = {number.task for number in numbers}
    published = {(match.attn, match.task) for match in matches}
    return [
        Match(
            table.name,
            metric,
            numbers[0].unit,
            model="",
            task=measurement.standing.task,
            attn=measurement.standing.attn,
            scale=measurement.scale,
            ours=measurement.ours,
        )
        for measurement in measurements
        if measurement.standing.task in tasks
        and measurement.name not in published
        and not measurement.standing.is_baseline
    ]


def _averages(table: PaperTable, metric: str, matches: Iterable[Match]) -> list[Match]:
    """Average over the tasks that the paper averages, wherever all were measured.

    Of several measurements of a task the first counts: the one without settings of its own.
    """
    numbers = table.numbers_of(metric)
    tasks = sorted({number.task for number in numbers} - NOT_AVERAGED)
    by_model: dict[tuple[str, str], dict[str, Match]] = {}
    for match in matches:
        if match.ours and match.ours.n:
            by_model.setdefault((match.model, match.scale), {}).setdefault(match.task, match)
    averages = []
    for number in numbers:
        for (model, scale), by_task in by_model.items():
            if number.task == AVERAGE and number.model == model and tasks and all(task in by_task for task in tasks):
                average = Match(table.name, metric, number.unit, model, AVERAGE, number=number, scale=scale)
                averages.append(_averaged(average, [by_task[task] for task in tasks]))
    return averages


def _averaged(average: Match, matches: Sequence[Match]) -> Match:
    """Average accuracies over tasks, whose errors are independent."""
    measurements = [match.ours for match in matches if match.ours]
    accuracies = [accuracy for ours in measurements if (accuracy := ours.accuracy)]
    num_tasks = len(accuracies)
    value = sum(accuracy.mean for accuracy in accuracies) / num_tasks
    low = value - math.hypot(*(accuracy.mean - accuracy.low for accuracy in accuracies)) / num_tasks
    high = value + math.hypot(*(accuracy.high - accuracy.mean for accuracy in accuracies)) / num_tasks
    mean = Ours(
        value=value,
        text=f"{value:.1f} [{low:.1f}, {high:.1f}]",
        low=low,
        high=high,
        n=min(ours.n or 0 for ours in measurements),
        remarks="; ".join(dict.fromkeys(ours.remarks for ours in measurements if ours.remarks)),
        keys=" ".join(ours.keys for ours in measurements),
    )
    average = replace(average, ours=mean)
    if average.scale != PUBLISHED_SCALE:
        return average
    paper_error = math.hypot(*(match.paper_error for match in matches)) / num_tasks
    return replace(average, difference=_difference(average, paper_error))


def _difference(match: Match, paper_error: float) -> str:
    """Print ours less the paper's, `*` where it exceeds both errors; of a cost, ours as a multiple of the paper's."""
    ours, published = match.ours, match.published
    if ours is None or ours.value is None or published is None:
        return ""
    if ours.accuracy is None:
        return f"{TIMES} {ours.value / published:.2f}" if published else ""
    mean, low, high = ours.accuracy
    our_error = mean - low if published < mean else high - mean
    mark = "*" if abs(mean - published) > math.hypot(our_error, paper_error) else ""
    return f"{_signed(mean - published)}{mark}"


def _signed(points: float) -> str:
    """Print a number with one decimal and its sign; what rounds to zero is +0.0."""
    sign = MINUS if round(points, 1) < 0 else "+"
    return f"{sign}{abs(points):.1f}"
