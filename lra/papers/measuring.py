"""Measures a metric of a paper's table on our runs: its value and error, and what differs from the paper's runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lra.papers.published import Metric
from lra.records.record import RunRecord, accuracy_of
from lra.reports.costs import times_count
from lra.reports.leaderboard import Accuracy, Standing, leaderboard

OWN_DATA = ("generated", "aan-mini")  # sources whose test examples are not the papers'


@dataclass(frozen=True)
class Ours:
    """Our measurement of a metric, in the papers' unit.

    Attributes:
        value: None where no run ended ok.
        text: for a cell: the value with its interval, or what went wrong.
        low, high: of the 95 % interval, where there is one.
        n: the number of runs; None if no training run measured it.
        learned: runs that learned, on tasks where not all do.
        tested: which weights, `best` or `last`.
        own_test: the size of our test set where the paper has another, assumed to be as large; else 0.
        remarks: differences from the paper's runs.
        keys: of the records behind it; or the benchmark's file.
    """

    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    learned: int | None = None
    tested: str | None = None
    device: str | None = None
    data: str | None = None
    own_test: int = 0
    remarks: str = ""
    keys: str = ""

    @property
    def accuracy(self) -> Accuracy | None:
        """The value with its interval, in percent; None where there is none."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return Accuracy(self.value, self.low, self.high)


@dataclass(frozen=True)
class Measurement:
    """A metric of runs that differ in their seed alone."""

    standing: Standing
    ours: Ours

    @property
    def name(self) -> tuple[str, str]:
        """Mechanism and task."""
        return self.standing.attn, self.standing.task

    @property
    def scale(self) -> str:
        """The scale of the runs."""
        return self.standing.setting.scale


def measure(records: Sequence[RunRecord], metric: Metric) -> list[Measurement]:
    """Measure a metric on every group of runs that has it; groups with settings of their own come last."""
    measurements = []
    for standing in leaderboard(records):
        if metric.is_accuracy:
            measurements.append(Measurement(standing, _accuracy(standing)))
        elif metric.measure:
            finished = [run for run in standing.runs if accuracy_of(run) is not None]
            if costs := [cost for run in finished if (cost := metric.measure(run)) is not None]:
                measurements.append(Measurement(standing, _cost(standing, costs, metric.is_time)))
    return sorted(measurements, key=lambda measurement: measurement.standing.own != "")


def _accuracy(standing: Standing) -> Ours:
    mean, low, high = standing.accuracy or (None, None, None)
    return replace(
        _described(standing),
        value=None if mean is None else 100 * mean,
        low=None if low is None else 100 * low,
        high=None if high is None else 100 * high,
        n=standing.n,
        text=standing.cell,
        own_test=_own_test(standing.runs[0]),
    )


def _cost(standing: Standing, values: Sequence[float], is_time: bool) -> Ours:
    mean = sum(values) / len(values)
    ours = _described(standing)
    loaded = "times beside other work" if is_time and not all(map(times_count, standing.runs)) else ""
    remarks = "; ".join(filter(None, [ours.remarks, loaded]))
    return replace(ours, value=mean, n=len(values), text=f"{mean:,.2f} (n={len(values)})", remarks=remarks)


def _described(standing: Standing) -> Ours:
    """Describe runs, whatever is measured of them."""
    setting = standing.setting
    device = "" if setting.device == "cuda" else setting.device
    remarks = [_data_remark(standing.runs[0]), standing.own, standing.settings, device]
    return Ours(
        None, "", learned=standing.learned, tested=standing.tested, device=setting.device, data=standing.data,
        remarks="; ".join(filter(None, remarks)), keys=standing.keys,
    )  # fmt: skip


def _own_test(run: RunRecord) -> int:
    """Return the size of a test set of our own, at the published scale as large as the paper's; 0 for the paper's."""
    return run.data["sizes"]["test"] if run.data["source"] in OWN_DATA else 0


def _data_remark(run: RunRecord) -> str:
    """Name data that are not the released ones."""
    source, variant = run.data["source"], run.data["variant"]
    if source in OWN_DATA:
        return f"{source} data"
    return variant.split(", ", 1)[1] if ", not the official" in variant else ""
