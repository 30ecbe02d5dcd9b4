"""A notebook run from top to bottom, with its outputs: the same bytes wherever the same numbers are."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lra.errors import InputError

PNG = "image/png"
COLOURS = 48  # of a figure as it is kept: lines and text need no more, and take a third of the bytes
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}


def run_notebook(path: Path) -> str:
    """Run a notebook in its own folder, and return its text with the outputs.

    Times, versions, execution counts and other bits of a single run are left out.

    Raises:
        InputError: what runs notebooks is not installed.
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    try:
        import ipykernel  # noqa: F401  the kernel that runs the cells is started by its name
        import nbformat
        from nbclient import NotebookClient
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is needed to run notebooks. Install it: pip install -e '.[notebooks]'."
        ) from error
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    return to_text(notebook)


def to_text(notebook: Mapping[str, Any]) -> str:
    """Write a notebook as it is committed."""
    cells = [_stable(cell) for cell in notebook["cells"]]
    whole = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _stable(cell: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": {}}
    if cell["cell_type"] == "code":
        kept |= {"execution_count": None, "outputs": [_stable_output(output) for output in cell["outputs"]]}
    return {**kept, "source": _lines(cell["source"])}


def _stable_output(output: Mapping[str, Any]) -> dict[str, Any]:
    if output["output_type"] == "stream":
        return {"name": output["name"], "output_type": "stream", "text": _lines(output["text"])}
    data = {kind: _small(value) if kind == PNG else _lines(value) for kind, value in output["data"].items()}
    counted = {"execution_count": None} if output["output_type"] == "execute_result" else {}
    return {"data": data, **counted, "metadata": {}, "output_type": output["output_type"]}


def _small(encoded: str) -> str:
    """Write a figure with few colours."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    stream = io.BytesIO()
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _lines(text: str | list[str]) -> list[str]:
    return ("".join(text)).splitlines(keepends=True)
