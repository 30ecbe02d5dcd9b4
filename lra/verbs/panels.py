"""make a workspace of panels in Weights & Biases: wandb=entity/project"""

from __future__ import annotations

from lra.figures.panels import workspace
from lra.verbs import Request

OPTIONS = ("wandb",)


def act(request: Request) -> int:
    """Make it, and say where it is."""
    made = workspace(request["wandb"])
    made.save()
    print(made.url)
    return 0
