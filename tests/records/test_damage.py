"""Whatever befalls a file of a results folder: no report and no run ends otherwise than well or in a sentence."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from lra.errors import InputError
from lra.records.collection import load_records
from lra.records.record import RunRecord
from scripts import report
from tests.helpers.damage import KILLED, Damage, damages, make_results, train

OF_RUNS = (
    ["leaderboard"], ["cost"], ["compare"], ["coverage"], ["failures"], ["retests"], ["watch", "once=true"], ["ranks"],
    ["show", "table=lra_table1"], ["collect"],
)  # fmt: skip
OF_BENCHMARKS = (
    ["page"],
    *(["show", f"table={name}"] for name in ("skeinformer_table2", "skeinformer_table3", "lra_table2")),
)
THAT_DRAW = (["figures"], ["page"], ["tables"], ["import", "from=.."])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "results"
    make_results(folder)
    return folder


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.WARNING)


def answered(results_dir: Path, verbs: Iterable[Sequence[str]]) -> str:
    """Ask every verb; return what ended in a sentence."""
    sentences = []
    for verb, *words in verbs:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                options = [word.replace("from=..", f"from={results_dir}") for word in words]
                assert report.main([verb, f"results_dir={results_dir}", *options]) in (0, 1)
        except InputError as error:
            sentences.append(str(error))
    assert not any("\n" in sentence for sentence in sentences)
    return "\n".join(sentences)


def run_again(damage: Damage, whole: Path, results_dir: Path) -> str:
    """Give the command of the damaged run again; return the sentence that it ended in."""
    folder = (whole / damage.file).parent
    if "toy" not in damage.file.parts:
        return ""
    done = RunRecord.read(folder / "record.json") if (folder / "record.json").exists() else None
    attn, seed = (done.attn, done.seed) if done else KILLED
    try:
        record, _ = train(results_dir, attn, seed)
    except InputError as error:
        if damage.file.name == "config.json":  # of another run, which is not overwritten
            return str(error)
        raise
    if done and damage.file.name != "record.json":
        assert record == done
    assert record.status == "ok"
    return ""


def must_be_named(damage: Damage, whole: Path, path: Path) -> bool:
    """Say whether the file cannot be what it was, and is read by what was asked."""
    _, _, change = damage.name.partition(": ")
    if not path.exists() or (path.is_file() and path.read_bytes() == (whole / damage.file).read_bytes()):
        return False
    is_finished = (whole / damage.file).with_name("record.json").exists()
    is_unread = path.name == "weights.pt" or (path.name == (".holder" if is_finished else "predictions.npz"))
    may_be_good = "=" in change or "flip" in change or change == "twice" or change == f"copy_of_{path.name}"
    of_its_kind = "copy_of_cpu-" in change or "copy_of_retests" in change
    return not (is_unread or may_be_good or of_its_kind)


def hold_against(damage: Damage, whole: Path, copy: Path, caplog, *, drawing: bool = False) -> None:
    """Damage a copy of a results folder; ask for every report of it, and for the run again."""
    shutil.copytree(whole, copy, symlinks=True)
    caplog.clear()
    path, before = copy / damage.file, {run.key: run for run in load_records(copy)}
    damage.change(path)
    named = must_be_named(damage, whole, path)
    verbs = OF_BENCHMARKS if path.parent.name == "benchmarks" else OF_RUNS
    said = answered(copy, [*verbs, *(THAT_DRAW if drawing else [])])
    after = {run.key: run for run in load_records(copy)}
    assert all(after.get(key) == run for key, run in before.items() if key != path.parent.name), "other rows changed"
    said += run_again(damage, whole, copy) + caplog.text
    assert not named or str(path) in said, "it is not named"
    assert "Traceback" not in said
    shutil.rmtree(copy)


def test_a_whole_folder_has_nothing_to_name(whole, tmp_path, caplog):
    copy = Path(shutil.copytree(whole, tmp_path / "results", symlinks=True))
    assert answered(copy, [*OF_RUNS, *OF_BENCHMARKS]) == ""
    assert caplog.text == ""


def hold_all(chosen: Sequence[Damage], whole: Path, folder: Path, caplog, *, drawing: bool = False) -> None:
    failures = []
    for number, damage in enumerate(chosen):
        try:
            hold_against(damage, whole, folder / str(number), caplog, drawing=drawing)
        except Exception as error:
            failures.append(f"{damage.name}: {type(error).__name__}: {error}")
    assert failures == []


def test_some_damages_of_every_kind_of_file_are_named_and_stop_nothing(whole, tmp_path, caplog):
    hold_all(damages(whole)[::600], whole, tmp_path, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_damage_stops_a_report_or_a_run(whole, tmp_path, caplog, part):
    """100 of many thousands, a part; another seed has others."""
    hold_all(damages(whole, seed=1)[part:400:4], whole, tmp_path, caplog)


@pytest.mark.slow
def test_no_damage_stops_what_is_drawn(whole, tmp_path, caplog):
    hold_all(damages(whole, seed=2)[:30], whole, tmp_path, caplog, drawing=True)
