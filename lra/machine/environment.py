"""Where and when something ran: the machine, versions, the commit of the code, the date."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lra.files import ROOT

CODE = ("lra", "models", "configs", "scripts")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Say on what a run ran: device, driver, versions, threads, and what bears on speed."""
    facts: dict[str, Any] = {
        "device_name": _cpu_name(),
        "platform": platform.platform(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "datasets", "hydra-core")},
    }
    if device.type == "cuda":
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return facts


def current_commit() -> str | None:
    """Return the commit of the code that is running, with `-dirty` where it differs; None outside git.

    What is under `results/` is no code: a benchmark that writes there leaves the next one clean. A new file is, where
    it can run: a mechanism that is not committed yet.
    """
    try:
        commit, changed, added = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results"],
                ["ls-files", "--others", "--exclude-standard", "--", *CODE],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed or added else commit


def now() -> str:
    """Return the date and the time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
