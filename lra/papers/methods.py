"""What makes published rows comparable or not: a row of `methods.csv` for each model of each source, and its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

AVERAGE = "avg"
COLOUR = "accuracy_color"
NO_LISTOPS = "accuracy_no_listops"
IMAGE_TASKS = ("image", "pathfinder", "pathx")
FIRST_HAND, RERUN, COPIED, UNSTATED = "first_hand", "rerun", "copied", "unstated"
ORIGINS = {
    FIRST_HAND: "first-hand", RERUN: "re-run", COPIED: "copied", UNSTATED: "origin not stated",
}  # fmt: skip
PRIORS = {"1d": "", "2d": "2-D prior", "2d_inferred": "2-D prior (inferred)"}
ANSWERS = {"yes": True, "no": False}
ORIGIN_LEGEND = (
    "First-hand: run and printed by the authors of the method; re-run: run and printed by others; copied from where it "
    "was printed first. Labels are those of `published/methods.csv`."
)


class Method(NamedTuple):
    """Which method a source's row is, and what tells its numbers from those of others.

    Attributes:
        name: the same for one method in all sources.
        origin: `first_hand`: the authors of the method print what they ran; `rerun`: others print what they ran;
            `copied` from where it was printed first; `unstated`.
        prior: `2d` where the model is told which pixels are neighbours; `2d_inferred` where that is likely; else `1d`.
        pretrained: whether it was pre-trained, if only on the training set of the task.
        average_tasks: how many tasks are behind the printed average; None where there is none.
        failed_as: what a failed task counted in it; None where none did.
        comparable: whether its numbers may be set beside those of others.
        caveat: what else differs; "" for nothing known.
    """

    name: str
    origin: str
    prior: str
    pretrained: bool
    average_tasks: int | None
    failed_as: float | None
    comparable: bool
    caveat: str

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Method:
        """Make one of a row of the file.

        Raises:
            ValueError: a field has none of its values.
        """
        choices = {"origin": [*ORIGINS], "prior": [*PRIORS], "pretrained": [*ANSWERS], "comparable": [*ANSWERS]}
        for column, values in choices.items():
            if row[column] not in values:
                raise ValueError(f"{column} must be one of {', '.join(values)}. Got {row[column]!r}")
        return cls(
            name=row["method"],
            origin=row["origin"],
            prior=row["prior"],
            pretrained=ANSWERS[row["pretrained"]],
            average_tasks=int(row["average_tasks"]) if row["average_tasks"] else None,
            failed_as=float(row["failed_as"]) if row["failed_as"] else None,
            comparable=ANSWERS[row["comparable"]],
            caveat=row["caveat"],
        )

    def has_2d_prior(self, task: str) -> bool:
        """Whether the model has a 2-D prior on a task; an average over tasks has it with any of them."""
        return bool(PRIORS[self.prior]) and task in (*IMAGE_TASKS, AVERAGE)

    def labels(self, task: str, metric: str) -> tuple[str, ...]:
        """Say in a few words what a number of this row is."""
        labels = (
            ORIGINS[self.origin],
            PRIORS[self.prior] if self.has_2d_prior(task) else "",
            "pre-trained" if self.pretrained else "",
            "colour" if metric.startswith(COLOUR) else "",
            self.average_label(metric) if task == AVERAGE else "",
            self.caveat,
            "" if self.comparable else "not comparable",
        )
        return tuple(filter(None, labels))

    def average_label(self, metric: str) -> str:
        """Say what a printed average is of."""
        without = " without ListOps" if metric == NO_LISTOPS else ""
        failed = "" if self.failed_as is None else f", a failed one as {self.failed_as:g}"
        return f"average of {self.average_tasks} tasks{without}{failed}"
