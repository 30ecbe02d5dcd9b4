"""A mechanism in a repository of its own, as docs/attention.md shows it: the contract, a run, its record, a report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate

from lra.errors import InputError
from lra.files import ROOT
from lra.machine import environment
from lra.reports.leaderboard import leaderboard_report
from lra.runs.factory import mechanism_of
from tests.helpers import contract
from tests.helpers.configurations import composed
from tests.helpers.records import record

PAGE = (ROOT / "docs" / "attention.md").read_text()
SECTION = PAGE.partition("## A mechanism that lives in your own repository")[2].partition("\n## ")[0]
SMALL = ("trainer.steps=4", "trainer.eval_every=2", "optimizer.warmup_steps=2", "device=cpu", "wandb.mode=disabled")


def blocks(language: str) -> list[str]:
    """The code of the section in a language; "" is that of no language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path) -> Path:
    """The files of the section, committed."""
    [code], [settings] = blocks("python"), blocks("yaml")
    files = {"mine/__init__.py": "", "mine/attention.py": code, "conf/attn/mine.yaml": settings, ".gitignore": "out/\n"}
    top = tmp_path / "repository"
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-qm", "one")
    return top


@pytest.fixture
def importable(repository, monkeypatch) -> Path:
    """The same, where Python finds it; `mine` is forgotten afterwards."""
    monkeypatch.syspath_prepend(repository)
    yield repository
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def typed(line: str, top: Path, *more: str) -> str:
    """Run a line of the section, /path being the repository, and return what it prints."""
    words = [*line.replace("/path", str(top)).replace("'", "").split(), *more]
    places = {"PYTHONPATH": f"{top}{os.pathsep}{ROOT}", "LRA_CACHE": str(top / "out" / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_that_are_shown_work(repository):
    shown = [line for block in blocks("") for line in block.splitlines() if line.startswith("python ")]
    contract_tests, *trainings, report = shown
    results = f"results_dir={repository / 'out' / 'results'}"
    assert re.search(r"\d\d passed", typed(contract_tests, repository))
    for line in trainings:
        printed = typed(
            line.replace("scale=mini", "scale=smoke").replace("seed=0,1,2", "seed=0"), repository, *SMALL, results
        )
    assert "mechanism" in printed
    [path] = (repository / "out").glob("results/runs/listops/mine/*/record.json")
    written = json.loads(path.read_text())
    commit = git(repository, "rev-parse", "HEAD")
    assert written["config"]["attn"]["sharpness"] == 2.0
    assert written["environment"]["mechanism"] == {
        "module": "mine.attention", "package": "mine", "version": None, "commit": commit,
    }  # fmt: skip
    assert str(repository) not in path.read_text()
    printed = typed(report.replace("scale=mini", "scale=smoke"), repository, results)
    assert f"mine is not of this repository: mine.attention, not installed, commit {commit[:10]}." in printed


def described() -> dict | None:
    return environment.describe_package("mine.attention.MyAttention")


def test_a_record_says_which_code_a_mechanism_was(importable, monkeypatch):
    assert described() is None  # nothing has imported it, so that nothing has used it
    mechanism_of({"_target_": "mine.attention.MyAttention", "_partial_": True})
    commit = git(importable, "rev-parse", "HEAD")
    assert described() == {"module": "mine.attention", "package": "mine", "version": None, "commit": commit}
    for name in ("out/ignored.py", "notes.txt"):
        (importable / name).parent.mkdir(exist_ok=True)
        (importable / name).write_text("")
    assert described()["commit"] == commit
    (importable / "mine" / "kernel.py").write_text("")
    assert described()["commit"] == f"{commit}-dirty"
    (importable / "mine" / "kernel.py").unlink()
    (importable / "conf" / "attn" / "mine.yaml").write_text("sharpness: 3.0")
    assert described()["commit"] == f"{commit}-dirty"


def test_what_pip_installed_has_a_version_and_no_commit(importable):
    """A virtual environment is in somebody's repository often, and ignored there."""
    (importable / ".gitignore").write_text("mine/\n*-info/\n")
    git(importable, "rm", "-rq", "--cached", "mine")
    git(importable, "commit", "-qam", "two")
    folder = importable / "my_mechanisms-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-mechanisms\nVersion: 1.2\n")
    (folder / "top_level.txt").write_text("mine\n")
    mechanism_of({"_target_": "mine.attention.MyAttention", "_partial_": True})
    assert (described()["version"], described()["commit"]) == ("1.2", None)


def test_a_mechanism_of_this_repository_is_not_described():
    assert environment.describe_package("models.attention.softmax.SoftmaxAttention") is None


def test_a_report_names_the_code_once():
    package = {"module": "mine.attention", "package": "mine", "version": "1.2", "commit": f"{'a1' * 20}-dirty"}
    runs = [record("mine", seed, 0.3, environment={"mechanism": package}) for seed in (0, 1)]
    notes = leaderboard_report([*runs, record("softmax", 0, 0.3)]).notes
    assert notes[1:] == ["mine is not of this repository: mine.attention, version 1.2, commit a1a1a1a1a1-dirty."]


def test_of_two_files_of_one_name_hydra_takes_the_shipped_one(importable):
    (importable / "conf" / "attn" / "mine.yaml").rename(importable / "conf" / "attn" / "softmax.yaml")
    cfg = composed(f"hydra.searchpath=[file://{importable}/conf]", "attn=softmax")
    assert instantiate(cfg.attn).func.__module__ == "models.attention.softmax"
    with pytest.raises(InputError, match=r"conf/attn/softmax.yaml: attn=softmax is .*, which Hydra finds first"):
        contract.include(importable / "conf" / "attn")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{_target_: nowhere.Mine, _partial_: true}", "attn._target_=nowhere.Mine cannot be imported: .*on PYTHONPATH"),
        ("{_target_: mine.attention.Mein, _partial_: true}", "has no attribute 'Mein'"),
        ("{_target_: Mine, _partial_: true}", "attn._target_=Mine cannot be imported"),
        ("{_target_: torch.nn.Linear, _partial_: true}", "must be a subclass of models.attention.Attention"),
        ("{_target_: mine.attention.MyAttention}", "and `_partial_: true`. .* and _partial_=None"),
        ("{sharpness: 2.0}", "attn needs `_target_: package.module.Class`.* Got _target_=None"),
    ],
)
def test_a_file_that_is_wrong_is_named(importable, settings, message):
    path = importable / "conf" / "attn" / "mine.yaml"
    path.write_text(settings)
    with pytest.raises(InputError, match=rf"{path}: .*{message}"):
        contract.include(path.parent)


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(InputError, match=f"--attn-dir={tmp_path} must be a folder with a file NAME.yaml"):
        contract.include(tmp_path)


def test_a_mixer_is_held_to_what_mixers_promise(importable, monkeypatch):
    """A mixer has no queries: the tests of attentions leave it out."""
    monkeypatch.setattr(contract, "FOLDERS", [*contract.FOLDERS])
    (importable / "mine" / "mixers.py").write_text(
        "from models.mixers import Mixer\n\nclass Mine(Mixer):\n    def forward(self, x, mask):\n        return x\n"
    )
    (importable / "conf" / "attn" / "mixed.yaml").write_text("{_target_: mine.mixers.Mine, _partial_: true}")
    contract.include(importable / "conf" / "attn")
    assert {"mine", "mixed", "softmax"} <= set(contract.files())
    assert "mine" in contract.attentions()
    assert "mixed" not in contract.attentions()
