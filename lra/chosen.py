"""Which records a command line is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lra.errors import InputError
from lra.record import RunRecord

FILTERS = ("task", "attn", "protocol", "scale", "device")


def chosen(records: Sequence[RunRecord], options: Mapping[str, str], configs: Path) -> list[RunRecord]:
    """Take the records that the options name; "" is any.

    Raises:
        InputError: no configuration and no record has such a name.
    """
    for name in FILTERS:
        known = {path.stem for path in (configs / name).glob("*.yaml")} | {getattr(run, name) for run in records}
        if options[name] and options[name] not in known:
            raise InputError(f"There is no {name}={options[name]}. Choose from {', '.join(sorted(known))}.")
    return [run for run in records if all(options[name] in ("", getattr(run, name)) for name in FILTERS)]
