"""Where and when something ran: the machine, versions, the commit of the code, the date."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.files import ROOT

if TYPE_CHECKING:
    import torch

CODE = ("lra", "models", "configs", "scripts")


def describe_environment(device: torch.device, mechanism: str | None = None) -> dict[str, Any]:
    """Describe what a run ran on: device, driver, versions, threads, and settings that affect speed.

    Args:
        device: where it ran.
        mechanism: the dotted path of the class that mixes its tokens; one that lives elsewhere is described too.
    """
    import torch  # here, so that the date and a record need no torch

    facts: dict[str, Any] = {
        "device_name": _cpu_name(),
        "platform": platform.platform(),
        "num_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "datasets", "hydra-core")},
    }
    if device.type == "cpu":
        facts["cpu_capability"] = torch.backends.cpu.get_cpu_capability()  # which of torch's kernels it runs
    if device.type == "cuda":
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    package = describe_package(mechanism) if mechanism else None
    return facts if package is None else {**facts, "mechanism": package}


def describe_package(target: str) -> dict[str, Any] | None:
    """Say which code a class is that lives outside this checkout.

    Args:
        target: the class's dotted path.

    Returns:
        Its `module`; its `package`, as it is imported; the installed `version`, None where it is not installed; and the
        `commit` of its repository, with `-dirty` where a tracked file was changed or a Python file is new, None outside
        git. None for a class of this checkout, or one that was not imported.
    """
    imported_from, _, name = target.rpartition(".")
    kind = getattr(sys.modules.get(imported_from), name, None)
    module = sys.modules.get(getattr(kind, "__module__", ""))
    if module is None:
        return None
    file = getattr(module, "__file__", None)  # a notebook has none
    path = Path(file).resolve() if file else None
    if path and any(path.is_relative_to(ROOT / folder) for folder in CODE):
        return None
    package = module.__name__.partition(".")[0]
    installed = packages_distributions().get(package)
    return {
        "module": module.__name__,
        "package": package,
        "version": version(installed[0]) if installed else None,
        "commit": _commit_of(path) if path else None,
    }


def package_text(package: Mapping[str, Any]) -> str:
    """Put what `describe_package` returns into one phrase."""
    commit, dash, dirty = (package["commit"] or "").partition("-")
    version = f"version {package['version']}" if package["version"] else "not installed"
    return f"{package['module']}, {version}, {f'commit {commit[:10]}{dash}{dirty}' if commit else 'no commit'}"


def current_commit() -> str | None:
    """Return the commit of the code that is running, with `-dirty` where it differs; None outside git.

    Changes under `results/` do not count: a benchmark that writes there leaves the next one clean. New files count in
    the folders of code, where one may be a mechanism that is not committed yet.
    """
    return _commit(ROOT, tracked=[".", ":(exclude)results"], code=CODE)


def _commit_of(path: Path) -> str | None:
    """Return the commit of the repository that a file is in; None if git ignores the file, as what pip installed."""
    commit = _commit(path.parent, tracked=[":/"], code=[":/*.py"])
    if commit is None:
        return None
    ignored = subprocess.run(["git", "check-ignore", "--quiet", str(path)], cwd=path.parent, capture_output=True)
    return None if ignored.returncode == 0 else commit


def _commit(folder: Path, tracked: Sequence[str], code: Sequence[str]) -> str | None:
    """Return the commit of the repository that a folder is in; None outside git.

    Args:
        folder: where git is asked, and what paths are relative to.
        tracked: the paths where a change of a tracked file makes it `-dirty`.
        code: the paths where a new file does.
    """
    try:
        commit, changed, added = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", *tracked],
                ["ls-files", "--others", "--exclude-standard", "--", *code],
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
