"""of=KEY: what a setting changes, mechanism by mechanism, such as of=model.positions;
to=NAME: also how far all are behind this mechanism, and whether the setting closes that
"""

from __future__ import annotations

from omegaconf import OmegaConf

from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.reports.effect import effect_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "of", "to")


def answer(request: Request) -> Report:
    """Lay out what a setting changes.

    Raises:
        InputError: none is named.
    """
    of = request["of"]
    if not of:
        raise InputError("effect needs a setting, of=KEY, as configs/config.yaml has it: of=model.positions.")
    # Read as it stands, not composed: a value that a protocol or a scale gives has no default.
    written = OmegaConf.select(OmegaConf.load(CONFIGS / "config.yaml"), of, throw_on_missing=False)
    return effect_report(request.results_dir, request.records(), of, written, request["to"])
