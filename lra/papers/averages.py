"""Averages over the tasks, recomputed from the figures that a source prints for a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lra.papers.methods import AVERAGE, COLOUR, NO_LISTOPS
from lra.papers.published import NOT_A_NUMBER, PublishedNumber

SIX = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
FIVE = SIX[:-1]


@dataclass(frozen=True)
class PaperRow:
    """What a source prints for a model.

    Attributes:
        numbers: accuracies by task; that of Image may be of colour images.
        printed: its own average; None where it prints none.
    """

    numbers: Mapping[str, PublishedNumber]
    printed: PublishedNumber | None

    @property
    def any(self) -> PublishedNumber:
        """One of its numbers: for what they share."""
        return self.printed or next(iter(self.numbers.values()))

    def mean(self, tasks: Sequence[str]) -> float | None:
        """Average accuracies; None unless every task has one, Image of grey images."""
        numbers = [self.numbers[task] for task in tasks if task in self.numbers]
        values = [n.value for n in numbers if n.value is not None and n.metric != COLOUR]
        return sum(values) / len(tasks) if len(values) == len(tasks) else None

    def text(self, tasks: Sequence[str]) -> str:
        """Print the average over tasks, FAIL if it has none for a failure alone; "" where figures are lacking."""
        if (mean := self.mean(tasks)) is not None:
            return text_of(mean)
        statuses = {self.numbers[task].status if task in self.numbers else "" for task in tasks}
        return NOT_A_NUMBER["fail"] if statuses == {"fail", "reported"} else ""

    @property
    def recomputed(self) -> float | None:
        """The average over the tasks behind the printed one, failures counted as there; None if it cannot be had."""
        if self.printed is None:
            return None
        every = SIX[1:] if self.printed.metric == NO_LISTOPS else SIX
        tasks = every if self.printed.method.average_tasks == len(every) else every[:-1]
        numbers = [self.numbers.get(task) for task in tasks]
        failed_as = self.printed.method.failed_as
        values = [failed_as if number is None or number.value is None else number.value for number in numbers]
        known = [value for value in values if value is not None]
        return sum(known) / len(tasks) if len(known) == len(tasks) else None

    @property
    def is_misprinted(self) -> bool:
        """Whether the printed average is another than the recomputed one, by more than rounding or cutting."""
        if self.printed is None or self.printed.value is None or self.recomputed is None:
            return False
        unit = 10.0 ** -len(self.printed.printed.partition(".")[2])
        return abs(self.recomputed - self.printed.value) > unit + 1e-9


def paper_rows(numbers: Iterable[PublishedNumber]) -> list[PaperRow]:
    """Gather the accuracies of every model of every source, in the order of the file.

    Of one task's numbers in several tables of a source the first counts, and grey images before colour.
    """
    rows: dict[tuple[str, str], dict[str, PublishedNumber]] = {}
    for number in sorted(numbers, key=lambda number: number.metric == COLOUR):
        if number.metric in ("accuracy", COLOUR, NO_LISTOPS) and number.task in (*SIX, AVERAGE) and not number.length:
            rows.setdefault((number.source, number.model), {}).setdefault(number.task, number)
    return [PaperRow({task: row[task] for task in SIX if task in row}, row.get(AVERAGE)) for row in rows.values()]


def text_of(mean: float) -> str:
    """Print an average of figures with few decimals; a half is rounded up, as in the papers."""
    return f"{mean + 1e-9:.2f}"
