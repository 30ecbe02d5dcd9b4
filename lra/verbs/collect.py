"""merge the finished records of `runs/`, curves and predictions into `measured/`, which is committed"""

from __future__ import annotations

from lra.records.collection import collect
from lra.verbs import Request

OPTIONS = ()


def act(request: Request) -> int:
    """Collect, and say how many records there are."""
    path, count, _ = collect(request.results_dir)
    print(f"{path} holds {count} records.")
    return 0
