"""of=KEY: what a setting changes, mechanism by mechanism, such as of=model.positions;
to=NAME: also how far all are behind this mechanism, and whether the setting closes that
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.records.record import RunRecord
from lra.reports.effect import effect_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "of", "to")


def answer(request: Request) -> Report:
    """Lay out what a setting changes.

    Raises:
        InputError: none is named.
    """
    if not request["of"]:
        raise InputError("effect needs a setting, of=KEY, as configs/config.yaml has it: of=model.positions.")
    return effect(request, request.records(), request["of"], request["to"])


def effect(request: Request, records: Sequence[RunRecord], of: str, to: str = "") -> Report:
    """Lay out what a setting changes among some records; see `effect_report`."""
    # Read as it stands, not composed: a value that a protocol or a scale gives has no default.
    written = OmegaConf.select(OmegaConf.load(CONFIGS / "config.yaml"), of, throw_on_missing=False)
    return effect_report(request.results_dir, records, of, written, to)
