"""Accuracy by length: what was tested at several lengths stands in one row, beside the length trained at."""

from __future__ import annotations

import dataclasses

import pytest

from lra.figures.lengths import length_curves
from lra.figures.runs import write_figures
from lra.records.retest_record import Retest, write_retests
from lra.reports.lengths import length_report, panels
from lra.reports.report import write
from lra.statistics import sampling_half_width
from lra.tasks.lengths import longest_of
from tests.helpers.records import record, saved


def data(length: int) -> dict:
    return {
        "source": "generated", "variant": f"brackets, length {length}", "sizes": {"test": 1000 + length},
        "sha256": {"test": f"{length:08d}" + "ab" * 28},
    }  # fmt: skip


def run(attn: str, seed: int, accuracy: float, length: int | None = 256, **more):
    task = {"name": "listops", "max_length": length or 61, "length": length}
    config = {"task": task, "attn": {"name": attn}, "seed": seed}
    return record(attn, seed, accuracy, config=config, data=data(length or 61), group=f"{attn}-{length}", **more)


def again(of, length: int, accuracy: float, **changes) -> Retest:
    return Retest(
        run=of.key, changes={"length": length, **changes}, data=data(length), accuracy=accuracy, loss=1.0,
        floors={"majority": 0.125, "root_operator": 0.25},
        same_as_floors={"majority": 0.2, "root_operator": 0.3}, trained_on=0, device="cpu",
    )  # fmt: skip


SOFTMAX = [run("softmax", seed, 0.5 + seed / 10) for seed in (0, 1)]
LONGER = run("s4d", 0, 0.7, length=512)
UNSET = run("vmean", 0, 0.3, length=None)
RUNS = [*SOFTMAX, LONGER, UNSET]
RETESTS = [again(SOFTMAX[0], 512, 0.4), again(SOFTMAX[1], 512, 0.3), again(SOFTMAX[0], 1024, 0.25)]


def test_a_row_has_the_runs_own_accuracy_and_those_at_other_lengths():
    [table] = length_report(RETESTS, RUNS).tables
    assert table.title == "listops, scale=mini, protocol=skeinformer, on cpu"
    assert table.head == ["attn", "trained at", "256", "512", "1,024"]
    s4d, softmax, *floors = table.rows
    assert s4d[:3] == ["s4d", "512", ""]
    half = 100 * sampling_half_width(0.7, 1512)
    assert s4d[3:] == [f"70.0 [{70 - half:.1f}, {70 + half:.1f}] (n=1)", ""]
    assert softmax[:2] == ["softmax", "256"]
    assert [cell.split()[0] for cell in softmax[2:]] == ["55.0", "35.0", "25.0"]
    assert [cell.split()[-1] for cell in softmax[2:]] == ["(n=2)", "(n=2)", "(n=1)"]
    assert [row[0] for row in floors] == ["floor: root_operator", "floor: majority"]
    assert [cell.split()[0] for cell in floors[0][2:]] == ["25.0", "25.0", "25.0"]


def test_runs_of_one_length_alone_are_left_out_unless_it_is_their_own():
    assert {curve.label for panel in panels([], RUNS) for curve in panel.curves} == {"softmax", "s4d"}
    [panel] = panels([again(UNSET, 256, 0.2)], [UNSET])
    [curve] = panel.curves
    assert (curve.trained, [column.length for column in curve.points]) == (61, [61, 256])
    report = length_report([], [UNSET])
    assert report.tables == []
    assert "has task.length. Train one" in write(report, "markdown")


def test_other_changes_and_other_devices_have_tables_of_their_own():
    deeper = again(SOFTMAX[0], 512, 0.4, max_depth=8)
    on_gpu = dataclasses.replace(again(SOFTMAX[1], 512, 0.4), device="cuda")
    drawn = panels([*RETESTS, deeper, on_gpu], SOFTMAX)
    assert [panel.conditions for panel in drawn] == ["", "task.max_depth=8", ""]
    assert [panel.setting.device for panel in drawn] == ["cpu", "cpu", "cuda"]
    assert [column.length for column in drawn[1].columns] == [256, 512]
    [table] = length_report([deeper], SOFTMAX[:1]).tables
    assert table.title.endswith("on cpu: task.max_depth=8")


def test_at_the_published_size_the_length_alone_makes_no_table_of_its_own():
    def full(length, *words):
        command = " ".join(["python run.py", *[f"task.length={length}"] * bool(length), *words])
        return run("softmax", 0, 0.5, length, scale="full", command=command)

    unset, longer, shorter = full(None), full(512), full(256, "trainer.steps=40")
    drawn = panels([again(unset, 512, 0.4)], [unset, longer, shorter])
    assert [panel.setting.scale for panel in drawn] == ["full", "full, own settings"]
    assert [[curve.label for curve in panel.curves] for panel in drawn] == [
        ["softmax", "softmax [own: task.length=512]"],
        ["softmax [own: task.length=256; trainer.steps=40]"],
    ]


def test_the_frame_has_a_row_a_point():
    frame = length_report(RETESTS, RUNS).frame
    softmax = frame[frame["label"] == "softmax"]
    assert softmax["tested"].tolist() == [256, 512, 1024]
    assert softmax["trained"].tolist() == [256] * 3
    assert softmax["accuracy"].tolist() == pytest.approx([0.55, 0.35, 0.25])
    assert frame[frame["label"] == "floor: majority"]["trained"].isna().all()


def test_the_figure_shows_every_point_of_the_table(tmp_path):
    [panel] = panels(RETESTS, RUNS)
    [axis] = length_curves([panel]).axes
    texts = {text.get_text() for text in axis.texts}
    assert texts == {"softmax, trained at 256", "s4d, trained at 512", "floor: majority", "floor: root_operator"}
    points = {
        (float(x), round(float(y), 6)) for line in axis.lines for x, y in zip(*line.get_data(), strict=True)
        if line.get_marker() == "o"
    }  # fmt: skip
    assert points == {(256, 55.0), (512, 35.0), (1024, 25.0), (512, 70.0)}
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["256", "512", "1,024"]
    saved(tmp_path, *RUNS)
    (tmp_path / "measured").mkdir()
    write_retests(tmp_path / "measured" / "retests.jsonl", RETESTS)
    names = {path.name for path in write_figures(tmp_path, RUNS)}
    assert {"mini-skeinformer-cpu-lengths.svg", "mini-skeinformer-cpu-lengths.png"} <= names


@pytest.mark.parametrize(
    ("settings", "longest"),
    [({"max_length": 61}, 61), ({"side": 16, "length": None}, 256), ({"resolution": 32}, 1024), ({}, None),
     ({"max_length": 61, "length": 512}, 512)],
)  # fmt: skip
def test_the_length_of_a_task_is_read_from_its_settings(settings, longest):
    assert longest_of(settings) == longest
