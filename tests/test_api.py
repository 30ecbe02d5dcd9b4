"""What is offered to Python: a light `import lra`, the leaderboard as a frame, and mechanisms on their own."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from typing import Unpack

import pytest

import lra
from lra.errors import InputError
from lra.files import ROOT
from models.attention import Attention, Sizes
from tests.helpers.records import record, saved


def test_importing_it_loads_neither_torch_nor_pandas():
    code = "import sys, lra; lra.load_records, lra.run; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class Halved(Attention):
    """Half of the values, or another share of them."""

    def __init__(self, *, share: float = 0.5, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        self.share = share

    def forward(self, q, k, v, mask):
        return self.share * v


FEW = {
    "trainer.steps": 2,
    "trainer.eval_every": 2,
    "optimizer.warmup_steps": 0,
    "device": "cpu",
    "wandb.mode": "disabled",
}


def test_a_class_is_trained_by_a_call_and_found_again(tmp_path):
    call = {"task": "listops", "attn": Halved, "scale": "smoke", "results_dir": tmp_path / "with space, and comma"}
    settings = {**FEW, "cache_dir": str(tmp_path), "attn.share": 0.25}
    record = lra.run(**call, settings=settings)
    assert (record.status, record.attn, record.scale, record.steps) == ("ok", "Halved", "smoke", 2)
    assert record.config["attn"]["share"] == 0.25
    assert __name__ in record.environment["source"]
    assert lra.run(**call, settings=settings) == record
    assert lra.load_records(call["results_dir"]) == [record]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"attn": "flash"}, "Did you mean attn=softmax?"), ({"attn": str}, "must be a subclass"),
        ({"task": "imdb"}, "Did you mean task=text?"), ({"settings": {"lr": 1}}, "Did you mean optimizer"),
        ({"settings": {"+lr": 1e-3}}, "lr is no key."), ({"settings": {"trainer.steps": "many"}}, "Got 'many'."),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_is_refused_as_on_the_command_line(call, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        lra.run(**{"scale": "smoke", "results_dir": tmp_path, **call})


def test_the_backbones_have_names_and_cards():
    cards = lra.backbones()
    assert cards["softmax"].family == "exact softmax"
    assert list(cards) == sorted(cards)


def test_its_examples_are_true(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(lra) == doctest.TestResults(failed=0, attempted=4)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_examples_of_the_documentation_are_true(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testfile(str(path), module_relative=False).failed == 0


def test_the_leaderboard_takes_a_folder_or_records_and_chooses(tmp_path):
    runs = [record("vmean", 0, 0.3), record("softmax", 0, 0.4), record("softmax", 0, 0.9, task="text")]
    saved(tmp_path, *runs)
    board = lra.leaderboard(tmp_path, task="listops")
    assert board["attn"].tolist() == ["softmax", "vmean"]
    assert lra.leaderboard(runs, attn="softmax")["task"].tolist() == ["listops", "text"]
    assert lra.leaderboard(runs, scale="full").empty
    with pytest.raises(InputError, match="no results folder"):
        lra.load_records(tmp_path / "nowhere")
