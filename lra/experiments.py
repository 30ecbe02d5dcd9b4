"""Sets of training runs as `configs/experiment/` has them, and how much of each there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from lra.errors import InputError
from lra.layout import Report, Table
from lra.record import RunRecord
from lra.tables import STATUS_TEXT, scale_order

NO_DATA = "no data"


class Experiment(NamedTuple):
    """A sweep: every task with every mechanism and every seed, under one protocol."""

    name: str
    protocol: str
    tasks: tuple[str, ...]
    attns: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def command(self) -> str:
        """What runs it."""
        return f"python run.py experiment={self.name}"


def load_experiments(folder: Path) -> dict[str, Experiment]:
    """Read the sweeps of `configs/experiment`, in Hydra's own grammar: `a,b`, `range(3)`, `glob(*)`.

    Args:
        folder: the experiments; the folders beside it hold what a glob chooses from.

    Raises:
        InputError: a sweep cannot be read, or is over several protocols.
    """
    experiments = {}
    for path in sorted(folder.glob("*.yaml")):
        params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
        try:
            overrides = OverridesParser.create().parse_overrides([f"{key}={params[key]}" for key in params])
            swept = {override.key_or_group: _swept(override, folder.parent) for override in overrides}
        except HydraException as error:
            raise InputError(f"The sweep of {path} cannot be read: {error}") from error
        if len(swept["protocol"]) != 1:
            raise InputError(
                f"An experiment has one protocol, not {', '.join(swept['protocol'])}: make one of each in {folder}."
            )
        seeds = tuple(int(seed) for seed in swept["seed"])
        experiments[path.stem] = Experiment(path.stem, *swept["protocol"], swept["task"], swept["attn"], seeds)
    return experiments


def _swept(override: Override, configs: Path) -> tuple[str, ...]:
    """List the values that Hydra's sweeper gives a key, in its order."""
    values = override.value()
    if isinstance(values, Glob):
        return tuple(values.filter(sorted(path.stem for path in (configs / override.key_or_group).glob("*.yaml"))))
    return tuple(override.sweep_string_iterator()) if override.is_sweep_override() else (str(values),)


def choose(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """Return one by its name.

    Raises:
        InputError: there is none.
    """
    if name not in experiments:
        raise InputError(f"There is no experiment {name!r}. Choose from {', '.join(experiments)}.")
    return experiments[name]


def coverage(
    experiments: Sequence[Experiment],
    records: Sequence[RunRecord],
    *,
    unfinished: Sequence[Mapping[str, Any]] = (),
    missing: Mapping[tuple[str, str, str], str] | None = None,
    others: bool = False,
) -> Report:
    """Count which runs of experiments exist: a table for each experiment and scale, a cell for each task and mechanism.

    Args:
        experiments: what there should be.
        records: what there is. Runs with settings of their own count too; the number of settings is in the frame.
        unfinished: configurations of runs without a record.
        missing: why data could not be had, by task, protocol and scale.
        others: whether to list the runs that are in none of these experiments too.
    """
    missing = missing or {}
    cells, tables, summary = [], [], []
    for experiment in experiments:
        mine = [run for run in records if run.protocol == experiment.protocol]
        begun = [config for config in unfinished if config["protocol"]["name"] == experiment.protocol]
        scales = {"full", *(run.scale for run in mine), *(str(config["scale"]) for config in begun)}
        scales |= {scale for _, protocol, scale in missing if protocol == experiment.protocol}
        for scale in sorted(scales, key=scale_order):
            found = {
                attn: [_cell(experiment, task, attn, scale, mine, begun, missing) for task in experiment.tasks]
                for attn in experiment.attns
            }
            these = [cell for line in found.values() for cell in line]
            cells += these
            counts = [sum(cell[name] for cell in these) for name in ("ok", "seeds", "not_ok")]
            no_data = [task for task in experiment.tasks if (task, experiment.protocol, scale) in missing]
            summary.append([experiment.name, experiment.protocol, scale, *map(str, counts), ", ".join(no_data)])
            lines = {attn: [cell["text"] for cell in line] for attn, line in found.items()}
            if any(map(any, lines.values())):
                absent = [attn for attn, line in lines.items() if not any(line)]
                tables.append(
                    Table(
                        f"{experiment.name}, scale={scale}",
                        ["attn", *experiment.tasks],
                        [[attn, *line] for attn, line in lines.items() if any(line)],
                        [f"Nothing yet of {', '.join(absent)}."] if absent else [],
                    )
                )
    head = ["experiment", "protocol", "scale", "ended ok", "of", "ended otherwise", "no data"]
    reasons = [
        f"No data for {task}, protocol={protocol}, scale={scale}: {reason}"
        for (task, protocol, scale), reason in missing.items()
        if protocol in {experiment.protocol for experiment in experiments}
    ]
    legend = (
        "Cells: seeds that ended ok, of those the experiment has, then what ended otherwise; empty: nothing ran yet. "
        "`python run.py experiment=NAME scale=SCALE` runs what is lacking. Runs of the same protocol and names count "
        "whatever command they are of."
    )
    if others and (rest := _of_none(experiments, records)):
        heads = ["scale", "protocol", "attn", "task", "ended ok", "ended otherwise"]
        tables.append(Table("Runs of no experiment", heads, rest))
    frame = pd.DataFrame(cells).drop(columns="text", errors="ignore")
    return Report([Table("Runs of experiments", head, summary), *tables], frame, notes=[*reasons, legend])


def _of_none(experiments: Sequence[Experiment], records: Sequence[RunRecord]) -> list[list[str]]:
    """Count the runs that are in none of the experiments, by scale, protocol, mechanism and task."""
    known = {(one.protocol, attn, task) for one in experiments for attn in one.attns for task in one.tasks}
    outside = [run for run in records if (run.protocol, run.attn, run.task) not in known]
    counts = Counter((run.scale, run.protocol, run.attn, run.task, run.status == "ok") for run in outside)
    places = sorted({place[:4] for place in counts}, key=lambda place: (scale_order(place[0]), place))
    return [[*place, *(str(counts[(*place, ok)]) for ok in (True, False))] for place in places]


def _cell(
    experiment: Experiment,
    task: str,
    attn: str,
    scale: str,
    records: Sequence[RunRecord],
    begun: Sequence[Mapping[str, Any]],
    missing: Mapping[tuple[str, str, str], str],
) -> dict[str, Any]:
    runs = [run for run in records if (run.task, run.attn, run.scale) == (task, attn, scale)]
    ok = {run.seed for run in runs if run.status == "ok"} & set(experiment.seeds)
    rest = Counter(STATUS_TEXT.get(run.status, run.status) for run in runs if run.status != "ok" and run.seed not in ok)
    rest["unfinished"] = sum(
        (config["task"]["name"], config["attn"]["name"], config["scale"]) == (task, attn, scale)
        and config["seed"] not in ok
        for config in begun
    )
    no_data = (task, experiment.protocol, scale) in missing and not ok
    words = [f"{count} {status}" for status, count in rest.items() if count]
    if ok or words:
        words.insert(0, f"{len(ok)}/{len(experiment.seeds)}")
    elif no_data:
        words = [NO_DATA]
    return {
        "experiment": experiment.name, "protocol": experiment.protocol, "scale": scale, "task": task, "attn": attn,
        "seeds": len(experiment.seeds), "ok": len(ok), "not_ok": sum(rest.values()), "no_data": no_data,
        "devices": " ".join(sorted({run.device for run in runs})), "settings": len({run.group for run in runs}),
        "keys": " ".join(sorted(run.key for run in runs)), "text": ", ".join(words),
    }  # fmt: skip
