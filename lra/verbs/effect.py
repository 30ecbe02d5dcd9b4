"""of=KEY: what a setting changes, mechanism by mechanism, such as of=model.positions;
to=NAME: also how far all are behind this mechanism, and whether the setting closes that
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.records.identity import at
from lra.records.record import RunRecord
from lra.reports.effect import effect_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "of", "to")


def answer(request: Request) -> Report:
    """Lay out what a setting changes.

    Raises:
        InputError: none is named, or no run is of the mechanism to compare with.
    """
    if not request["of"]:
        raise InputError("effect needs a setting, of=KEY, as configs/config.yaml has it: of=model.positions.")
    records, to = request.records(), request["to"]
    if to and to not in (attns := sorted({run.attn for run in records})):
        raise InputError(f"No run of these is of to={to}. Choose from {', '.join(attns)}.")
    return effect(request, records, request["of"], to)


def effect(request: Request, records: Sequence[RunRecord], of: str, to: str = "") -> Report:
    """Lay out what a setting changes among some records; see `effect_report`."""
    # Read as it stands, not composed: a value that a protocol or a scale gives has no default.
    written = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIGS / "config.yaml")))
    return effect_report(request.results_dir, records, of, at(written, of), to)
