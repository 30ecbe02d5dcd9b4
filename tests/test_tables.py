"""From hand-written records to an exact table; the interval against its definition."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lra.arguments import parse
from lra.errors import InputError
from lra.intervals import NORMAL_QUANTILE, STUDENT_QUANTILES, half_width, sampling_half_width
from lra.record import RunRecord
from lra.tables import collect, leaderboard, load_records, render, to_frame

SCRIPTS = Path(__file__).parent.parent / "scripts"


GENERATED = {"source": "generated", "variant": "brackets", "sizes": {"test": 10000}, "sha256": {"test": "ab" * 32}}


def record(attn: str, seed: int, accuracy: float | None, status="ok", task="listops", **more) -> RunRecord:
    group = more.pop("group", f"{task}-{attn}")
    return RunRecord(
        **{
            "key": f"{group}-{seed}", "group": group, "task": task, "attn": attn, "protocol": "skeinformer",
            "scale": "mini", "seed": seed, "config": {"attn": {"name": attn}, "seed": seed}, "status": status,
            "data": GENERATED,
            "test_accuracy": accuracy, "ms_per_step": 20.0 + seed,
            "floors": {"root_operator": 0.25, "majority": 0.125} if task == "listops" else {"majority": 0.5},
            **more,
        }
    )  # fmt: skip


def test_the_table_of_hand_written_records():
    records = [
        record("vmean", 0, 0.30),
        record("softmax", 0, 0.42),
        record("softmax", 1, 0.44),
        record("softmax", 2, None, status="diverged"),
        record("reformer", 0, None, status="out_of_memory"),
        record("softmax", 0, 0.64, task="text"),
        record("baseline_ngrams", 0, 0.80, task="text"),
    ]
    # Over seeds: 12.706 * 0.014142 / sqrt(2) = 0.12706; sampling: 1.96 * sqrt(0.43 * 0.57 / 10000) = 0.0097.
    assert render(records).split("\n\nTest accuracy")[0] == (
        "### scale=mini, protocol=skeinformer, on cpu\n"
        "\n"
        "| attn                 | listops                       | text             |\n"
        "| -------------------- | ----------------------------- | ---------------- |\n"
        "| softmax              | 43.0 ± 12.7 (n=2), 1 diverged | 64.0 ± 0.9 (n=1) |\n"
        "| vmean                | 30.0 ± 0.9 (n=1)              |                  |\n"
        "| reformer             | 1 out of memory               |                  |\n"
        "| baseline: ngrams     |                               | 80.0 ± 0.8 (n=1) |\n"
        "| floor: majority      | 12.5 ± 0.6                    | 50.0 ± 1.0       |\n"
        "| floor: root_operator | 25.0 ± 0.8                    |                  |"
    )


def test_the_interval_adds_seeds_and_test_set_in_squares():
    assert half_width([0.5], 10000) == sampling_half_width(0.5, 10000) == NORMAL_QUANTILE * 0.005
    accuracies = [0.40, 0.42, 0.47]
    student = 4.303 * statistics.stdev(accuracies) / math.sqrt(3)
    assert half_width(accuracies, 2000) == pytest.approx(math.hypot(student, sampling_half_width(0.43, 2000)))
    assert list(STUDENT_QUANTILES) == sorted(STUDENT_QUANTILES, reverse=True)


def test_students_quantiles_cover_what_they_say():
    """The quantile of two degrees of freedom has a closed form; the others fall to the normal's like 1/df."""
    p = 0.975
    assert STUDENT_QUANTILES[1] == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), abs=1e-3)
    assert STUDENT_QUANTILES[0] == pytest.approx(math.tan(math.pi * (p - 0.5)), abs=1e-3)
    z = NORMAL_QUANTILE
    for df in (10, 20, 30):
        expansion = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
        assert STUDENT_QUANTILES[df - 1] == pytest.approx(expansion, abs=3e-3)


def test_runs_that_differ_in_more_than_the_seed_are_never_averaged():
    records = [
        record("skeinformer", 0, 0.3, group="a", config={"attn": {"num_samples": 15}}),
        record("skeinformer", 0, 0.4, group="b", config={"attn": {"num_samples": 30}}),
    ]
    board = leaderboard(records)
    assert board["n"].tolist() == [1, 1]
    assert "skeinformer [attn.num_samples=30] | 40.0" in render(records)
    assert "skeinformer [attn.num_samples=15] | 30.0" in render(records)


def test_other_data_scales_protocols_and_devices_have_columns_or_tables_of_their_own():
    other_data = {**GENERATED, "source": "released", "sha256": {"test": "cd" * 32}}
    text = render(
        [
            record("softmax", 0, 0.4),
            record("softmax", 0, 0.5, group="r", data=other_data),
            record("softmax", 0, 0.6, group="s", scale="smoke"),
            record("softmax", 0, 0.7, group="g", device="cuda"),
        ]
    )
    assert text.count("### ") == 3
    assert "listops (generated, brackets, abababab)" in text
    assert "listops (released, brackets, cdcdcdcd)" in text


def saved(results_dir: Path, *records: RunRecord) -> None:
    for one in records:
        folder = results_dir / "runs" / one.task / one.attn / one.key
        folder.mkdir(parents=True)
        one.write(folder)


def test_collecting_keeps_final_records_once_and_repeats_byte_for_byte(tmp_path):
    saved(tmp_path, record("softmax", 1, 0.4), record("softmax", 0, 0.4), record("vmean", 0, None, status="failed"))
    path, count = collect(tmp_path)
    assert count == 2
    first = path.read_bytes()
    collect(tmp_path)
    assert path.read_bytes() == first
    assert [one.seed for one in load_records(tmp_path) if one.status == "ok"] == [0, 1]
    frame = to_frame(load_records(tmp_path))
    assert frame["status"].value_counts().to_dict() == {"ok": 2, "failed": 1}


def test_a_corrupt_record_is_named_and_the_others_are_read(tmp_path, caplog):
    saved(tmp_path, record("softmax", 0, 0.4), record("vmean", 0, 0.3))
    bad = tmp_path / "runs" / "listops" / "vmean" / "listops-vmean-0" / "record.json"
    bad.write_text("{")
    assert [one.attn for one in load_records(tmp_path)] == ["softmax"]
    assert str(bad) in caplog.text


def report(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPTS / "report.py", *arguments], capture_output=True, text=True, check=False
    )


def test_the_script_prints_collects_and_rebuilds(tmp_path):
    saved(tmp_path, record("softmax", 0, 0.4))
    shown = report(f"results_dir={tmp_path}")
    assert "| softmax              | 40.0 ± 1.0 (n=1) |" in shown.stdout
    assert report("collect", f"results_dir={tmp_path}").returncode == 0
    assert report("tables", f"results_dir={tmp_path}").returncode == 0
    assert (tmp_path / "tables" / "leaderboard.md").read_text() == shown.stdout
    missing = report(f"results_dir={tmp_path}/none")
    assert missing.returncode == 1
    assert missing.stderr.startswith("There is no results folder")


def test_arguments():
    known = {"verbs": ("show", "collect"), "options": {"results_dir": "results"}}
    assert parse([], **known) == ("show", {"results_dir": "results"})
    assert parse(["collect", "results_dir=a=b"], **known) == ("collect", {"results_dir": "a=b"})
    for words, message in ((["colect"], "Did you mean collect"), (["resultsdir=x"], "Did you mean results_dir=")):
        with pytest.raises(InputError, match=message):
            parse(words, **known)
