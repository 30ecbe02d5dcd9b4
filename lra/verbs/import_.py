"""merge somebody else's records into `measured/`: from=FOLDER"""

from __future__ import annotations

from pathlib import Path

from lra.errors import InputError
from lra.records.collection import import_records
from lra.verbs import Request

OPTIONS = ("from",)


def act(request: Request) -> int:
    """Import, and say how many records there are; return 1 if one was refused."""
    if not request["from"]:
        raise InputError("import needs a folder of records. Name it with from=FOLDER.")
    path, count, refused = import_records(request.results_dir, Path(request["from"]))
    print(f"{path} holds {count} records.")
    return int(refused > 0)
