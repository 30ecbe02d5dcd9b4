"""A run that is stopped, killed or damaged goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lra.files import ROOT
from lra.machine.distributed import World
from lra.machine.meter import Meter
from lra.machine.stopping import StoppedError, StopRequest, stoppable
from lra.training import storage
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


def flip(path: Path, share: float) -> None:
    """Flip a bit of a file, so far from its beginning."""
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def resaved(path: Path, change) -> None:
    """Save a checkpoint again, with its checksum, after a change."""
    saved = storage.load(path, CPU)
    change(saved["state"])
    storage.save(saved, path)


def without_weight(state) -> None:
    state["stepper"]["model"].popitem()


def with_other_shape(state) -> None:
    model = state["stepper"]["model"]
    model[next(reversed(model))] = torch.zeros(5, 7)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "other_text": lambda path: path.write_text("no checkpoint"),
    **{f"bit_at_{share}": partial(flip, share=share) for share in (0, 0.3, 0.5, 0.9, 0.999, 1)},
    "no_checksum": lambda path: path.write_bytes(path.read_bytes()[: -storage.LENGTH]),
    "other_type": lambda path: storage.save([1, 2], path),
    "other_run": lambda path: storage.save({**storage.load(path, CPU), "key": "theirs"}, path),
    "lacks_a_weight": partial(resaved, change=without_weight),
    "lacks_the_meter": partial(resaved, change=lambda state: state.pop("meter")),
    "other_shape": partial(resaved, change=with_other_shape),
    "other_random_state": partial(resaved, change=lambda state: state.update(random=[3])),
    "other_steps": partial(resaved, change=lambda state: state["outcome"].update(steps=10**6)),
    "steps_of_text": partial(resaved, change=lambda state: state["outcome"].update(steps="5")),
    "outcome_of_more": partial(resaved, change=lambda state: state["outcome"].update(more=5)),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(StoppedError):
        fit(folder, stop=StopAfter(25), seconds=0)
    assert len(list(folder.iterdir())) == 2
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return facts(fit(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_the_older_checkpoint_replaces_one_that_cannot_be_used(tmp_path, caplog, stopped, whole, damage):
    """Nothing of the unfit one is used, and it is not lost."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    newest, older = sorted(tmp_path.glob("checkpoint-*.pt"), reverse=True)
    damage(newest)
    outcome = fit(tmp_path)
    assert facts(outcome) == whole
    assert outcome.resumptions[0]["step"] == int(older.stem.split("-")[1])
    [line] = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert line.startswith(f"{newest} cannot be used (")
    assert f"It is {newest.name}.damaged now" in line
    assert newest.with_name(f"{newest.name}.damaged").exists()
    assert "\n" not in line


def test_where_no_checkpoint_can_be_used_the_training_begins_anew(tmp_path, caplog, stopped, whole):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    newest, older = sorted(tmp_path.glob("checkpoint-*.pt"), reverse=True)
    resaved(newest, lambda state: state.pop("meter"))
    older.write_bytes(b"")
    outcome = fit(tmp_path)
    assert facts(outcome) == whole
    assert outcome.resumptions == []
    assert caplog.text.count("cannot be used") == 2
    assert {path.name for path in tmp_path.glob("*.damaged")} == {f"{newest.name}.damaged", f"{older.name}.damaged"}


def test_a_folder_of_the_name_of_an_old_checkpoint_stops_nothing(tmp_path, stopped, whole):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint-000000001.pt").mkdir()
    assert facts(fit(tmp_path, seconds=0)) == whole
    Checkpoints(tmp_path, "key", 0).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000001.pt"]


@pytest.mark.slow
def test_no_flipped_bit_of_a_checkpoint_changes_a_result(tmp_path, stopped, whole):
    for share in np.random.default_rng(0).random(60):
        folder = tmp_path / str(share)
        shutil.copytree(stopped, folder)
        flip(max(folder.iterdir()), share)
        assert facts(fit(folder)) == whole
        assert len(list(folder.glob("*.damaged"))) == 1


def test_torch_reads_what_has_a_checksum(tmp_path):
    path, value = tmp_path / "weights.pt", {"a": torch.arange(5), "b": [1, 2.5, None]}
    storage.save(value, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], value["a"])
    assert storage.load(path, CPU)["b"] == value["b"]
    for position in range(len(path.read_bytes())):  # every byte counts
        content = bytearray(path.read_bytes())
        content[position] ^= 1 << position % 8
        path.with_name("flipped").write_bytes(content)
        with pytest.raises(ValueError, match="checksum"):
            storage.load(path.with_name("flipped"), CPU)


class Toy:
    """A state to be kept."""

    def __init__(self, step: object = 0) -> None:
        self.step = step

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def test_a_checkpoint_of_other_code_is_used_with_a_word(tmp_path, caplog, monkeypatch):
    Checkpoints(tmp_path, "key", 0).save(3, {"step": 3})
    monkeypatch.setattr("lra.training.checkpoint.current_commit", lambda: "other")
    toy = Toy()
    assert Checkpoints(tmp_path, "key", 0).resume(toy, CPU, World())
    assert toy.step == 3
    assert "the code is now other" in caplog.text


def test_only_plain_values_are_loaded(tmp_path, caplog):
    """A checkpoint is data: unpickling it may not run code."""
    storage.save({"key": "key", "commit": None, "state": Path("x")}, tmp_path / "checkpoint-000000001.pt")
    assert not Checkpoints(tmp_path, "key", 0).resume(Toy(), CPU, World())
    assert "cannot be used (torch cannot read it: Weights only load failed" in caplog.text


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
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept"]


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
