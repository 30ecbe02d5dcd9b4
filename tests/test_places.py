"""The command where users have to run it: odd terminals, variables of a cluster, no home, folders of odd names."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lra.files import ROOT
from lra.machine.distributed import VARIABLES

pytestmark = pytest.mark.slow

WORDS = ("attn=vmean", "scale=smoke", "device=cpu", "trainer.steps=4", "trainer.eval_every=2",
         "optimizer.warmup_steps=2")  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def start(
    cache: Path,
    results: Path,
    *words: str,
    script: Path = ROOT / "run.py",
    flags: str = "",
    streams: str = "",
    folder: Path = ROOT,
    **variables: str | None,
) -> subprocess.CompletedProcess:
    """Run run.py by a shell, with what it does to the streams; a variable of None is unset."""
    settings = {**os.environ, "LRA_CACHE": str(cache), **dict.fromkeys(VARIABLES), **variables}
    arguments = [*WORDS, *words, f"results_dir='{results}'"]
    command = f"{shlex.quote(sys.executable)} {flags} {shlex.join([str(script), *arguments])} {streams}"
    environment = {name: value for name, value in settings.items() if value is not None}
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, timeout=300, check=False
    )


def finished(results: Path) -> bool:
    [path] = results.glob("runs/*/*/*/record.json")
    return json.loads(path.read_text())["status"] == "ok"


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"listops ? vmean"),
        ({"PYTHONIOENCODING": "latin-1"}, b"listops \xb7 vmean"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"listops ? vmean"),
    ],
)
def test_a_terminal_with_few_characters(cache, tmp_path, variables, shown):
    done = start(cache, tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert b"test accuracy" in done.stdout
    assert b"Traceback" not in done.stderr
    assert finished(tmp_path)


@pytest.mark.parametrize("streams", ["2>&1 | head -c 1", ">&- 2>&- <&-", "> /dev/full 2>&1"])
def test_nobody_who_reads(cache, tmp_path, streams):
    done = start(cache, tmp_path, streams=streams)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert finished(tmp_path)


def test_what_a_scheduler_left_in_the_variables(cache, tmp_path):
    done = start(cache, tmp_path, WORLD_SIZE="4", RANK="1", SLURM_NTASKS="4")
    assert done.returncode == 0, done.stderr
    assert b"RANK=1 WORLD_SIZE=4 is set, but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT" in done.stdout
    assert b"test accuracy" in done.stdout
    assert finished(tmp_path)


def test_impossible_variables_are_one_sentence(cache, tmp_path):
    launch = {"RANK": "4", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    done = start(cache, tmp_path, **launch)
    assert done.returncode == 1
    assert b"RANK=4 WORLD_SIZE=4" in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_home_no_git_and_nonsense_in_the_variables(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    done = start(
        cache, tmp_path / "results", HOME="/proc/none", TMPDIR="/proc/none", PATH=str(tmp_path / "empty"),
        USER=None, LOGNAME=None, COLUMNS="0", OMP_NUM_THREADS="abc", CUDA_VISIBLE_DEVICES="nonsense", TZ="No/Where",
        LANGUAGE="xx", NUMBA_CACHE_DIR="/proc/nowhere",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert finished(tmp_path / "results")


def test_odd_names_another_folder_and_no_asserts(cache, tmp_path):
    place = tmp_path / "100%s é, x"
    place.mkdir()
    (place / "a link").symlink_to(ROOT)
    script = place / "a link" / "run.py"
    done = start(cache, place / "results", script=script, flags="-OO", folder=place, PYTHONPATH=None)
    assert done.returncode == 0, done.stderr
    assert finished(place / "results")


def test_a_download_without_git(cache, tmp_path):
    for name in ("lra", "models", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    done = start(cache, tmp_path / "results", script=tmp_path / "run.py", folder=tmp_path, PYTHONPATH=None)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("results/runs/*/*/*/record.json")
    assert json.loads(path.read_text())["commit"] is None


def test_a_results_folder_that_is_a_file_is_one_sentence(cache, tmp_path):
    (tmp_path / "file").write_text("")
    done = start(cache, tmp_path / "file")
    assert done.returncode == 1
    assert re.search(rb"cannot be written: Not a directory. .*results_dir=", done.stderr)
    assert b"Traceback" not in done.stderr
