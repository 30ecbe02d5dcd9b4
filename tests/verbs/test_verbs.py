"""The script as it is typed: what its verbs answer, what they do to a results folder, and how a verb is added."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys

import pytest

import lra.verbs
from lra.errors import InputError
from lra.files import ROOT
from lra.records.collection import collect
from scripts import report
from tests.helpers.records import contents, record, saved, with_published
from tests.helpers.shown import printed

SCRIPTS = ROOT / "scripts"


def test_the_script_prints_what_it_rebuilds_from_collected_records_alone(tmp_path, capsys):
    saved(with_published(tmp_path), record("softmax", 0, 0.4))
    command = [sys.executable, SCRIPTS / "report.py", f"results_dir={tmp_path}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| softmax              | 40.0 [39.0, 41.0] (n=1) |" in shown
    path = tmp_path / "measured" / "records.jsonl"
    assert printed(capsys, "collect", f"results_dir={tmp_path}") == f"{path} holds 1 records.\n"
    shutil.rmtree(tmp_path / "runs")
    printed(capsys, "tables", f"results_dir={tmp_path}")
    assert (tmp_path / "tables" / "leaderboard.md").read_text() == shown
    done = subprocess.run([*command, "table=no"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_reader_that_has_enough_ends_the_report_quietly(tmp_path):
    saved(with_published(tmp_path), record("softmax", 0, 0.4))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, SCRIPTS / "report.py", f"results_dir={tmp_path}"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["results_dir=nowhere"], "There is no results folder"),
        (["table=skeinformer"], "no table 'skeinformer'. Choose from skeinformer_table1"),
        (["coverage", "experiment=lra"], "no experiment 'lra'. Choose from controlled"),
        (["attn=softmx"], "no attn=softmx. Choose from aaren"),
        (["compare", "a=softmx", "b=vmean"], "no record of attn='softmx' here. There are: softmax, vmean"),
        (["compare", "a=softmax"], "compare needs two different names"),
        (["format=html"], "terminal, markdown, latex, csv. Got 'html'"),
        (["import"], "import needs a folder"),
        (["import", "from=nowhere"], "There is no folder"),
        (["leaderbord"], "Did you mean leaderboard?"),
    ],
)
def test_bad_input_is_named_with_the_choices(tmp_path, words, message):
    saved(with_published(tmp_path), record("softmax", 0, 0.4), record("vmean", 0, 0.3))
    with pytest.raises(InputError, match=message):
        report.main(
            [f"results_dir={tmp_path}", *words]
            if "=" in words[0]
            else [words[0], f"results_dir={tmp_path}", *words[1:]]
        )


def test_every_verb_answers(tmp_path, capsys):
    saved(with_published(tmp_path), record("softmax", 0, 0.4), record("vmean", 0, None, status="diverged"))
    there = f"results_dir={tmp_path}"
    assert "| softmax" in printed(capsys, "leaderboard", there, "scale=mini", "attn=softmax")
    assert "No records yet" in printed(capsys, "leaderboard", there, "scale=full")
    assert "ms/step" in printed(capsys, "cost", there, "format=terminal")
    assert "diverged" in printed(capsys, "failures", there)
    assert "None of these runs was tested again yet" in printed(capsys, "retests", there)
    assert "1/3" in printed(capsys, "coverage", there, "experiment=skeinformer_table1")
    assert printed(capsys, "table=skeinformer_table1", there, "format=csv").startswith(
        "table,scale,metric,unit,task,length,model"
    )
    assert r"\begin{tabular}" in printed(capsys, "table=lra_table2", there, "format=latex")


def test_tables_are_rebuilt_byte_for_byte(tmp_path):
    saved(with_published(tmp_path), *(record("softmax", seed, 0.4 + seed / 100) for seed in range(3)))
    collect(tmp_path)
    report.main(["tables", f"results_dir={tmp_path}"])
    first = contents(tmp_path / "tables")
    assert {"leaderboard.md", "cost.csv", "coverage.md", "skeinformer_table1.md", "skeinformer_table1.csv"} <= set(
        first
    )
    shutil.rmtree(tmp_path / "tables")
    report.main(["tables", f"results_dir={tmp_path}"])
    assert contents(tmp_path / "tables") == first


def test_the_committed_tables_are_those_of_the_committed_records(tmp_path):
    results = SCRIPTS.parent / "results"
    for name in ("measured", "published", "benchmarks"):
        (tmp_path / name).symlink_to(results / name)
    report.main(["tables", f"results_dir={tmp_path}"])
    for name, content in contents(tmp_path / "tables").items():
        if not name.endswith(".png"):  # compressed pixels are those of one machine's libraries
            assert (results / "tables" / name).read_bytes() == content, f"{name}: run `make tables`"


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.WARNING)


def test_a_verb_is_a_file(tmp_path, monkeypatch, capsys):
    text = '"""says hello; name=NAME to somebody"""\n\nOPTIONS = ("name",)\n\n\ndef act(request):\n'
    (tmp_path / "greet.py").write_text(f'{text}    print("hello", request["name"])\n    return 3\n')
    monkeypatch.setattr(lra.verbs, "__path__", [*lra.verbs.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "lra.verbs.greet", raising=False)
    assert report.main(["greet", "name=you"]) == 3
    assert capsys.readouterr().out == "hello you\n"
    assert report.main(["--help"]) == 0
    assert "\ngreet               says hello; name=NAME to somebody\n" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "lra.verbs.greet")
    monkeypatch.delattr(lra.verbs, "greet")


@pytest.mark.parametrize("verb", lra.verbs.verbs())
def test_every_verb_says_what_it_does_and_takes(verb, capsys):
    module = lra.verbs.load_verb(verb)
    assert hasattr(module, "answer") != hasattr(module, "act")
    assert report.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n{verb:<20}" in text
    assert all(f"{option}=" in text for option in module.OPTIONS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cost", "table=lra_table1"], "cost takes no table=, only task= .* It is an option of show, leaderboard."),
        (["watch", "format=csv"], "watch takes no format=, only once= results_dir=. "),
        (["figures", "wandb=me/lra"], "figures takes no wandb="),
    ],
)
def test_an_option_that_a_verb_does_not_take_is_refused_by_name(words, message):
    with pytest.raises(InputError, match=message):
        report.main(words)
