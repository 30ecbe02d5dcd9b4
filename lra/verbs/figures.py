"""draw the leaderboard, accuracy against cost, learning curves, seeds and lengths into `figures/`"""

from __future__ import annotations

from lra.figures.runs import write_figures
from lra.records.collection import FILTERS
from lra.verbs import Request

OPTIONS = FILTERS


def act(request: Request) -> int:
    """Draw, and name the files."""
    print(*write_figures(request.results_dir, request.records()), sep="\n")
    return 0
