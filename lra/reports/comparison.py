"""Which of two trained models is better on the same test examples: McNemar's exact test, and ranks that it supports.

Of the examples that only one of two models classifies rightly, as many should be one's as the other's if they are
equally good (McNemar 1947; exact, so a two-sided binomial test). It speaks of trained models. Several seeds give many
pairs, whose p-values depend on one another through the test set: twice their mean is a p-value whatever the dependence
(Vovk and Wang 2020, Biometrika 107). Whether another seed would agree, the interval over seeds says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lra.errors import InputError
from lra.records.arrays import Packed
from lra.records.collection import load_packed
from lra.records.record import LABELS, RunRecord, tested
from lra.reports.leaderboard import leaderboard
from lra.reports.names import TABLE_COLUMNS, data_name, label, scale_order
from lra.reports.report import TO, Report, Table, each

LEVEL = 0.05
Right = Mapping[int, NDArray[np.bool_]]  # by seed, whether each test example was classified rightly


@dataclass(frozen=True)
class Pair:
    """Two models on one test set.

    Attributes:
        only_a: examples that a alone classifies rightly, summed over the pairs of seeds.
        only_b: likewise.
        seeds: those that both have.
        p: of the hypothesis that they are equally good.
    """

    only_a: int
    only_b: int
    seeds: tuple[int, ...]
    p: float


@dataclass
class Place:
    """What can be compared: one task, data, scale, protocol and device.

    Attributes:
        title, note: what it is.
        labels: the true classes of the test examples.
        floors: the classes that rules without a model predict, by their names.
        predicted: classes by mechanism and settings, and by seed.
        floor: the name in `predicted` of the best of the floors.
    """

    title: str
    note: str
    labels: NDArray[np.uint8]
    floors: dict[str, NDArray[np.uint8]]
    predicted: dict[str, dict[int, NDArray[np.uint8]]] = field(default_factory=dict)
    floor: str | None = None

    def add_floor(self) -> None:
        """Put the best of the floors among the mechanisms: it predicts the same with every seed of theirs."""
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


def compare(a: Right, b: Right) -> Pair:
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
    return Pair(sum(x for x, _ in counts), sum(y for _, y in counts), seeds, p)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def compare_report(results_dir: Path, records: Sequence[RunRecord], a: str = "", b: str = "") -> Report:
    """Compare two mechanisms, or rank all, wherever they ran on the same data at the same scale, protocol and device.

    Args:
        results_dir: where the predictions are.
        records: among which to look.
        a: a name of a mechanism; "" for all of them.
        b: likewise.

    Raises:
        InputError: only one is named, one has no records, or no two can be compared.
    """
    if bool(a) != bool(b) or (a and a == b):
        raise InputError("compare needs two different names, a=... and b=..., or none for a ranking of all.")
    known = sorted({run.attn for run in records})
    for name in (a, b):
        if name and name not in known:
            raise InputError(f"There is no record of attn={name!r} here. There are: {', '.join(known) or 'none'}.")
    chosen = [run for run in records if run.status == "ok" and (not a or run.attn in (a, b))]
    places, lacking = _places(chosen, load_packed(results_dir, chosen))
    tables, frames = [], []
    for place in places:
        frame = _pairs(place)
        if len(frame):
            frames.append(frame.assign(place=place.title))
            tables.append(_pair_table(place, frame) if a else _ranking(place, frame))
    if not tables:
        reason = f" {lacking[0]}, and {len(lacking) - 1} more." if lacking else ""
        raise InputError(f"No two mechanisms ran on the same data with predictions to compare.{reason}")
    legend = [
        "A floor is the best rule that needs no model, fitted on the train split. Same: the share of the test examples "
        "in the same class.",
        "McNemar's exact test on the same test examples, two-sided; over several seeds twice the mean of the p-values; "
        f"adjusted for the number of pairs in a table (Holm). Significant: below {LEVEL}. It speaks of these trained "
        "models; whether other seeds would agree, the interval of the leaderboard says.",
    ]
    if lacking:
        legend.append(f"Left out, {len(lacking)} runs: {'; '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}.")
    return Report(tables, pd.concat(frames, ignore_index=True), notes=legend)


def _places(records: Sequence[RunRecord], packed: Packed) -> tuple[list[Place], list[str]]:
    """Gather runs by task, data, scale, protocol and device, in each of them by mechanism and settings, and by seed.

    Returns:
        The places, and why runs are in none.
    """
    names = {row.group: label(row.attn, row.settings) for row in each(leaderboard(records))}
    found: dict[tuple[str, ...], Place] = {}
    lacking = []
    for run in records:
        digest = run.data["sha256"]["test"]
        labels, classes = packed.predictions.get((digest, LABELS)), packed.predictions.get((run.key, tested(run)))
        if classes is None or labels is None or len(labels) != len(classes):
            what = "predictions" if classes is None else "true classes of its test examples"
            lacking.append(f"{run.attn}, seed {run.seed} ({run.key}): no {what}")
            continue
        where = (scale_order(run.scale), *(getattr(run, name) for name in TABLE_COLUMNS), run.task, data_name(run))
        title = f"{run.task}, scale={run.scale}, protocol={run.protocol}, on {run.device}"
        place = found.setdefault(where, Place(title, f"Data: {data_name(run)}.", labels, packed.floors(digest)))
        place.predicted.setdefault(names[run.group], {})[run.seed] = classes
    places = [place for _, place in sorted(found.items(), key=lambda item: item[0])]
    for place in places:
        place.add_floor()
    return places, lacking


def _pairs(place: Place) -> pd.DataFrame:
    rows = []
    for a, b in combinations(place.predicted, 2):
        first, second = place.predicted[a], place.predicted[b]
        if not first.keys() & second.keys():
            continue
        pair = compare(place.right(a), place.right(b))
        rows.append(
            {"a": a, "b": b, "accuracy_a": place.accuracy(a, pair.seeds), "accuracy_b": place.accuracy(b, pair.seeds),
             "same": float(np.mean([(first[seed] == second[seed]).mean() for seed in pair.seeds])),
             "only_a": pair.only_a, "only_b": pair.only_b, "seeds": " ".join(map(str, pair.seeds)), "p": pair.p}
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    if rows:
        frame["p_adjusted"] = holm(frame["p"].tolist())
        signs = np.sign(frame["only_a"] - frame["only_b"])
        frame["better"] = [
            "" if p >= LEVEL or sign == 0 else a if sign > 0 else b
            for a, b, p, sign in zip(frame["a"], frame["b"], frame["p_adjusted"], signs, strict=True)
        ]
    return frame


def _pair_table(place: Place, frame: pd.DataFrame) -> Table:
    head = ["a", "b", "a %", "b %", "same %", "only a right", "only b right", "seeds", "p", "p adjusted", "better"]
    lines = [
        [row.a, row.b, f"{100 * row.accuracy_a:.1f}", f"{100 * row.accuracy_b:.1f}", f"{100 * row.same:.1f}",
         f"{row.only_a:,}", f"{row.only_b:,}", row.seeds, f"{row.p:.2g}", f"{row.p_adjusted:.2g}",
         row.better or "not significant"]
        for row in each(frame)
    ]  # fmt: skip
    return Table(place.title, head, lines, [place.note])


def _ranking(place: Place, frame: pd.DataFrame) -> Table:
    """Give a mechanism the ranks that the test leaves open: from after all that beat it to before all that it beats."""
    accuracies = {name: place.accuracy(name, runs) for name, runs in place.predicted.items()}
    lines = []
    for name in sorted(accuracies, key=lambda name: -accuracies[name]):
        mine = frame[(frame["a"] == name) | (frame["b"] == name)]
        wins = int((mine["better"] == name).sum())
        losses = int((mine["better"] != "").sum()) - wins
        first, last = 1 + losses, len(accuracies) - wins
        ranks = str(first) if first == last else f"{first}{TO}{last}"
        line = [ranks, name, f"{100 * accuracies[name]:.1f}", str(len(place.predicted[name])), str(wins), str(losses)]
        if place.floor:
            same = mine.loc[mine["b"] == place.floor, "same"]  # the floor came last, so it is every pair's b
            line.append(f"{100 * same.item():.1f}" if len(same) == 1 else "")
        lines.append(line)
    head = ["rank", "attn", "accuracy %", "seeds", "better than", "worse than"]
    return Table(place.title, [*head, *(["same as floor %"] if place.floor else [])], lines, [place.note])
