"""The figures of records: what there is is on them."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lra.errors import InputError
from lra.figures import benchmarks as plots
from lra.figures import runs as charts
from tests.helpers.records import record, saved

RUNS = [
    record("softmax", 0, 0.42), record("softmax", 1, 0.44), record("vmean", 0, 0.36),
    record("performer", 0, None, status="out_of_memory"), record("softmax", 0, 0.56, task="text"),
    record("baseline_ngrams", 0, 0.30),
]  # fmt: skip


FIGURES = ("board", "seeds", *(f"listops-{name}" for name in ("curves", "time", "memory", "operations")))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def points(axis) -> list[tuple[float, float]]:
    return sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1)


def test_the_board_has_every_mechanism_every_task_and_what_went_wrong():
    figure = charts.board(RUNS)
    listops, text = figure.axes
    names = [label.get_text() for label in listops.get_yticklabels()]
    assert names[0] == "softmax"
    assert names[-1] == "baseline: ngrams"
    assert (listops.get_title(loc="left"), text.get_title(loc="left")) == ("ListOps", "Text")
    assert points(listops) == [(pytest.approx(30), -3), (pytest.approx(36), -1), (pytest.approx(43), 0)]
    assert points(text) == [(pytest.approx(56), 0)]
    assert "1 out of memory" in texts(figure)
    assert "1 to 2 seeds" in figure.get_suptitle()
    assert listops.patches[-1].get_x() + listops.patches[-1].get_width() == pytest.approx(25)  # the operator's floor


@pytest.mark.parametrize("draw", [charts.board, charts.seeds, charts.accuracy_against])
def test_with_a_single_task_no_text_is_cut_off(draw):
    figure = draw([record("softmax", 0, 0.4), record("vmean", 0, 0.3)])
    figure.draw_without_rendering()
    page = figure.bbox
    for text in figure.findobj(Text):
        if " " in text.get_text():  # no tick, which may lie beyond the axes and not be drawn
            extent = text.get_window_extent()
            assert page.x0 <= extent.x0 <= extent.x1 <= page.x1, text


def test_a_board_of_nothing_but_failures_says_so(tmp_path):
    figure = charts.board([record("softmax", 0, None, status="diverged"), record("vmean", 0, None, status="failed")])
    assert {"1 diverged", "1 failed"} <= set(texts(figure))
    assert "no seeds" in figure.get_suptitle()
    plots.save(figure, tmp_path / "board")


def test_accuracy_against_a_cost_has_a_named_point_a_run():
    figure = charts.accuracy_against(RUNS)
    titles = [axis.get_title(loc="left").split("\n")[0] for axis in figure.axes]
    assert titles == ["floors", "others", "exact softmax"]  # of ListOps, and of Text, where there is nothing else
    floors, others, _ = figure.axes
    assert len(points(floors)) == len(points(others)) == 4
    assert [text.get_text() for text in floors.texts] == ["vmean", "softmax"]
    assert [text.get_text() for text in others.texts] == ["baseline: ngrams", "softmax"]


def test_curves_and_seeds_are_drawn(tmp_path):
    saved(tmp_path, *RUNS[:3])
    (curves,) = charts.learning_curves(tmp_path, RUNS[:3]).axes
    folder = tmp_path / "runs" / "listops" / "softmax" / RUNS[0].key
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(list(line.get_xdata()) == steps for line in curves.lines)
    assert len(curves.lines) == 3
    (panel,) = charts.seeds(RUNS[:3]).axes
    assert sum(len(line.get_xdata()) for line in panel.lines if line.get_marker() == "o") == 3


def test_every_figure_is_written_and_none_of_nothing(tmp_path):
    saved(tmp_path, *RUNS[:3])
    names = {path.name for path in charts.write_figures(tmp_path, RUNS[:3])}
    assert {f"mini-skeinformer-cpu-{name}.svg" for name in FIGURES} == {name for name in names if name.endswith(".svg")}
    assert names == {path.name for path in (tmp_path / "figures").iterdir()}
    with pytest.raises(InputError, match="Train something first"):
        charts.write_figures(tmp_path, [])


def test_a_task_of_ones_own_and_few_runs_of_a_task_have_their_place_on_the_board():
    runs = [record(attn, 0, accuracy) for attn, accuracy in (("softmax", 0.5), ("vmean", 0.4), ("performer", 0.3))]
    # The only one on its task is neither the best nor the worst of it.
    figure = charts.board([*runs, record("performer", 0, 0.9, task="mine")])
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["ListOps", "mine"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["softmax", "vmean", "performer"]


def test_accuracy_against_cost_keeps_machines_apart():
    slow = record("vmean", 0, 0.3, environment={"device_name": "a machine", "num_threads": 1})
    figure = charts.accuracy_against([slow, *RUNS[:1]])
    assert len(figure.axes) == 2
    assert "1 thread" in figure.axes[0].get_title(loc="left")


def test_a_figure_of_times_has_operations_where_other_work_ran_beside():
    loaded = [record(attn, 0, 0.4, load_average=2.5, training_flops=10**7) for attn in ("softmax", "vmean")]
    (axis,) = charts.accuracy_against(loaded).axes
    assert axis.get_xlabel().startswith("operations of training")
    assert "those of 2 of 2 runs do not count" in axis.get_xlabel()
    assert [x for x, _ in points(axis)] == [10, 10]
    (axis,) = charts.accuracy_against([record("softmax", 0, 0.4), record("none", 0, 0.3), loaded[1]]).axes
    assert axis.get_xlabel() == "ms a step (1 of 3, which do not count, left out)"
    assert len(points(axis)) == 2


def test_the_interval_of_one_seed_is_said_to_be_of_the_test_alone():
    def told(figure):
        return " ".join(texts(figure))

    one, several = RUNS[2:4], RUNS[:2]
    for draw in (charts.board, charts.seeds):
        assert "test sampling only, one seed" in told(draw(one))
        assert "95 %" not in told(draw(one))
        assert "95 % over seeds" in told(draw(several))
        assert "one seed" not in told(draw(several))
        assert "dashed, test sampling only, one seed" in told(draw([*one, *several]))


def test_own_settings_are_marked_on_every_figure(tmp_path):
    own = record("vmean", 0, 0.3, command="python run.py attn=vmean trainer.steps=40 'task.note=a b' scale=mini")
    runs = [record("softmax", 0, 0.4), own]
    saved(tmp_path, *runs)
    figures = [charts.board(runs), charts.seeds(runs), charts.accuracy_against(runs)]
    for figure in (*figures, charts.learning_curves(tmp_path, runs)):
        assert "vmean [own: task.note=a b; trainer.steps=40]" in texts(figure)


def test_curves_have_a_panel_a_family_with_exact_softmax_in_each(tmp_path):
    runs = [record(attn, 0, 0.4) for attn in ("softmax", "vmean", "performer", "skeinformer", "skeinformer_uniform")]
    saved(tmp_path, *runs)
    figure = charts.learning_curves(tmp_path, runs)
    shown = {axis.get_title(loc="left"): {text.get_text() for text in axis.texts} for axis in figure.axes}
    assert shown == {
        "Skeinformer": {"softmax", "skeinformer", "skeinformer_uniform"},
        "floors": {"softmax", "vmean"},
        "feature maps": {"softmax", "performer"},
    }


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in "ab":
        plots.save(charts.board(RUNS), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
