"""measure what makes test examples hard, for runs that lack it, into their folders and `measured/`;
cache_dir=FOLDER of prepared data
"""

from __future__ import annotations

import logging

from lra.records.collection import FILTERS
from lra.runs.measuring import measure_difficulty
from lra.verbs import Request

OPTIONS = (*FILTERS, "cache_dir")

log = logging.getLogger(__name__)


def act(request: Request) -> int:
    """Measure, and say what; return 1 if the data of a run were not at hand."""
    done, failures = measure_difficulty(request.results_dir, request.records(), request["cache_dir"] or None)
    if done:
        print(*done, sep="\n")
    for failure in failures:
        log.error("Not measured: %s", failure)
    return int(bool(failures))
