"""A results folder that others write to, move about in and delete from while it is read."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lra.records.collection import collect, load_measured, load_records
from scripts import report
from tests.helpers.records import LABELLED, saved, sound

READERS = (
    ["leaderboard"], ["cost"], ["failures"], ["coverage"], ["watch", "once=true"], ["retests"], ["collect"],
)  # fmt: skip


@contextmanager
def moving(results_dir: Path) -> Iterator[None]:
    """Make, move and delete runs in a loop."""
    pool, stop = results_dir.parent / "pool", threading.Event()
    saved(pool, *(sound("vmean", seed, 0.3) for seed in range(8)), labels=LABELLED)
    folders = sorted((pool / "runs" / "listops" / "vmean").iterdir())
    failures: list[BaseException] = []

    def move() -> None:
        place = results_dir / "runs" / "listops" / "vmean"
        try:
            while not stop.is_set():
                for folder in folders:
                    shutil.copytree(folder, place / folder.name)
                    (place / folder.name / "record.json").rename(place / folder.name / "record")
                    (place / folder.name / "record").rename(place / folder.name / "record.json")
                place.rename(place.with_name("gone"))
                shutil.rmtree(place.with_name("gone"))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failures == []


@pytest.mark.parametrize("rounds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_reading_while_runs_come_and_go_never_fails(tmp_path, caplog, rounds):
    caplog.set_level(logging.WARNING)
    results_dir = tmp_path / "results"
    kept = [sound("softmax", seed, 0.4) for seed in range(3)]
    saved(results_dir, *kept, labels=LABELLED)
    with moving(results_dir):
        for _ in range(rounds):
            for verb, *words in READERS:
                with contextlib.redirect_stdout(io.StringIO()):
                    assert report.main([verb, f"results_dir={results_dir}", *words]) == 0
            assert {run.key for run in kept} <= {run.key for run in load_records(results_dir)}
    collect(results_dir)
    assert {run.key for run in kept} <= {run.key for run in load_measured(results_dir)}
    assert "Traceback" not in caplog.text
