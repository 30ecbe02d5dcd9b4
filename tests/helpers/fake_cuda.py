"""Training steps on CUDA tensors without content, on any machine with a C++ compiler, in a process of their own.

A small library tells torch that there is a device. Torch asks once, when it is imported: so a fresh process loads the
library first. Nothing is computed there; what is seen is which operations run, on which device, in which shapes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lra.files import ROOT

SOURCE = Path(__file__).with_suffix(".cpp")


class Case(NamedTuple):
    """What is trained.

    Attributes:
        attn: a choice of `attn=`, or a class of `fake_cuda_faults`.
        protocol, precision, task: choices, too.
        thorough: whether with two layers, two steps, and an evaluation, instead of one layer and one step.
    """

    attn: str
    protocol: str = "controlled"
    precision: str = "fp32"
    task: str = "listops"
    thorough: bool = False


class Seen(NamedTuple):
    """What a case did.

    Attributes:
        faults: what a GPU would wait for or refuse, with the line that did it.
        launches: operations on the device in the last of its steps, views aside; an attention of torch's own in parts.
    """

    faults: list[str]
    launches: int


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "c++")


def library(folder: Path) -> Path:
    """Compile the library; it takes seconds."""
    [torch] = find_spec("torch").submodule_search_locations
    made = folder / "fake_cuda.so"
    linked = ["-L", f"{torch}/lib", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch}/lib"]
    command = [compiler(), "-std=c++20", "-shared", "-fPIC", "-I", f"{torch}/include", "-o", made, SOURCE, *linked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def steps(library: Path, cases: Iterable[Case]) -> dict[Case, Seen]:
    """Train every case."""
    cases = list(cases)
    command = [sys.executable, "-m", "tests.helpers.fake_cuda_steps", str(library)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    given = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run(command, input=given, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    seen = [Seen(*json.loads(line)) for line in done.stdout.splitlines()]
    return dict(zip(cases, seen, strict=True))
