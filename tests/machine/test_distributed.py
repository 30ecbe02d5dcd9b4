"""Several processes that train together agree with one alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from lra.errors import InputError
from lra.files import ROOT
from lra.machine import distributed
from lra.machine.distributed import VARIABLES, Launch, World, joined, launched, leads
from lra.records.folder import RunFolder
from lra.records.record import RunRecord
from lra.runs.factory import make_trainer
from lra.runs.retest import Tasks, load_model
from lra.training.surroundings import Surroundings


def test_a_batch_is_dealt_out_whole():
    index = np.arange(11)
    shares = [World(rank, 3).share(index) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 3]
    assert sorted(np.concatenate(shares)) == list(index)


GOOD = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def surround(monkeypatch, **variables: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_torchrun_says_which_process_this_is(monkeypatch):
    surround(monkeypatch, **GOOD | {"RANK": "1", "LOCAL_RANK": "1"})
    assert launched() == Launch(rank=1, size=2, local_rank=1)
    assert not leads()


@pytest.mark.parametrize(
    "variables",
    [{"WORLD_SIZE": "4"}, {"RANK": "1"}, {"LOCAL_RANK": "3"}, {"WORLD_SIZE": "many"}, {"RANK": "3", "WORLD_SIZE": "4"},
     {name: value for name, value in GOOD.items() if name != "LOCAL_RANK"}, {**GOOD, "MASTER_ADDR": ""}],
)  # fmt: skip
def test_what_a_scheduler_sets_without_a_launcher_makes_no_second_process(monkeypatch, caplog, variables):
    surround(monkeypatch, **variables)
    assert launched() is None
    assert leads()
    with joined(torch.device("cpu")) as world:
        assert world == World()
    assert ("this process trains alone" in caplog.text) == (variables.keys() != {"LOCAL_RANK"})


def test_a_process_of_one_that_was_launched_is_alone_without_a_word(monkeypatch, caplog):
    surround(monkeypatch, **GOOD | {"WORLD_SIZE": "1"})
    with joined(torch.device("cpu")) as world:
        assert world == World()
    assert not caplog.text


@pytest.mark.parametrize(
    "wrong",
    [{"RANK": "2"}, {"RANK": "-1"}, {"RANK": "a"}, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "2.5"}, {"LOCAL_RANK": "x"},
     {"LOCAL_RANK": "7"}, {"MASTER_PORT": "http"}, {"MASTER_PORT": "70000"}],
)  # fmt: skip
def test_impossible_numbers_of_processes_are_named(monkeypatch, wrong):
    surround(monkeypatch, **GOOD | wrong)
    [[name, value]] = wrong.items()
    with pytest.raises(InputError, match=f"{name}={value}.* must be numbers .* Unset them"):
        launched()


@pytest.mark.parametrize(("rank", "address"), [("0", "localhost"), ("1", "localhost"), ("1", "nowhere.invalid")])
def test_processes_that_do_not_come_are_missed_in_one_sentence(monkeypatch, rank, address):
    monkeypatch.setattr(distributed, "LONGEST_WAIT", timedelta(seconds=1))
    with socket.socket() as listener:  # a port that nobody else has, free again once it is closed
        listener.bind(("localhost", 0))
        port = str(listener.getsockname()[1])
    surround(monkeypatch, **GOOD | {"RANK": rank, "MASTER_ADDR": address, "MASTER_PORT": port})
    with (
        pytest.raises(InputError, match=f"Process {rank} of 2 cannot join the others at MASTER_ADDR={address} "),
        joined(torch.device("cpu")),
    ):
        pass


# About once in a hundred times torch aborts one of two processes when all is done, and torchrun ends both.
ABORTED = "terminate called without an active exception"


def launch(num_processes: int, *words: str, cache: Path) -> subprocess.CompletedProcess:
    """Run a program in so many processes; the same command again, as a user would, where torch aborts at the end."""
    done = launch_once(num_processes, *words, cache=cache)
    return launch_once(num_processes, *words, cache=cache) if ABORTED in done.stderr else done


def launch_once(num_processes: int, *words: str, cache: Path) -> subprocess.CompletedProcess:
    launcher = [] if num_processes == 1 else ["-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
    environment = {**os.environ, "LRA_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def train(folder: Path, num_processes: int, *words: str) -> subprocess.CompletedProcess:
    settings = ("scale=smoke", "device=cpu", "wandb.mode=disabled", *words, f"results_dir={folder}")
    return launch(num_processes, "run.py", *settings, cache=folder.parent / "cache")


def outcome(folder: Path) -> tuple[dict, list[dict]]:
    (path,) = folder.glob("runs/*/*/*/record.json")
    lines = (path.parent / "metrics.jsonl").read_text().splitlines()
    return json.loads(path.read_text()), [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_compute_what_one_does_up_to_rounding(tmp_path):
    # 21 examples are shared unevenly; without dropout there are no draws.
    words = ("attn=softmax", "model.dropout=0", "model.attention_dropout=0", "trainer.batch_size=21",
             "trainer.micro_batch=6", "optimizer.clip_norm=0.5", "data.bucket_batches=2")  # fmt: skip
    alone, together = (train(tmp_path / str(n), n, *words) for n in (1, 2))
    assert alone.returncode == together.returncode == 0, together.stderr
    (one, curve), (two, other) = outcome(tmp_path / "1"), outcome(tmp_path / "2")
    assert [point["step"] for point in curve] == [point["step"] for point in other]
    for a, b in zip(curve, other, strict=True):
        for name in ("train_loss", "val_loss"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)
        assert a["learning_rate"] == b["learning_rate"]
    assert one["test_accuracy"] == pytest.approx(two["test_accuracy"], abs=0.01)
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert one["key"] != two["key"]
    assert together.stdout.count("test accuracy") == 1
    again = train(tmp_path / "2", 2, *words)
    assert again.returncode == 0
    assert "finished already" in again.stdout + again.stderr


@pytest.mark.slow
def test_the_draws_of_an_evaluation_do_not_depend_on_the_number_of_processes(tmp_path):
    words = ("attn=skeinformer", "trainer.steps=4", "trainer.eval_every=4", "optimizer.warmup_steps=2",
             "model.dropout=0", "trainer.batch_size=16", "optimizer.learning_rate=1e-12")  # fmt: skip
    for n in (1, 2):
        assert train(tmp_path / str(n), n, *words).returncode == 0
    (_, curve), (_, other) = outcome(tmp_path / "1"), outcome(tmp_path / "2")
    assert curve[0]["val_loss"] == pytest.approx(other[0]["val_loss"], rel=1e-6)


@pytest.mark.slow
def test_every_process_draws_numbers_of_its_own(tmp_path):
    done = launch(2, "-m", "tests.helpers.drawing", str(tmp_path), cache=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first != second
    torch.manual_seed(0)  # the first process draws what one alone does
    assert first == torch.rand(4).tolist()


@pytest.mark.slow
def test_the_weights_that_several_processes_save_are_those_that_were_evaluated(tmp_path):
    """Performer draws its features anew in every step of every process; it is tested with those that are saved."""
    words = ("attn=performer", "trainer.batch_size=16", "trainer.steps=30", "trainer.eval_every=30",
             "optimizer.warmup_steps=5")  # fmt: skip
    assert train(tmp_path / "results", 2, *words).returncode == 0
    record, curve = outcome(tmp_path / "results")
    [path] = (tmp_path / "results").glob("runs/*/*/*")
    run = RunRecord.read(path / "record.json")
    own = Tasks({}, cache_dir=str(tmp_path / "cache")).of(run).own
    model = load_model(run, RunFolder(path), run.config, own, torch.device("cpu"))
    trainer, surroundings = make_trainer(record["config"]), Surroundings(torch.device("cpu"))
    val, test = (
        trainer.evaluate(model, own.split(part), own.max_len, 0, surroundings, part) for part in ("val", "test")
    )
    assert val.loss == pytest.approx(curve[-1]["val_loss"], rel=1e-6)
    assert (val.accuracy, test.accuracy) == (record["val_accuracy"], record["test_accuracy"])


@pytest.mark.slow
def test_more_processes_than_examples_are_refused(tmp_path):
    done = train(tmp_path / "x", 2, "attn=vmean", "trainer.batch_size=1")
    assert done.returncode != 0
    assert "2 processes cannot share batches of trainer.batch_size=1" in done.stderr
