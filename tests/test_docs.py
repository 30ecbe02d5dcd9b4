"""Every command in the documentation: composed, held against what there is, and run at smoke size where it can be."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import torch
from hydra import compose, initialize_config_dir

from lra.files import ROOT
from models.attention.softmax import SoftmaxAttention
from scripts import report
from tests.helpers.shown import shown

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:python|pip|torchrun|make) [^`]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
SMALL = ("scale=smoke", "trainer.steps=4", "trainer.eval_every=2", "optimizer.warmup_steps=2", "device=cpu",
         "wandb.mode=disabled")  # fmt: skip
# These need a cluster, several processes, or hours even at smoke size: they are composed and not run.
NOT_RUN = ("torchrun", "launcher=", "experiment=", "glob(", "--cfg", "task=all", "protocol=lra")
# Stand for names of the reader's own.
PLACEHOLDERS = ("FOLDER", "NAME", "SCALE", "/path/")


def commands() -> list[str]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for language, block in BLOCK.findall(text):
            if language in ("", "sh", "bash"):
                found += [line.strip() for line in block.splitlines()]
        found += INLINE.findall(BLOCK.sub("", text))
    programs = ("python ", "pip ", "torchrun ", "make ")
    return sorted({shlex.join(shlex.split(line, comments=True)) for line in found if line.startswith(programs)})


def training(command: str) -> list[str] | None:
    """The words after run.py, if it is that."""
    words = shlex.split(command)
    return words[words.index("run.py") + 1 :] if "run.py" in words else None


COMMANDS = commands()
TRAININGS = [command for command in COMMANDS if training(command) is not None]
REPORTS = [command for command in COMMANDS if command.startswith("python scripts/report.py")]
OTHERS = [command for command in COMMANDS if command not in (*TRAININGS, *REPORTS)]


def test_the_pages_have_commands_of_every_kind():
    assert len(TRAININGS) > 10
    assert len(REPORTS) > 8
    assert len(OTHERS) > 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", TRAININGS)
def test_a_training_composes(command):
    if any(word in command for word in PLACEHOLDERS):
        pytest.skip("stands for a name of the reader's own")
    words = [word for word in training(command) if "=" in word]
    overrides = []
    for word in words:
        key, _, value = word.partition("=")
        first = "softmax" if value.startswith("glob(") else value.split(",")[0]
        overrides.append(f"{key}={first}")
    if any("launcher=" in word for word in words):
        name = next(word.partition("=")[2] for word in words if "launcher=" in word)
        packages = {"processes": "hydra_joblib_launcher", "ray": "hydra_ray_launcher"}
        pytest.importorskip(f"hydra_plugins.{packages.get(name, 'hydra_submitit_launcher')}")
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("config", overrides=overrides, return_hydra_config=True)
    assert cfg.trainer.steps


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_answers(command, tmp_path, capsys):
    if any(word in command for word in PLACEHOLDERS):
        pytest.skip("stands for a name of the reader's own")
    words = shlex.split(command)[2:]
    there = shown(tmp_path / "results")
    once = ["once=true"] if "watch" in words else []
    arguments = [*words, *(word for word in once if word not in words), f"results_dir={there}"]
    verb = words[0] if words else ""
    if verb == "measure_difficulty":  # it needs the tasks of the runs, and says so
        assert report.main(arguments) == 1
        return
    if verb == "effect":  # it needs runs that have the setting, and says so
        with pytest.raises(report.InputError, match="No record has a setting"):
            report.main(arguments)
        return
    if verb in ("compare", "difficulty"):  # they need predictions, and say so
        with pytest.raises(report.InputError, match="predictions"):
            report.main(arguments)
        return
    assert report.main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", OTHERS)
def test_what_else_is_typed_is_there(command):
    program, *words = shlex.split(command)
    if program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        (extra,) = re.search(r"\[(.*)\]", command).groups()
        assert extra in extras
    elif words[:2] == ["-m", "pytest"]:
        assert (ROOT / words[2]).exists()
    else:
        script = ROOT / words[0]
        assert script.exists()
        known = script.read_text()
        named = [word for word in words[1:] if "=" not in word]
        assert all(re.search(rf"\b{re.escape(word)}\b", known) or word.isupper() for word in named), named


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [command for command in TRAININGS if not any(word in command for word in (*NOT_RUN, *PLACEHOLDERS))]
)
def test_a_training_runs(command, tmp_path_factory):
    small = [word.partition("=")[0] for word in SMALL]
    words = [word for word in training(command) if word.partition("=")[0] not in (*small, "results_dir", "cache_dir")]
    words = [re.sub(r"^(task)=.*", r"\1=listops", re.sub(r"^(seed|attn)=([^,]*),.*", r"\1=\2", word)) for word in words]
    cache = tmp_path_factory.getbasetemp() / "docs"
    subprocess.run(
        [sys.executable, "run.py", *words, *SMALL, f"results_dir={cache / 'results'}", f"cache_dir={cache / 'cache'}"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("script", ["prepare", "baseline"])
def test_data_and_baselines_are_made(script, tmp_path):
    options = ["task=listops", "scale=smoke", f"cache_dir={tmp_path / 'cache'}", f"results_dir={tmp_path / 'results'}"]
    done = [sys.executable, f"scripts/{script}.py", *options]
    subprocess.run(done, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").glob("*.py")))
def test_every_script_explains_itself(script):
    done = subprocess.run([sys.executable, ROOT / "scripts" / script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"python scripts/{script}" in done.stdout


def test_the_attention_that_is_shown_is_softmax_attention():
    code = next(
        block for language, block in BLOCK.findall((ROOT / "docs" / "attention.md").read_text()) if "Foo" in block
    )
    names = {}
    exec(code, names)
    q, k, v = torch.randn(3, 3, 2, 9, 4)
    mask = torch.arange(9) < torch.tensor([[9], [5], [0]])
    about = {"num_heads": 2, "head_dim": 4, "max_len": 9, "dropout": 0.0}
    shown_there, exact = names["FooAttention"](num_features=8, **about), SoftmaxAttention(**about)
    found, expected = (each(q, k, v, mask)[mask[:, None].expand(-1, 2, -1)] for each in (shown_there, exact))
    torch.testing.assert_close(found, expected)
