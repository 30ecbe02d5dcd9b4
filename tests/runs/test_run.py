"""One run from configuration to record: keys, folders, failures, skipping."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from lra.errors import InputError
from lra.files import write_atomically
from lra.machine import environment
from lra.machine.stopping import StoppedError
from lra.records.collection import import_records, load_records
from lra.records.folder import RunFolder
from lra.records.record import RunRecord
from lra.records.wandb_mirror import HISTORY, WandbMirror
from lra.reports.watch import watch_report
from lra.runs.run import Job, run
from lra.runs.summary import summarize
from tests.helpers.toy import ToyTask
from tests.helpers.training import TRAINER, model_for

SHORT = dataclasses.replace(TRAINER, steps=6, eval_every=3)
CONFIG: dict[str, Any] = {
    "task": {"name": "toy", "version": 1},
    "attn": {"name": "softmax", "version": 1},
    "protocol": {"name": "plain", "version": 1},
    "scale": "smoke",
    "seed": 0,
}


def train(
    results_dir: Path,
    build=None,
    mode="disabled",
    source: dict | None = None,
    force=False,
    profile=False,
    **changes,
) -> tuple[RunRecord, Path]:
    record, folder = run(
        Job(
            config={**CONFIG, **changes},
            task=ToyTask(),
            build_model=build or (lambda: model_for(ToyTask())),
            trainer=SHORT,
            device=torch.device("cpu"),
            results_dir=results_dir,
            checkpoint_seconds=0,
            profile=profile,
            command="python run.py",
            wandb={"mode": mode, "project": "lra", "entity": None},
            source=source or {},
            force=force,
        )
    )
    return record, folder.path


def test_a_run_leaves_a_whole_record_and_its_curve(tmp_path):
    record, folder = train(tmp_path)
    assert folder == tmp_path / "runs" / "toy" / "softmax" / record.key
    assert record == RunRecord.read(folder / "record.json")
    num_params = sum(weight.numel() for weight in model_for(ToyTask()).parameters())
    assert (record.status, record.steps, record.num_params, record.batch_size) == ("ok", 6, num_params, 32)
    assert 0 <= record.test_accuracy <= 1
    assert record.floors["majority"] > 0
    assert record.environment["num_threads"] == torch.get_num_threads()
    assert record.peak_memory_bytes > 10**5
    assert record.ms_per_step > 0
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == [3, 6]
    assert curve[record.best_step // 3 - 1]["val_accuracy"] == record.val_accuracy
    weights = torch.load(folder / "weights.pt", weights_only=True)
    model_for(ToyTask()).load_state_dict(weights)


def test_the_mirror_has_the_curve_and_its_cost(tmp_path, monkeypatch):
    points = []
    monkeypatch.setattr(WandbMirror, "log", lambda self, values: points.append(values))
    record, _ = train(tmp_path)
    assert [point["step"] for point in points] == [3, 6]
    assert points[-1].keys() >= HISTORY.keys()
    assert points[-1]["ms_per_step"] == record.ms_per_step
    assert points[-1]["peak_memory_bytes"] <= record.peak_memory_bytes  # which also has what follows the last point


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_profiler_keeps_in_memory_is_in_no_record(tmp_path):
    record, folder = train(tmp_path, profile=True)
    assert record.status == "ok"
    assert record.peak_memory_bytes is record.peak_memory_reserved_bytes is None
    assert record.key == folder.name == train(tmp_path / "plain")[0].key


def test_operations_that_cannot_be_counted_are_no_failure(tmp_path, monkeypatch, caplog):
    assert train(tmp_path)[0].training_flops == 3 * train(tmp_path)[0].forward_flops > 0

    def refuse(*_):
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr("lra.runs.run.count_flops", refuse)
    record, _ = train(tmp_path, seed=1)
    assert (record.status, record.forward_flops) == ("ok", None)
    assert "could not be examined: no such kernel" in caplog.text


def test_every_field_of_the_contract_is_in_the_file(tmp_path):
    _, folder = train(tmp_path)
    names = (
        "task attn protocol scale seed status test_accuracy val_accuracy last_test_accuracy train_seconds ms_per_step "
        "peak_memory_bytes num_params device commit config data environment floors key group date command schema"
    )
    assert set(names.split()) <= set(json.loads((folder / "record.json").read_text()))


def test_two_empty_folders_give_the_same_metrics_bit_for_bit(tmp_path):
    def outcome(folder):
        record, place = train(tmp_path / folder)
        curve = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        for point in curve:
            del point["train_seconds"]
        return record.key, record.test_accuracy, record.last_test_accuracy, curve

    assert outcome("a") == outcome("b")


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, _ = train(tmp_path)
    again, _ = train(tmp_path, build=lambda: pytest.fail("it trained again"))
    assert again == first


def test_a_run_begins_with_what_data_it_uses_trained_or_not(tmp_path, caplog):
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            train(tmp_path)
        assert caplog.messages[0] == "Data of toy: made, toy; 256 train, 64 val, 67 test."


def test_the_key_follows_what_determines_the_numbers(tmp_path):
    keys = [
        train(tmp_path, **changes)[0]
        for changes in ({}, {"seed": 1}, {"attn": {"name": "softmax", "version": 2}}, {"scale": "mini"})
    ]
    assert len({record.key for record in keys}) == 4
    assert keys[0].group == keys[1].group
    assert len({record.group for record in keys}) == 3


class Fails(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.error = error

    def forward(self, tokens, mask):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("shapes do not match"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_failure_leaves_a_record_with_its_traceback(tmp_path, error, status):
    expected = type(error) if status in ("failed", "interrupted") else None
    if expected:
        with pytest.raises(expected):
            train(tmp_path, build=lambda: Fails(error))
    else:
        train(tmp_path, build=lambda: Fails(error))
    (path,) = tmp_path.glob("runs/*/*/*/record.json")
    record = RunRecord.read(path)
    assert record.status == status
    assert "in forward" in record.error
    assert record.test_accuracy is None
    assert record.is_final == (expected is None)
    if not record.is_final:  # what is no result is tried again
        assert train(tmp_path)[0].status == "ok"


def test_divergence_is_a_result(tmp_path):
    class Nan(Fails):
        def forward(self, tokens, mask):
            return self.weight.expand(len(tokens), 3) * torch.nan

    record, _ = train(tmp_path, build=lambda: Nan(ValueError()))
    assert record.status == "diverged"
    assert "training loss is nan at step 1" in record.error


def test_a_folder_of_another_configuration_is_refused_and_kept(tmp_path):
    _, folder = train(tmp_path)
    _, other = train(tmp_path, seed=1)
    (folder / "config.json").write_bytes((other / "config.json").read_bytes())
    before = (folder / "record.json").read_bytes()
    with pytest.raises(InputError, match="holds another configuration"):
        train(tmp_path)
    assert (folder / "record.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{}", "[]", "no json", "[" * 10**5, "\x00", '{"seed": 0}'], ids=repr)
def test_a_damaged_configuration_is_set_aside_by_name(tmp_path, caplog, content):
    first, folder = train(tmp_path)
    whole = (folder / "config.json").read_bytes()
    (folder / "config.json").write_text(content)
    assert train(tmp_path, build=lambda: pytest.fail("trained again"))[0] == first
    assert (folder / "config.json").read_bytes() == whole
    assert (folder / "config.json.damaged").read_text() == content
    assert f"{folder / 'config.json'}: " in caplog.text
    assert "It is set aside as config.json.damaged." in caplog.text


def test_a_class_that_moved_is_no_other_run_and_is_named(tmp_path, caplog):
    name = {"name": "softmax", "version": 1}
    first, folder = train(tmp_path, attn={**name, "_target_": "models.here.Softmax"})
    assert train(tmp_path, attn={**name, "_target_": "models.here.Softmax"})[0] == first
    assert "was begun with" not in caplog.text
    again, _ = train(tmp_path, build=lambda: pytest.fail("trained again"), attn={**name, "_target_": "there.Softmax"})
    assert again == first
    assert first.config["attn"]["_target_"] == "models.here.Softmax"
    assert f"{folder / 'config.json'} was begun with models.here.Softmax, which is now there.Softmax" in caplog.text


@pytest.mark.parametrize("changes", [{"seed": -1}, {"scale": "a/b"}, {"attn": {"name": "a\nb", "version": 1}}])
def test_what_could_not_be_read_again_is_not_begun(tmp_path, changes):
    with pytest.raises(InputError, match="There can be no record of this run: "):
        train(tmp_path, **changes)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_cannot_begin_has_not_begun(tmp_path):
    def build():
        raise InputError("It has no such model.")

    with pytest.raises(InputError, match="no such model"):
        train(tmp_path, build=build)
    assert RunFolder.all(tmp_path) == []
    assert "Nothing has begun." in watch_report(tmp_path).intro[0]
    train(tmp_path)


def facts(record: RunRecord) -> tuple:
    return record.key, record.status, record.test_accuracy, record.last_test_accuracy, record.best_step


def replaced(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, other: path.write_text('{"schema": 1'),
        lambda path, other: path.write_bytes(b"\xff\xfe"),
        lambda path, other: path.write_text("[" * 10**5),
        lambda path, other: (path.unlink(), path.mkdir()),
        lambda path, other: path.write_bytes(other.read_bytes()),
        lambda path, other: replaced(path, ms_per_step="fast"),
        lambda path, other: replaced(path, attn=None),
        lambda path, other: replaced(path, task=5),
        lambda path, other: replaced(path, seed=7),
        lambda path, other: replaced(path, schema=2),
    ],
    ids=["cut", "bytes", "deep", "folder", "of_another", "text", "null", "number", "seed", "schema"],
)
def test_a_damaged_record_is_set_aside_by_name_and_the_run_done_again(tmp_path, caplog, damage):
    first, folder = train(tmp_path)
    _, other = train(tmp_path, seed=1)
    path = folder / "record.json"
    damage(path, other / "record.json")
    damaged = path.read_bytes() if path.is_file() else b""
    again, _ = train(tmp_path)
    assert facts(again) == facts(first)
    assert RunRecord.read(path) == again
    aside = folder / "record.json.damaged"
    assert (aside.read_bytes() if aside.is_file() else b"") == damaged
    assert str(path) in caplog.text
    assert "It is set aside as record.json.damaged." in caplog.text
    assert train(tmp_path, build=lambda: pytest.fail("trained again"))[0] == again


def test_what_stands_in_the_way_of_a_run_is_set_aside(tmp_path, caplog):
    """A folder of the name of each file that a run writes."""
    first, folder = train(tmp_path)
    names = ["config.json", "record.json", "metrics.jsonl", "predictions.npz", "weights.pt", ".holder"]
    for name in names:
        (folder / name).unlink()
        (folder / name).mkdir()
    again, _ = train(tmp_path)
    assert facts(again) == facts(first)
    for name in names:
        assert (folder / name).is_file()
        assert (folder / f"{name}.damaged").is_dir()
        assert str(folder / name) in caplog.text


def test_a_run_that_another_process_trains_is_refused(tmp_path):
    _, folder = train(tmp_path)
    (folder / "record.json").unlink()
    with (
        FileLock(folder / ".lock"),
        pytest.raises(InputError, match=f"is training this run .*: process {os.getpid()} on"),
    ):
        train(tmp_path)


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: Not a directory. .*results_dir="):
        train(tmp_path / "file")


def test_a_disk_without_room_for_the_weights_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40 - 2**20, 2**20))
    with pytest.raises(InputError, match="The run needs 2 MiB in .*, where 1 are free. Make room, or .*results_dir="):
        train(tmp_path, build=lambda: Fails(AssertionError("it was trained")))
    assert not list(tmp_path.rglob("record.json"))


class Heavy(nn.Module):
    """Weights of 400 kB, of which three count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(100_000))

    def forward(self, tokens, mask):
        return self.weight[:3].expand(len(tokens), 3)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writing fail beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_costs_no_result(tmp_path, caplog):
    with files_of_at_most(2**17), pytest.raises(InputError) as caught:
        train(tmp_path, build=Heavy)
    assert re.match(
        r"The result of this run, with a test accuracy of \d+\.\d%, in .* cannot be written: File too large\. "
        r"Make room: the same command goes on from the last checkpoint and writes it\.",
        str(caught.value),
    )
    assert "checkpoint of step 3 could not be written" in caplog.text
    assert not list(tmp_path.rglob("record.json"))
    assert not list(tmp_path.rglob("weights.pt"))
    assert train(tmp_path, build=Heavy)[0].status == "ok"


def test_a_curve_that_cannot_be_written_is_with_the_next_point(tmp_path, monkeypatch, caplog):
    failures = iter([OSError(28, "No space left on device")])

    def write(path, content):
        if path.name == "metrics.jsonl" and (error := next(failures, None)):
            raise error
        write_atomically(path, content)

    monkeypatch.setattr("lra.runs.run.write_atomically", write)
    record, folder = train(tmp_path)
    assert record.status == "ok"
    assert "The learning curve cannot be written now (No space left on device)" in caplog.text
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_finished_run_of_another_user_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    first, folder = train(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    again, _ = train(tmp_path, build=lambda: pytest.fail("trained again"))
    assert again == first
    record = json.loads((folder / "record.json").read_text())
    for content in ("", json.dumps({**record, "status": "failed"}), json.dumps({**record, "key": "0123456789"})):
        (folder / "record.json").write_text(content)
        with pytest.raises(InputError, match="cannot be written: denied. .*results_dir="):
            train(tmp_path)


def test_wandb_may_fail_without_stopping_the_run(tmp_path, monkeypatch, caplog):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(RuntimeError("no room")))
    record, _ = train(tmp_path, mode="offline")
    assert record.status == "ok"
    assert [entry.getMessage() for entry in caplog.records if "wandb failed" in entry.getMessage()] == [
        "wandb failed (no room); the run goes on, and its record on disk is complete."
    ]
    with pytest.raises(InputError, match="wandb.mode must be one of online, offline, disabled. Got 'of'"):
        train(tmp_path, mode="of", seed=7)


def test_wandb_is_told_what_the_record_holds_and_is_always_finished(tmp_path, monkeypatch):
    import wandb

    class Run:
        def __init__(self):
            self.summary, self.points, self.exit_code = {}, [], None

        def define_metric(self, *names, **options):
            pass

        def log(self, values, step, commit):
            self.points.append((step, values))
            if len(self.points) == 2 and failing:
                raise RuntimeError("disk full")

        def finish(self, exit_code):
            self.exit_code = exit_code

    for failing in (False, True):
        fake, options = Run(), {}
        monkeypatch.setattr(wandb, "init", lambda fake=fake, options=options, **given: options.update(given) or fake)
        record, folder = train(tmp_path / str(failing), mode="offline")
        assert (options["id"], options["group"], options["dir"]) == (record.key, "toy-softmax-plain-smoke", folder)
        assert [step for step, _ in fake.points] == [3, 6]
        assert fake.exit_code is not None
        if not failing:
            assert fake.summary["test_accuracy"] == record.test_accuracy
            assert fake.exit_code == 0


def test_a_record_of_another_schema_is_refused(tmp_path):
    _, folder = train(tmp_path)
    path = folder / "record.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match="its schema is 2, and this program reads 1"):
        RunRecord.read(path)


def test_what_a_run_writes_does_not_make_its_code_another(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    for name in ("lra/code.py", "results/rows.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (tmp_path / "results" / "rows.jsonl").write_text("2")
    (tmp_path / "notes.txt").write_text("no code")
    assert re.fullmatch("[0-9a-f]{40}", environment.current_commit())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text("1")
    assert environment.current_commit().endswith("-dirty")
    (tmp_path / "models" / "mine.py").unlink()
    (tmp_path / "lra" / "code.py").write_text("2")
    assert environment.current_commit().endswith("-dirty")


BEFORE = {"models.attention.foo": "0123456789", "models.attention": "9876543210"}
AFTER = {**BEFORE, "models.attention.foo": "abcdef0123"}
TARGET = {"attn": {"name": "softmax", "version": 1, "_target_": "models.attention.softmax.SoftmaxAttention"}}


@pytest.fixture
def source(monkeypatch):
    """A function that says what the source of every mechanism is."""

    def be(modules: dict[str, str]) -> dict[str, str]:
        monkeypatch.setattr("lra.records.record.source_of", lambda target: modules)
        return modules

    return be


def test_a_record_names_the_source_of_its_numbers_which_is_no_part_of_its_key(tmp_path):
    first, _ = train(tmp_path / "a", source=BEFORE)
    second, _ = train(tmp_path / "b", source=AFTER)
    unknown, folder = train(tmp_path / "c")
    assert (first.environment["source"], second.environment["source"]) == (BEFORE, AFTER)
    assert first.key == second.key == unknown.key
    assert "source" not in json.loads((folder / "record.json").read_text())["environment"]


@pytest.mark.parametrize("status", ["ok", "diverged"])
def test_a_result_of_other_source_is_not_passed_off_silently(tmp_path, caplog, source, status):
    first, folder = train(tmp_path, source=source(BEFORE), **TARGET)
    dataclasses.replace(first, status=status).write(folder)
    caplog.clear()
    train(tmp_path, source=source(BEFORE), **TARGET)
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]
    again, _ = train(tmp_path, source=source(AFTER), **TARGET)
    [line] = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert line.startswith("Finished before, but models.attention.foo has changed since: force=true trains it again")
    assert again.environment == first.environment
    assert "source         models.attention.foo has changed since: not a result of the present" in summarize(
        again, RunFolder(folder)
    )


def test_nothing_is_said_of_a_record_that_names_no_source(tmp_path, caplog, source):
    train(tmp_path, **TARGET)
    _, folder = train(tmp_path, source=source(AFTER), **TARGET)
    assert "changed" not in caplog.text
    assert "changed" not in summarize(RunRecord.read(folder / "record.json"), RunFolder(folder))


def test_force_trains_again_and_keeps_the_earlier_result_where_no_report_reads_it(tmp_path, caplog, source):
    theirs = tmp_path / "theirs"
    _, folder = train(theirs, source=source(BEFORE), **TARGET)
    names = ("record.json", "metrics.jsonl", "predictions.npz", "weights.pt")
    before = {name: (folder / name).read_bytes() for name in names}
    new, _ = train(theirs, source=source(AFTER), force=True, **TARGET)
    assert new.environment["source"] == AFTER
    assert {name: (folder / f"{name}.replaced-1").read_bytes() for name in names} == before
    assert load_records(theirs) == [new]
    train(theirs, source=AFTER, force=True, **TARGET)
    assert RunRecord.read(folder / "record.json.replaced-2") == new
    assert len(load_records(theirs)) == 1
    assert import_records(tmp_path, theirs)[1:] == (1, 0)
    assert "Left out" not in caplog.text
    train(theirs, build=lambda: pytest.fail("it trained again"), source=AFTER, **TARGET)


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A run of the source BEFORE that was stopped after a few steps."""
    with monkeypatch.context() as patch:
        patch.setattr("lra.machine.stopping.StopRequest.cause", signal.SIGTERM, raising=False)
        patch.setattr("lra.machine.stopping.StopRequest.__init__", lambda self: None)
        with pytest.raises(StoppedError):
            train(tmp_path, source=BEFORE, **TARGET)
    return tmp_path


def test_a_run_that_goes_on_with_other_source_says_so_and_is_of_neither(interrupted, caplog, source):
    record, folder = train(interrupted, source=source(AFTER), **TARGET)
    assert "models.attention.foo has changed while this run was interrupted. It goes on, as the result of both" in (
        caplog.text
    )
    assert record.environment["source"] == {**BEFORE, "models.attention.foo": "0123456789+abcdef0123"}
    assert record.changed_modules == ["models.attention.foo"]
    assert len(record.resumptions) == 1
    assert record == RunRecord.read(folder / "record.json")


def test_a_run_that_goes_on_with_the_same_source_says_nothing_of_it(interrupted, caplog, source):
    record, _ = train(interrupted, source=source(BEFORE), **TARGET)
    assert "changed" not in caplog.text
    assert (record.environment["source"], record.changed_modules) == (BEFORE, [])


def test_force_begins_anew_where_a_checkpoint_is_of_other_source_and_goes_on_from_its_own(interrupted, caplog, source):
    record, _ = train(interrupted, source=source(AFTER), force=True, **TARGET)
    assert (record.environment["source"], record.resumptions) == (AFTER, [])
    assert "cannot be used (models.attention.foo has changed since)" in caplog.text


def test_force_goes_on_with_what_it_began(interrupted, source):
    record, _ = train(interrupted, source=source(BEFORE), force=True, **TARGET)
    assert len(record.resumptions) == 1
