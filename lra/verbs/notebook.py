"""run `notebooks/leaderboard.ipynb` of the checkout, and keep its outputs in it"""

from __future__ import annotations

from lra.figures.notebook import run_notebook
from lra.files import ROOT, write_atomically, writing
from lra.verbs import Request

OPTIONS = ()
LEADERBOARD = ROOT / "notebooks" / "leaderboard.ipynb"


def act(request: Request) -> int:
    """Run it, and say where it is."""
    text = run_notebook(LEADERBOARD)
    with writing(LEADERBOARD, "Make it writable."):
        write_atomically(LEADERBOARD, text)
    print(f"{LEADERBOARD} has the outputs of today's records.")
    return 0
