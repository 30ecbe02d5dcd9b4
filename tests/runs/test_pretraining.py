"""The stage before a run: what reaches it, what its key depends on, and how it is found, stopped and damaged."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from lra.configuration import compose_config
from lra.errors import InputError
from lra.files import ROOT
from lra.machine.distributed import World
from lra.machine.stopping import StoppedError
from lra.records.identity import identify, run_key
from lra.records.pretrained import FORM
from lra.records.record import RunRecord
from lra.runs import encoders as encoders_module
from lra.runs.encoders import Encoders
from lra.runs.factory import make_model, make_trainer, mechanism_of
from lra.runs.pretraining import make_pretraining, staged
from lra.runs.run import Job, run
from lra.runs.schema import resolve
from lra.runs.summary import summarize
from lra.tasks import Split
from lra.training import storage
from lra.training.checkpoint import Checkpoints
from lra.training.trainer import Trainer
from scripts import baseline
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, numbers

SMALL = (
    "scale=smoke", "model.dim=16", "model.head_dim=8", "model.mlp_dim=32", "trainer.steps=6", "trainer.eval_every=3",
    "optimizer.warmup_steps=2", "pretrain.steps=8", "pretrain.eval_every=4", "pretrain.batch_size=32",
)  # fmt: skip


def configured(*words: str) -> dict[str, Any]:
    masked = () if any(word.startswith("pretrain=") for word in words) else ("pretrain=masked",)
    of_none = "pretrain=none" in words
    shared = any(word.startswith("pretrain.share=") for word in words)
    left_out = "pretrain." if of_none else "pretrain.steps=" if shared else "nothing"
    small = [word for word in SMALL if not word.startswith(left_out)]
    return staged(resolve(compose_config(*masked, *small, *words)))


def job(results_dir: Path, *words: str, task: ToyTask | None = None) -> Job:
    resolved, task = configured(*words), task or ToyTask()
    name = next((word.removeprefix("attn=") for word in words if word.startswith("attn=")), "softmax")
    attn = {**resolved["attn"], "name": name, "version": mechanism_of(resolved["attn"]).version}
    return Job(
        config=identify(resolved, "toy", task, attn),
        task=task,
        build_model=lambda: make_model(resolved, task),
        pretraining=make_pretraining(resolved, "toy", task, attn),
        trainer=make_trainer(resolved),
        device=CPU,
        results_dir=results_dir,
        checkpoint_seconds=0,
        profile=False,
        command="python run.py",
        wandb={"mode": "disabled", "project": "lra", "entity": None},
    )


def begin(results_dir: Path, *words: str, task: ToyTask | None = None) -> RunRecord:
    return run(job(results_dir, *words, task=task))[0]


def facts(results_dir: Path, record: RunRecord) -> tuple:
    path = results_dir / "runs" / record.task / record.attn / record.key / "metrics.jsonl"
    curve = [json.loads(line) for line in path.read_text().splitlines()]
    return record.key, record.test_accuracy, record.last_test_accuracy, record.best_step, numbers(curve)


def encoder_of(results_dir: Path) -> Path:
    [path] = results_dir.glob("pretrained/*/*/*/record.json")
    return path.parent


@cache
def key_of(*words: str, task: ToyTask | None = None) -> str:
    made = job(Path(), *words, task=task)
    assert made.pretraining is not None
    options = {"checkpoint_seconds": 0, "command": "", "source": {}, "force": False}
    return Encoders(made.pretraining, made.task, device=CPU, results_dir=Path(), **options).key


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_a_run_begins_with_an_encoder_and_tells_what_it_cost(tmp_path, kind):
    record, folder = run(job(tmp_path, f"pretrain={kind}"))
    stage = FORM.parse((encoder_of(tmp_path) / "record.json").read_bytes())
    assert (record.status, record.steps, stage.steps, stage.kind) == ("ok", 6, 8, kind)
    assert record.pretraining == stage.summary(reused=False)
    assert RunRecord.read(folder.record) == record
    assert [point["step"] for point in stage.curve] == [4, 8]
    assert stage.best_step in (4, 8)
    assert stage.score == "token_accuracy"
    assert stage.train_seconds > 0
    assert stage.peak_memory_bytes > 0
    assert stage.key == run_key(stage.config) == encoder_of(tmp_path).name == key_of(f"pretrain={kind}")
    assert not list(encoder_of(tmp_path).glob("checkpoint-*"))
    assert f"pre-training   {kind}, 8 steps, " in summarize(record, folder)


def test_its_record_stays_without_the_stage_where_there_is_none(tmp_path):
    record, folder = run(job(tmp_path, "pretrain=none"))
    assert "pretraining" not in json.loads(folder.record.read_text())
    assert record.pretraining is None
    assert not (tmp_path / "pretrained").exists()


def test_the_classifier_begins_with_the_best_weights_by_every_name(tmp_path, monkeypatch):
    began = {}

    def fit(self, model, *rest, **more):
        began.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return whole(self, model, *rest, **more)

    begin(tmp_path, "seed=1")
    whole = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", fit)
    begin(tmp_path, "seed=1", "optimizer.learning_rate=0.01")
    weights = storage.load(encoder_of(tmp_path) / "weights.pt", CPU)
    of_encoder = {name: tensor for name, tensor in began.items() if name.startswith("encoder.")}
    assert {f"encoder.{name}" for name in weights} == set(of_encoder)
    assert all(torch.equal(weights[name.removeprefix("encoder.")], tensor) for name, tensor in of_encoder.items())


def test_another_run_with_other_settings_of_its_own_finds_the_encoder_and_nothing_else_is_changed(tmp_path):
    other = "optimizer.learning_rate=0.01"
    first, second = begin(tmp_path / "a"), begin(tmp_path / "a", other)
    assert (first.pretraining["reused"], second.pretraining["reused"]) == (False, True)
    assert {**first.pretraining, "reused": True} == second.pretraining
    assert len(list((tmp_path / "a").glob("pretrained/*/*/*"))) == 1
    alone = begin(tmp_path / "b", other)
    assert facts(tmp_path / "b", alone) == facts(tmp_path / "a", second)
    assert not alone.pretraining["reused"]


@pytest.mark.parametrize(
    "word",
    [
        "optimizer.learning_rate=0.01", "optimizer.weight_decay=0.5", "trainer.steps=7",
        "optimizer.schedule=cosine optimizer.cycle_momentum=false",
        "trainer.batch_size=8", "trainer.eval_batch_size=250", "model.pooling=max", "trainer.eval_every=2",
        "trainer.patience=3",
        "model.head_depth=3", "trainer.checkpoint_seconds=7", "model.pair_features=concat",
    ],
)  # fmt: skip
def test_settings_of_the_training_that_follows_leave_the_key(word):
    assert key_of(*word.split()) == key_of()


@pytest.mark.parametrize(
    "word",
    [
        "seed=1", "pretrain.rate=0.2", "pretrain.steps=9", "pretrain.learning_rate=0.01", "pretrain.batch_size=8",
        "pretrain.eval_every=2", "pretrain=causal", "model.depth=3", "model.dim=32", "attn=local",
        "budget=2 attn=local",
        "data.bucket_batches=1", "trainer.precision=bf16", "model.dropout=0.0", "model.pooling=cls",
        "model.embedding_std=0.5", "model.num_positions=20", "model.positions=rotary", "model.stem.kind=conv",
        "model.real_valued={mean:4.0,std:2.0}", "model.real_valued={mean:4.0,std:2.0} pretrain.number_loss=l1",
    ],
)  # fmt: skip
def test_whatever_determines_the_encoder_changes_the_key(word):
    others = {key_of(), key_of("attn=local"), key_of("model.real_valued={mean:4.0,std:2.0}")}
    assert key_of(*word.split()) != key_of()
    assert key_of(*word.split(), "seed=7") not in others


def test_other_data_have_another_key():
    assert key_of(task=ToyTask(sizes=(256, 64, 68))) != key_of()


def test_another_task_of_the_same_data_has_another_key():
    class Longer(ToyTask):
        max_len = 14

    assert key_of(task=Longer()) != key_of()


class Poisoned(ToyTask):
    """The toy task with something else in a split: in its labels, or in its tokens."""

    def __init__(self, part: str, what: str) -> None:
        super().__init__()
        self.part, self.what = part, what

    def split(self, part) -> Split:
        split = super().split(part)
        if part != self.part:
            return split
        if self.what == "labels":
            return split._replace(labels=2 - split.labels)
        return split._replace(tokens=(8 - split.tokens).astype(np.uint8))


def trained(folder: Path, task: ToyTask, kind: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The last weights of a stage, and its training losses."""
    kept = {}

    class Keep(Checkpoints):
        def save(self, step, state):
            kept.update(state["stepper"]["model"])

    patch = pytest.MonkeyPatch()
    patch.setattr(encoders_module, "Checkpoints", Keep)
    begin(folder, f"pretrain={kind}", task=task)
    patch.undo()
    record = FORM.parse((encoder_of(folder) / "record.json").read_bytes())
    return kept, [point["train_loss"] for point in record.curve]


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize(
    ("part", "what"),
    [("train", "labels"), ("val", "labels"), ("test", "labels"), ("val", "tokens"), ("test", "tokens")],
)
def test_no_label_and_nothing_of_other_splits_is_learned(tmp_path, kind, part, what):
    weights, losses = trained(tmp_path / "a", ToyTask(), kind)
    others, other_losses = trained(tmp_path / "b", Poisoned(part, what), kind)
    assert losses == other_losses
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    if (part, what) != ("val", "tokens"):  # which choose the best weights
        first, second = (storage.load(encoder_of(tmp_path / name) / "weights.pt", CPU) for name in "ab")
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_inputs_are_learned(tmp_path):
    assert (
        trained(tmp_path / "a", ToyTask(), "masked")[1]
        != trained(tmp_path / "b", Poisoned("train", "tokens"), "masked")[1]
    )


@pytest.mark.parametrize(("share", "first"), [(0.5, 10), (0.2, 4), (0.07, 1), (0.95, 19)])
def test_a_share_ties_the_steps_of_both_stages(tmp_path, share, first):
    record = begin(tmp_path, f"pretrain.share={share}", "trainer.steps=20", "optimizer.warmup_steps=0")
    assert (record.pretraining["steps"], record.steps) == (first, 20 - first)
    assert record.config["trainer"]["steps"] == 20
    assert record.config["pretrain"]["share"] == share


def test_a_share_of_0_is_the_model_without_the_stage(tmp_path):
    none, share = begin(tmp_path, "pretrain=none"), begin(tmp_path, "pretrain.share=0")
    assert share.pretraining is None
    assert facts(tmp_path, none)[1:] == facts(tmp_path, share)[1:]
    assert none.key != share.key
    causal = begin(tmp_path, "pretrain=causal", "pretrain.share=0")
    assert causal.pretraining is None
    assert causal.config["attn"]["causal"] is True
    assert facts(tmp_path, causal)[4] != facts(tmp_path, none)[4]


@pytest.mark.parametrize(("attn", "name", "value"), [("softmax", "causal", True), ("s4d", "bidirectional", False)])
def test_both_stages_are_causal(tmp_path, attn, name, value):
    record = begin(tmp_path, "pretrain=causal", f"attn={attn}")
    stage = FORM.parse((encoder_of(tmp_path) / "record.json").read_bytes())
    assert record.config["attn"][name] is value
    assert stage.config["attn"][name] is value


@pytest.mark.parametrize(("loss", "score"), [("l1", "r2"), ("cross_entropy", "token_accuracy")])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_numbers_are_predicted_as_numbers_or_as_symbols(tmp_path, kind, loss, score):
    words = f"pretrain={kind}", f"pretrain.number_loss={loss}", "model.real_valued={mean: 4.8, std: 1.9}"
    record = begin(tmp_path, *words)
    assert record.status == "ok"
    assert record.pretraining["score"] == score


@pytest.mark.parametrize(
    "words", [("model.block.norm=batch",), ("model.pooling=cls",), ("attn=mamba",), ("attn=luna",)]
)
def test_other_encoders_are_pre_trained_too(tmp_path, words):
    assert begin(tmp_path, *words).status == "ok"


REFUSED = [
    ("pretrain=causal attn=linformer", "pretrain=causal needs a backbone that can hide later tokens, and "
     "models.attention.linformer.LinformerAttention sees every token. Choose pretrain=masked, or one of "
     "these: attn=aaren, "),
    ("pretrain.rate=0", "pretrain.rate must be a number, more than 0 and below 1, or null. Got 0."),
    ("pretrain.rate=1", "pretrain.rate must be a number, more than 0 and below 1, or null. Got 1."),
    ("pretrain.share=1", "pretrain.share must be a number from 0 to below 1, or null. Got 1."),
    ("pretrain.share=-0.1", "pretrain.share must be a number from 0 to below 1, or null. Got -0.1."),
    ("pretrain.share=0.01", "pretrain.share=0.01 of trainer.steps=6 leaves this stage without a step. Choose another "),
    ("pretrain.share=0.99", "pretrain.share=0.99 of trainer.steps=6 leaves the other stage without a step. Choose "),
    ("pretrain.share=0.8", "pretrain.share=0.8 leaves 1 of trainer.steps=6, and optimizer.warmup_steps must not be "
     "more. Got 2. Choose a smaller share, or a shorter warm-up."),
    ("pretrain.share=0.5 pretrain.steps=9", "pretrain.steps=9 has no effect with pretrain.share=0.5, which takes so "
     "much of trainer.steps. Leave out one of them."),
    ("pretrain=none pretrain.rate=0.3", "pretrain.rate=0.3 has no effect with pretrain=none. Leave it out, or choose "
     "pretrain=masked or pretrain=causal."),
    ("pretrain=causal pretrain.rate=0.3", "pretrain.rate=0.3 has no effect with pretrain=causal. Leave it out, or "
     "choose pretrain=masked."),
    ("pretrain=none pretrain.kind=masked", "pretrain.rate must not be null with pretrain.kind=masked. Choose "
     "pretrain=masked, which sets it, or give a value."),
    ("model.reducer.kind=k_centre_r", "pretrain=masked predicts every token, and model.reducer.kind=k_centre_r leaves "
     "rows of some of them. Set model.reducer.kind=none, or pretrain=none."),
    ("pretrain=causal model.pooling=cls", "pretrain=causal needs model.pooling=mean or max: "),
    ("pretrain=causal model.stem.kind=conv", "pretrain=causal needs model.stem.kind=none: "),
    ("pretrain=causal model.block.norm=batch", "pretrain=causal needs model.block.norm=layer or scale: "),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[words for words, _ in REFUSED])
def test_what_cannot_be_is_said_in_a_sentence(words, sentence):
    with pytest.raises(InputError) as caught:
        configured(*words.split())
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_several_processes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"pretrain=masked takes one process, and there are 2\. Start run\.py without"):
        job(tmp_path).begin(World(0, 2))


def test_a_baseline_is_not_pre_trained():
    with pytest.raises(InputError, match=r"A baseline is not pre-trained\. Leave out pretrain=masked\."):
        baseline.main(["task=listops", "scale=smoke", "pretrain=masked"])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def altered(path: Path) -> None:
    record = json.loads(path.read_text())
    record["config"]["model"]["dim"] = 32
    path.write_text(json.dumps(record))


DAMAGES = {
    "weights_bit": (lambda folder: flip(folder / "weights.pt"), "checksum"),
    "no_weights": (lambda folder: (folder / "weights.pt").unlink(), "it has no weights"),
    "other_width": (
        lambda folder: storage.save({"token.weight": torch.zeros(8, 32)}, folder / "weights.pt"),
        "its weights are of another encoder, for example token.weight",
    ),
    "no_record": (lambda folder: (folder / "record.json").write_text("{"), "record.json"),
    "other_data": (lambda folder: altered(folder / "record.json"), "its description was altered"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_encoder_that_does_not_fit_its_key_is_named_and_made_anew(tmp_path, caplog, name):
    damage, reason = DAMAGES[name]
    begin(tmp_path)
    folder = encoder_of(tmp_path)
    before = storage.load(folder / "weights.pt", CPU)
    damage(folder)
    record = begin(tmp_path, "optimizer.learning_rate=0.01")
    assert record.pretraining["reused"] is False
    assert f"The pre-trained encoder in {folder} cannot be used: " in caplog.text
    assert reason in caplog.text
    assert list(folder.glob("*.damaged"))
    after = storage.load(folder / "weights.pt", CPU)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_encoder_of_other_source_is_named_and_with_force_made_anew(tmp_path, caplog):
    def with_source(digest: str, *words: str, force: bool = False) -> dict[str, Any]:
        source = {"models.attention.softmax": digest} if digest else {}
        run(dataclasses.replace(job(tmp_path, *words), source=source, force=force))
        return FORM.parse((encoder_of(tmp_path) / "record.json").read_bytes()).environment

    assert with_source("a")["source"] == {"models.attention.softmax": "a"}
    assert with_source("", "trainer.steps=5")["source"] == with_source("a", "trainer.steps=7")["source"]
    assert "Pre-trained before" not in caplog.text
    assert with_source("b", "trainer.steps=8")["source"] == {"models.attention.softmax": "a"}
    assert "Pre-trained before, but models.attention.softmax has changed since: force=true pre-trains" in caplog.text
    assert with_source("b", force=True)["source"] == {"models.attention.softmax": "b"}
    assert "cannot be used: models.attention.softmax has changed since. record.json is " in caplog.text
    made = encoder_of(tmp_path) / "record.json"
    before = made.stat().st_mtime_ns
    with_source("b", "trainer.steps=8", force=True)  # of the present source already
    assert made.stat().st_mtime_ns == before


def test_a_second_run_waits_for_the_first_and_takes_its_encoder(tmp_path, monkeypatch):
    """The first one is here who holds the lock, and leaves what it made before it lets go."""
    monkeypatch.setattr("lra.records.pretrained.LOOK_SECONDS", 0.01)
    begin(tmp_path)
    folder = encoder_of(tmp_path)
    (folder / "record.json").rename(folder / "kept")
    lock, seen = FileLock(folder / ".lock", thread_local=False), []
    lock.acquire()

    def let_go() -> None:
        while not seen:
            time.sleep(0.01)
        (folder / "kept").rename(folder / "record.json")
        lock.release()

    monkeypatch.setattr("lra.records.pretrained.log.info", lambda *words: seen.append(words))
    other = threading.Thread(target=let_go)
    other.start()
    record = begin(tmp_path, "optimizer.learning_rate=0.01")
    other.join()
    assert "waiting for it" in seen[0][0]
    assert record.pretraining["reused"] is True


def test_a_finished_encoder_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    begin(tmp_path)
    monkeypatch.setattr("lra.records.pretrained.FileLock", lambda *_, **__: pytest.fail("it asked for a lock"))
    assert begin(tmp_path, "optimizer.learning_rate=0.01").pretraining["reused"] is True


def stopping_after(looks: int):
    """Ask to stop at the n-th look of the process at the request."""
    left = iter(range(looks))
    return property(lambda self: None if next(left, None) is not None else signal.SIGTERM, lambda self, value: None)


@pytest.mark.parametrize("looks", [3, 7, 12, 16])
def test_a_run_stopped_in_either_stage_ends_as_an_undisturbed_one(tmp_path, monkeypatch, looks):
    whole = begin(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("lra.machine.stopping.StopRequest.cause", stopping_after(looks), raising=False)
        with pytest.raises(StoppedError):
            begin(tmp_path / "stopped")
    record = begin(tmp_path / "stopped")
    assert facts(tmp_path / "stopped", record) == facts(tmp_path / "whole", whole)
    first, second = (storage.load(encoder_of(tmp_path / name) / "weights.pt", CPU) for name in ("whole", "stopped"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    stage = FORM.parse((encoder_of(tmp_path / "stopped") / "record.json").read_bytes())
    assert len(stage.resumptions) + len(record.resumptions) == 1


class Repeats(ToyTask):
    """Say whether the second half of a sequence repeats the first."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__(sizes=(2000, 500, 1000))

    def split(self, part) -> Split:
        rng = np.random.default_rng([len(part), self.sizes[part]])
        labels = rng.integers(0, 2, self.sizes[part])
        halves = rng.integers(1, 8, (self.sizes[part], 2, 6))
        halves[labels == 1, 1] = halves[labels == 1, 0]
        return Split(halves.astype(np.uint8).ravel(), 12 * np.arange(self.sizes[part] + 1), labels)


@pytest.mark.slow
def test_it_helps_where_inputs_tell_what_labels_ask_for(tmp_path):
    words = (
        "trainer.steps=300", "trainer.eval_every=100", "trainer.batch_size=32", "optimizer.warmup_steps=30",
        "trainer.eval_batch_size=250", "optimizer.learning_rate=1e-3", "model.dim=32", "model.head_dim=16",
    )  # fmt: skip
    scratch = begin(tmp_path, *words, "pretrain=none", task=Repeats())
    masked = begin(
        tmp_path, *words, "pretrain.steps=1500", "pretrain.eval_every=500", "pretrain.rate=0.15", task=Repeats()
    )
    assert masked.test_accuracy > scratch.test_accuracy + 0.1


@pytest.mark.slow
def test_a_process_killed_in_either_stage_and_started_again_gives_the_same_metrics(tmp_path):
    """Real processes, killed without warning at random moments of both stages."""
    words = [
        sys.executable, "run.py", "attn=softmax", "scale=smoke", "wandb.mode=disabled", "trainer.steps=300",
        "trainer.eval_every=40", "trainer.checkpoint_seconds=0", "device=cpu", "pretrain=masked", "pretrain.steps=300",
        "pretrain.eval_every=40",
    ]  # fmt: skip
    environment = {**os.environ, "LRA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def start(results: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*words, f"results_dir={tmp_path / results}"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def result(name: str) -> tuple:
        [path] = tmp_path.glob(f"{name}/runs/*/*/*/record.json")
        record = RunRecord.read(path)
        weights = storage.load(encoder_of(tmp_path / name) / "weights.pt", CPU)
        return facts(tmp_path / name, record), {name: tensor.tolist() for name, tensor in weights.items()}

    undisturbed = start("whole")
    undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0
    rng = random.Random(0)
    for stage in ("pretrained", "runs"):
        process, target, killed = start("killed"), rng.randrange(20, 280), False
        while process.poll() is None:
            folder = tmp_path.glob(f"killed/{stage}/*/*/*/checkpoint-*.pt")
            if max((int(path.stem.split("-")[1]) for path in folder), default=0) >= target:
                process.kill()
                killed = True
                break
            time.sleep(0.002)
        process.communicate()
        assert killed
    last = start("killed")
    _, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    assert result("killed") == result("whole")
