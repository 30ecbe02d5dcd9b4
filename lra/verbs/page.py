"""write `leaderboard.html`: tables, plots and every run, in one file that needs no network"""

from __future__ import annotations

from lra.figures.page.page import write_page
from lra.records.collection import FILTERS
from lra.verbs import Request

OPTIONS = FILTERS


def act(request: Request) -> int:
    """Write the page, and say where it is."""
    print(write_page(request.results_dir, request.records()))
    return 0
