"""Which of two trained models is better on the same test examples: McNemar's exact test, and ranks that it supports.

If two models are equally good, each should be right on half of the examples on which only one of them is (McNemar 1947;
exact, so a two-sided binomial test). The test is about the trained models; whether another seed would agree, the
interval over seeds says. Several seeds give several p-values, which depend on one another through the test set: twice
their mean is a p-value whatever the dependence (Vovk and Wang 2020, Biometrika 107).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lra.errors import InputError
from lra.records.arrays import Packed
from lra.records.collection import load_packed
from lra.records.record import LABELS, RunRecord, tested
from lra.reports.leaderboard import leaderboard
from lra.reports.names import Setting, data_name
from lra.reports.report import TO, Report, Table

LEVEL = 0.05
LEGEND = (
    "A floor is the best rule that needs no model, fitted on the train split. Same: the share of the test examples in "
    "the same class.",
    "McNemar's exact test on the same test examples, two-sided; over several seeds twice the mean of the p-values; "
    f"adjusted for the number of pairs in a table (Holm). Significant: below {LEVEL}. It speaks of these trained "
    "models; whether other seeds would agree, the interval of the leaderboard says.",
)
Right = Mapping[int, NDArray[np.bool_]]  # by seed, whether each test example was classified rightly


@dataclass(frozen=True)
class PairedTest:
    """McNemar's test of two mechanisms on one test set.

    Attributes:
        only_a: examples that only a classifies rightly, summed over the seeds.
        only_b: the same for b.
        seeds: those that both have.
        p: the p-value of the hypothesis that they are equally good.
    """

    only_a: int
    only_b: int
    seeds: tuple[int, ...]
    p: float


@dataclass(frozen=True)
class Duel:
    """Two mechanisms of a contest.

    Attributes:
        accuracy_a, accuracy_b: means over the seeds that both have.
        same: the share of the test examples that both put into the same class.
        test: of the difference.
        p_adjusted: the test's p-value, adjusted for the number of duels of the contest.
    """

    a: str
    b: str
    accuracy_a: float
    accuracy_b: float
    same: float
    test: PairedTest
    p_adjusted: float = 1.0

    @property
    def better(self) -> str:
        """The name of the one that is significantly better; "" if neither is."""
        if self.p_adjusted >= LEVEL or self.test.only_a == self.test.only_b:
            return ""
        return self.a if self.test.only_a > self.test.only_b else self.b


@dataclass
class Contest:
    """Mechanisms that can be compared: one task, data set and setting.

    Attributes:
        setting, task, data, digest: scale, protocol and device; the task; its data, and the checksum of the test split.
        labels: the true classes of the test examples.
        floors: the classes that rules without a model predict, by their names.
        predicted: predicted classes, by mechanism and settings and then by seed.
        keys: of the runs, likewise.
        floor: the name in `predicted` of the best of the floors.
    """

    setting: Setting
    task: str
    data: str
    digest: str
    labels: NDArray[np.uint8]
    floors: dict[str, NDArray[np.uint8]]
    predicted: dict[str, dict[int, NDArray[np.uint8]]] = field(default_factory=dict)
    keys: dict[str, dict[int, str]] = field(default_factory=dict)
    floor: str | None = None

    @property
    def title(self) -> str:
        """Task and setting, for the title of a table."""
        return f"{self.task}, {self.setting.title}"

    @property
    def note(self) -> str:
        """The data, to stand beneath it."""
        return f"Data: {self.data}."

    def add_floor(self) -> None:
        """Add the best of the floors to the mechanisms, with the same predictions for each of their seeds."""
        if self.floors:
            best = max(self.floors, key=lambda name: (self.floors[name] == self.labels).mean())
            seeds = {seed for runs in self.predicted.values() for seed in runs}
            self.floor = f"floor: {best}"
            self.predicted[self.floor] = dict.fromkeys(seeds, self.floors[best])

    def right(self, name: str) -> Right:
        """Say which examples a mechanism classified rightly."""
        return {seed: classes == self.labels for seed, classes in self.predicted[name].items()}

    def accuracy(self, name: str, seeds: Iterable[int]) -> float:
        """Return the mean accuracy over some seeds."""
        return float(np.mean([(self.predicted[name][seed] == self.labels).mean() for seed in seeds]))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p-value of the examples on which exactly one of two models is right."""
    trials, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1
    for successes in range(fewer):
        term = term * (trials - successes) // (successes + 1)
        tail += term
    return min(1.0, 2 * tail / 2**trials)


def compare(a: Right, b: Right) -> PairedTest:
    """Compare two mechanisms over the seeds that both have.

    Raises:
        InputError: there is no such seed.
    """
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        raise InputError(f"They share no seed: one has {sorted(a)}, the other {sorted(b)}.")
    counts = [(int((a[seed] & ~b[seed]).sum()), int((b[seed] & ~a[seed]).sum())) for seed in seeds]
    ps = [mcnemar(*count) for count in counts]
    p = ps[0] if len(ps) == 1 else min(1.0, 2 * sum(ps) / len(ps))
    return PairedTest(sum(x for x, _ in counts), sum(y for _, y in counts), seeds, p)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def compare_report(results_dir: Path, records: Sequence[RunRecord], a: str = "", b: str = "") -> Report:
    """Compare two mechanisms, or rank all, wherever they ran on the same data at the same scale, protocol and device.

    Args:
        results_dir: where the predictions are.
        records: among which to look.
        a: a name of a mechanism; "" for all of them.
        b: another one.

    Raises:
        InputError: only one is named, one has no records, or no two can be compared.
    """
    if bool(a) != bool(b) or (a and a == b):
        raise InputError("compare needs two different names, a=... and b=..., or none for a ranking of all.")
    attns = sorted({run.attn for run in records})
    for name in (a, b):
        if name and name not in attns:
            raise InputError(f"There is no record of attn={name!r} here. There are: {', '.join(attns) or 'none'}.")
    finished = [run for run in records if run.status == "ok" and (not a or run.attn in (a, b))]
    contests, lacking = gather(finished, load_packed(results_dir, finished))
    tables, frame_rows = [], []
    for contest in contests:
        contest.add_floor()
        if duels := _duels(contest):
            frame_rows += [_frame_row(contest, duel) for duel in duels]
            tables.append(Table.of(contest.title, COLUMNS, duels, [contest.note]) if a else _ranking(contest, duels))
    if not tables:
        reason = f" {lacking[0]}, and {len(lacking) - 1} more." if lacking else ""
        raise InputError(f"No two mechanisms ran on the same data with predictions to compare.{reason}")
    return Report(tables, pd.DataFrame(frame_rows), notes=[*LEGEND, *left_out(lacking)])


def left_out(lacking: Sequence[str]) -> list[str]:
    """Say which runs are in no contest and why, as a note; none where all are in one."""
    if not lacking:
        return []
    return [f"Left out, {len(lacking)} runs: {'; '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}."]


def gather(records: Sequence[RunRecord], packed: Packed) -> tuple[list[Contest], list[str]]:
    """Gather runs by task, data and setting, in each of them by mechanism and settings, and by seed.

    Returns:
        The contests, and why runs are in none.
    """
    labels = {standing.group: standing.label for standing in leaderboard(records)}
    contests: dict[tuple[Setting, str, str], Contest] = {}
    lacking = []
    for run in records:
        digest = run.data["sha256"]["test"]
        truth, classes = packed.predictions.get((digest, LABELS)), packed.predictions.get((run.key, tested(run)))
        if classes is None or truth is None or len(truth) != len(classes):
            absent = "predictions" if classes is None else "true classes of its test examples"
            lacking.append(f"{run.attn}, seed {run.seed} ({run.key}): no {absent}")
            continue
        setting, data = Setting.of(run), data_name(run)
        contest = contests.setdefault(
            (setting, run.task, data),
            Contest(setting, run.task, data, digest, truth, packed.floors(digest)),
        )
        contest.predicted.setdefault(labels[run.group], {})[run.seed] = classes
        contest.keys.setdefault(labels[run.group], {})[run.seed] = run.key
    order = sorted(contests, key=lambda contest: (contest[0].order, contest[1:]))
    return [contests[name] for name in order], lacking


def _duels(contest: Contest) -> list[Duel]:
    """Compare every two mechanisms that share a seed."""
    duels = []
    for a, b in combinations(contest.predicted, 2):
        classes_a, classes_b = contest.predicted[a], contest.predicted[b]
        if classes_a.keys() & classes_b.keys():
            test = compare(contest.right(a), contest.right(b))
            same = float(np.mean([(classes_a[seed] == classes_b[seed]).mean() for seed in test.seeds]))
            accuracies = contest.accuracy(a, test.seeds), contest.accuracy(b, test.seeds)
            duels.append(Duel(a, b, *accuracies, same, test))
    adjusted = holm([duel.test.p for duel in duels])
    return [replace(duel, p_adjusted=p) for duel, p in zip(duels, adjusted, strict=True)]


COLUMNS: dict[str, Callable[[Duel], str]] = {
    "a": lambda duel: duel.a,
    "b": lambda duel: duel.b,
    "a %": lambda duel: f"{100 * duel.accuracy_a:.1f}",
    "b %": lambda duel: f"{100 * duel.accuracy_b:.1f}",
    "same %": lambda duel: f"{100 * duel.same:.1f}",
    "only a right": lambda duel: f"{duel.test.only_a:,}",
    "only b right": lambda duel: f"{duel.test.only_b:,}",
    "seeds": lambda duel: " ".join(map(str, duel.test.seeds)),
    "p": lambda duel: f"{duel.test.p:.2g}",
    "p adjusted": lambda duel: f"{duel.p_adjusted:.2g}",
    "better": lambda duel: duel.better or "not significant",
}


def _frame_row(contest: Contest, duel: Duel) -> dict[str, Any]:
    return {
        "a": duel.a, "b": duel.b, "accuracy_a": duel.accuracy_a, "accuracy_b": duel.accuracy_b, "same": duel.same,
        "only_a": duel.test.only_a, "only_b": duel.test.only_b, "seeds": " ".join(map(str, duel.test.seeds)),
        "p": duel.test.p, "p_adjusted": duel.p_adjusted, "better": duel.better, "place": contest.title,
    }  # fmt: skip


def _ranking(contest: Contest, duels: Sequence[Duel]) -> Table:
    """Give each mechanism the ranks that the test allows: below all that beat it, above all that it beats."""
    accuracies = {name: contest.accuracy(name, runs) for name, runs in contest.predicted.items()}
    rows = []
    for name in sorted(accuracies, key=lambda name: -accuracies[name]):
        own = [duel for duel in duels if name in (duel.a, duel.b)]
        wins = sum(duel.better == name for duel in own)
        losses = sum(duel.better != "" for duel in own) - wins
        highest, lowest = 1 + losses, len(accuracies) - wins
        ranks = str(highest) if highest == lowest else f"{highest}{TO}{lowest}"
        row = [ranks, name, f"{100 * accuracies[name]:.1f}", str(len(contest.predicted[name])), str(wins), str(losses)]
        if contest.floor:
            # The floor was added last, so it is b of every duel.
            shares = [duel.same for duel in own if duel.b == contest.floor]
            row.append(f"{100 * shares[0]:.1f}" if len(shares) == 1 else "")
        rows.append(row)
    head = ["rank", "attn", "accuracy %", "seeds", "better than", "worse than"]
    return Table(contest.title, [*head, *(["same as floor %"] if contest.floor else [])], rows, [contest.note])
