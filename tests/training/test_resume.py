"""A run that is stopped, killed or damaged goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lra.errors import InputError
from lra.files import ROOT
from lra.machine.meter import Meter
from lra.machine.stopping import StoppedError, StopRequest, stoppable
from lra.training.batching import Batching
from lra.training.checkpoint import Checkpoints, random_state, set_random_state
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings
from models.attention.softmax_materialised import SoftmaxMaterialisedAttention
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, changed, model_for, numbers

TRAINER = changed(steps=30, eval_every=7, patience=None)


class StopAfter(StopRequest):
    """Asks to stop at the n-th look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def cause(self) -> signal.Signals | None:
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else None

    @cause.setter
    def cause(self, value: signal.Signals | None) -> None:
        pass


def fit(folder: Path, trainer=TRAINER, stop: StopRequest | None = None, key: str = "key", seconds: float = 1e9):
    """Train as the runner does, in a process that has just begun."""
    torch.manual_seed(0)
    model = model_for(ToyTask(), SoftmaxMaterialisedAttention, dropout=0.2)
    outcome = Outcome()
    checkpoints = Checkpoints(folder, key, seconds)
    surroundings = Surroundings(CPU, checkpoints=checkpoints, stop=stop or StopRequest())
    trainer.fit(model, ToyTask(), outcome, seed=0, surroundings=surroundings)
    return outcome


def facts(outcome: Outcome):
    return numbers(outcome.curve), outcome.test_accuracy, outcome.last_test_accuracy, outcome.best_step


def weights(outcome: Outcome) -> list[torch.Tensor]:
    return list(outcome.weights.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("looks", [[1], [9, 5, 12], [33]])
def test_a_stopped_training_ends_bit_for_bit_as_an_undisturbed_one(tmp_path, looks, precision):
    """Each stop falls between two steps or inside an evaluation, validation or test."""
    trainer = changed(steps=30, eval_every=7, precision=precision)
    whole = fit(tmp_path / "nothing", trainer)
    for count in looks:
        with pytest.raises(StoppedError):
            fit(tmp_path, trainer, StopAfter(count))
    resumed = fit(tmp_path, trainer)
    assert facts(resumed) == facts(whole)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))
    assert len(resumed.resumptions) == len(looks)
    assert resumed.cost["train_seconds"] > 0


def test_stopping_early_survives_an_interruption(tmp_path):
    trainer = changed(steps=40, eval_every=2, patience=2, learning_rate=1e-9, warmup_steps=0)
    whole = fit(tmp_path / "nothing", trainer)
    assert whole.stopped_early
    with pytest.raises(StoppedError):
        fit(tmp_path, trainer, StopAfter(5))
    assert facts(fit(tmp_path, trainer)) == facts(whole)


def test_two_checkpoints_are_kept_and_the_older_replaces_a_damaged_one(tmp_path, caplog):
    whole = fit(tmp_path / "nothing")
    with pytest.raises(StoppedError):
        fit(tmp_path, stop=StopAfter(25), seconds=0)
    newest, older = sorted(tmp_path.glob("checkpoint-*.pt"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:1000])
    assert facts(fit(tmp_path)) == facts(whole)
    assert f"{newest} cannot be read" in caplog.text
    for path in (newest, older):
        path.write_bytes(b"")
    assert facts(fit(tmp_path)) == facts(whole)


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path):
    with pytest.raises(StoppedError):
        fit(tmp_path, stop=StopAfter(3), key="theirs")
    with pytest.raises(InputError, match=r"checkpoint-.*\.pt belongs to the run theirs, this one is mine"):
        fit(tmp_path, key="mine")


def test_a_checkpoint_of_other_code_is_used_with_a_word(tmp_path, caplog, monkeypatch):
    Checkpoints(tmp_path, "key", 0).save(3, {"step": 3})
    monkeypatch.setattr("lra.training.checkpoint.current_commit", lambda: "other")
    assert Checkpoints(tmp_path, "key", 0).load(CPU) == {"step": 3}
    assert "the code is now other" in caplog.text


def test_only_plain_values_are_loaded(tmp_path, caplog):
    """A checkpoint is data: unpickling it may not run code."""
    torch.save({"key": "key", "commit": None, "state": Path("x")}, tmp_path / "checkpoint-000000001.pt")
    assert Checkpoints(tmp_path, "key", 0).load(CPU) is None
    assert "cannot be read" in caplog.text


def test_a_full_disk_costs_the_checkpoint_not_the_run(tmp_path, monkeypatch, caplog):
    whole = fit(tmp_path / "nothing")
    Checkpoints(tmp_path, "key", 0).save(1, {"old": 1})

    def fsync(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        (tmp_path / "checkpoint-000000001.pt").rename(tmp_path / "kept")
        outcome = fit(tmp_path, seconds=0)
    assert facts(outcome) == facts(whole)
    assert "could not be written ([Errno 28] No space left on device); training goes on" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def test_the_clock_may_jump(tmp_path, monkeypatch):
    """The time between checkpoints is told by a clock that nobody sets."""
    checkpoints = Checkpoints(tmp_path, "key", 1000)
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert not checkpoints.due()
    later = time.monotonic() + 1001
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert checkpoints.due()


def test_every_generator_of_random_numbers_goes_on(tmp_path):
    state = random_state(CPU)
    path = tmp_path / "state.pt"
    torch.save(state, path)
    drawn = [torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()]  # noqa: NPY002
    set_random_state(torch.load(path, weights_only=True), CPU)
    assert [torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()] == drawn  # noqa: NPY002


def test_the_meter_goes_on_with_a_new_warm_up():
    meter, other = Meter(CPU), Meter(CPU)
    with meter.running():
        for _ in range(5):
            meter.lap(1, 2)
    other.load_state_dict(meter.state_dict())
    with other.running():
        for _ in range(5):
            other.lap(1, 2)
    assert len(other.laps) == 10
    assert other.summary()["train_seconds"] == pytest.approx(sum(other.laps[3:5] + other.laps[8:]))


def test_the_first_signal_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.cause == signal.SIGTERM
        with pytest.raises(StoppedError):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) == before


def test_whoever_waited_for_the_signal_gets_it_at_the_end():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGUSR2)
            assert heard == []
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_an_error_in_a_step_loses_nothing_before_it(tmp_path, monkeypatch):
    """Whatever failed, the data for example: once it is mended, the same command goes on."""
    whole = fit(tmp_path / "nothing")
    gather, calls = Batching.gather, iter(range(1000))

    def fail(self, split, index, max_len):
        if next(calls) == 20:
            raise OSError(5, "Input/output error")
        return gather(self, split, index, max_len)

    with monkeypatch.context() as patch:
        patch.setattr(Batching, "gather", fail)
        with pytest.raises(OSError, match="Input/output error"):
            fit(tmp_path, seconds=0)
    outcome = fit(tmp_path)
    assert outcome.resumptions[0]["step"] > 5
    assert facts(outcome) == facts(whole)


def metrics(folder: Path) -> tuple:
    (path,) = folder.glob("runs/*/*/*/record.json")
    record = json.loads(path.read_text())
    assert len(record["resumptions"]) == (3 if folder.name == "killed" else 0)
    points = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    names = ("key", "status", "best_step", "val_accuracy", "test_accuracy", "last_test_accuracy", "steps")
    return [record[name] for name in names], numbers(points), list(path.parent.glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize("attn", ["skeinformer", "performer"])
def test_a_process_killed_at_any_step_and_started_again_gives_the_same_metrics(tmp_path, attn):
    """Real processes, killed without warning at random moments of their training, three times in a row."""
    words = [
        sys.executable, "run.py", f"attn={attn}", "scale=smoke", "wandb.mode=disabled", "trainer.steps=600",
        "trainer.eval_every=40", "trainer.checkpoint_seconds=0", "device=cpu",
    ]  # fmt: skip
    environment = {**os.environ, "LRA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def start(results: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*words, f"results_dir={tmp_path / results}"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    undisturbed = start("whole")
    undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0
    rng, kills = random.Random(0), 0
    for target in sorted(rng.sample(range(1, 590), 3)):
        process = start("killed")
        while process.poll() is None:
            found = [int(path.stem.split("-")[1]) for path in tmp_path.glob("killed/runs/*/*/*/checkpoint-*.pt")]
            if found and max(found) >= target:
                process.kill()
                kills += 1
                break
            time.sleep(0.002)
        process.communicate()
    assert kills == 3
    last = start("killed")
    _, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
