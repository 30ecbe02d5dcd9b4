"""Accuracy by difficulty: bins, intervals, what stands side by side, and what is refused."""

from __future__ import annotations

import io
import re
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from lra.errors import InputError
from lra.figures.difficulty import LINES, difficulty_figure, drawn
from lra.files import ROOT
from lra.records.arrays import DIFFICULTY, Packed
from lra.records.collection import collect, import_records, load_measured, load_packed, load_records
from lra.records.record import accuracy_of
from lra.reports.comparison import gather
from lra.reports.difficulty import QUANTILES, Division, difficulty_report, divide, divisions
from lra.tasks import difficulty
from scripts import report
from tests.helpers.records import GENERATED, LABELLED, contents, record, saved, sound
from tests.helpers.shown import printed

LENGTHS = np.random.default_rng(1).integers(16, 60, len(LABELLED))
DEPTHS = 2 + (LENGTHS > 30)
RESULTS = ROOT / "results"


def known(results_dir, **measures: np.ndarray) -> None:
    """Give every run folder what makes its test examples hard."""
    for path in results_dir.glob("runs/*/*/*/predictions.npz"):
        path.with_name("difficulty.npz").write_bytes(difficulty.packed(measures))


def divided(results_dir, by: str = "") -> list[Division]:
    records = load_records(results_dir)
    packed = load_packed(results_dir, records)
    return divisions(gather(records, packed)[0], packed, by)


@pytest.mark.parametrize(
    "values",
    [
        LENGTHS, DEPTHS, np.zeros(7, int), np.array([5]), np.array([1, 1, 1, 9]), np.arange(100),
        np.repeat([3, 4, 200], [1, 5000, 1]), np.minimum(np.arange(1000), 50), np.array([-2, 0, 7] * 50),
    ],
    ids=range(9),
)  # fmt: skip
def test_bins_have_every_example_once_and_are_in_order(values):
    bins = divide(values)
    assert sorted(np.concatenate([b.examples for b in bins]).tolist()) == list(range(len(values)))
    assert all(len(b.examples) for b in bins)
    for b in bins:
        assert (values[b.examples].min(), values[b.examples].max()) == (b.low, b.high)
    assert all(one.high < other.low for one, other in pairwise(bins))
    assert len({b.title for b in bins}) == len(bins)


def test_few_values_have_a_bin_each_and_many_are_divided_evenly():
    assert [b.title for b in divide(DEPTHS)] == ["2", "3"]
    sizes = [len(b.examples) for b in divide(LENGTHS)]
    assert len(sizes) == QUANTILES
    assert max(sizes) - min(sizes) < 2 * np.bincount(LENGTHS).max()
    assert [b.title for b in divide(np.repeat([1, 2, 3], [5, 900, 95]))] == ["1\N{EN DASH}2", "3"]  # 1 is too rare
    assert [b.title for b in divide(np.repeat([1, 2, 3], [500, 495, 5]))] == ["1", "2\N{EN DASH}3"]
    assert [b.title for b in divide(np.repeat([0, 1], [1, 900]), ("cat", "dog"))] == ["cat", "dog"]


def test_accuracies_of_the_bins_make_the_accuracy_of_the_run(tmp_path):
    saved(tmp_path, record("a", 0, 0.41), record("b", 0, 0.3), labels=LABELLED)
    known(tmp_path, length=LENGTHS, depth=DEPTHS)
    for division in divided(tmp_path):
        for line in division.lines:
            right = sum(round(a.mean * len(b.examples)) for a, b in zip(line.bins, division.bins, strict=True))
            assert right == {"a": 4100, "b": 3000}[line.name]
            assert all(a.low < a.mean < a.high for a in line.bins)


def test_a_bin_has_the_accuracy_of_its_own_examples_and_fewer_examples_a_wider_interval(tmp_path):
    saved(tmp_path, record("a", 0, 0.4), labels=LABELLED)
    is_long = np.arange(len(LABELLED)) % 10 == 0
    known(tmp_path, length=np.where(is_long, 50, 20))
    (division,) = divided(tmp_path)
    (line,), (short, long) = division.lines, division.bins
    with np.load(tmp_path / "runs/listops/a/listops-a-0/predictions.npz") as arrays:
        right = arrays["best"] == arrays["labels"]
    assert [a.mean for a in line.bins] == [right[~is_long].mean(), right[is_long].mean()]
    assert (len(short.examples), len(long.examples)) == (9000, 1000)
    widths = [a.high - a.low for a in (line.overall, *line.bins)]
    assert widths == sorted(widths)
    assert widths[2] == pytest.approx(3 * widths[1], rel=0.1)


def test_mechanisms_are_means_over_their_seeds_however_many(tmp_path):
    runs = [record("many", seed, 0.3 + seed / 10) for seed in range(3)]
    saved(tmp_path, *runs, record("one", 0, 0.35), labels=LABELLED)
    known(tmp_path, depth=DEPTHS)
    (division,) = divided(tmp_path)
    many, one = division.lines
    assert (many.name, sorted(many.keys), one.name, sorted(one.keys)) == ("many", [0, 1, 2], "one", [0])
    assert many.overall.mean == pytest.approx(0.4)
    assert many.bins[0].high - many.bins[0].low > 2 * (one.bins[0].high - one.bins[0].low)  # their seeds differ
    (table,) = difficulty_report(runs, load_packed(tmp_path, runs)).tables
    assert "3 seeds of each." in table.notes
    both = load_records(tmp_path)
    (table,) = difficulty_report(both, load_packed(tmp_path, both)).tables
    assert "Seeds: many 3, one 1." in table.notes


def test_floors_stand_beneath_with_the_number_of_examples(tmp_path, capsys):
    saved(tmp_path, record("a", 0, 0.4), labels=LABELLED)
    known(tmp_path, depth=DEPTHS)
    path = tmp_path / "runs/listops/a/listops-a-0/predictions.npz"
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays, floor_majority=np.full(len(LABELLED), 3, np.uint8))
    (division,) = divided(tmp_path)
    (floor,) = division.floors
    assert [a.mean for a in floor.bins] == [(LABELLED[depth == DEPTHS] == 3).mean() for depth in (2, 3)]
    (table,) = difficulty_report(load_records(tmp_path), load_packed(tmp_path, load_records(tmp_path))).tables
    assert table.head == ["depth:", "2", "3", "all"]
    assert [row[0] for row in table.rows] == ["examples", "a", "floor: majority"]
    assert table.rows[0][1:] == [f"{(DEPTHS == 2).sum():,}", f"{(DEPTHS == 3).sum():,}", "10,000"]
    csv = printed(capsys, "difficulty", f"results_dir={tmp_path}", "format=csv").splitlines()
    assert len(csv) == 1 + 2 * 2
    assert csv[1].startswith("mini,skeinformer,cpu,listops,")


def test_what_is_collected_says_the_same_without_the_folders(tmp_path, capsys):
    saved(tmp_path, record("a", 0, 0.4), record("b", 1, 0.3), labels=LABELLED)
    known(tmp_path, length=LENGTHS, depth=DEPTHS)
    before = printed(capsys, "difficulty", "task=listops", "attn=a,b", f"results_dir={tmp_path}")
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert printed(capsys, "difficulty", "task=listops", "attn=b,a", f"results_dir={tmp_path}") == before
    first = contents(tmp_path / "measured")
    collect(tmp_path)
    assert contents(tmp_path / "measured") == first
    assert DIFFICULTY in first
    ours = tmp_path / "ours"
    ours.mkdir()
    mine = Packed.load(tmp_path / "measured")
    mine.save(ours, [])
    assert not (ours / DIFFICULTY).exists()  # of no run's test split
    alone = printed(capsys, "difficulty", "by=depth", "attn=a", f"results_dir={tmp_path}")
    assert "by depth" in alone
    assert "by length" not in alone
    assert "| b " not in alone


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["by=lenght"], "There is no by=lenght for listops. Choose from length, depth."),
        (["attn=a,no"], "There is no attn=no. Choose from .*a"),
        (["attn=softmax"], "no record of attn=softmax among those. There are: a, c."),
        (["task=text"], "No run of these names ended ok with predictions to divide. Train something first"),
        (["task=image"], r"of image \(generated, brackets, cdcdcdcd\) hard is not known.*measure_difficulty"),
        (["attn=c"], "No run of these names .* c, seed 0 .listops-c-0.: no predictions."),
    ],
)
def test_bad_input_is_named(tmp_path, words, message):
    saved(tmp_path, record("a", 0, 0.4), labels=LABELLED)
    known(tmp_path, length=LENGTHS, depth=DEPTHS)
    saved(tmp_path, record("c", 0, 0.4))
    other = {**GENERATED, "sha256": {"test": "cd" * 32}}
    saved(tmp_path, record("a", 0, 0.4, task="image", data=other), labels=LABELLED)
    with pytest.raises(InputError, match=message):
        report.main(["difficulty", f"results_dir={tmp_path}", *words])


def test_measures_of_other_examples_and_of_none_are_left_out(tmp_path, caplog):
    saved(tmp_path, record("a", 0, 0.4), labels=LABELLED)
    known(tmp_path, length=LENGTHS[:-1])
    assert divided(tmp_path) == []
    assert "it must hold a number for each of the 10000 test examples" in caplog.text
    (path,) = tmp_path.glob("runs/*/*/*/difficulty.npz")
    path.write_bytes(b"damaged")
    caplog.clear()
    assert divided(tmp_path) == []
    assert str(path) in caplog.text


def test_a_measure_that_is_the_same_for_all_is_a_sentence(tmp_path):
    saved(tmp_path, record("a", 0, 0.4), labels=LABELLED)
    known(tmp_path, length=np.full(len(LABELLED), 256), mine=DEPTHS)
    records = load_records(tmp_path)
    found = difficulty_report(records, load_packed(tmp_path, records))
    assert [table.title for table in found.tables] == ["listops, scale=mini, protocol=skeinformer, on cpu: by mine"]
    assert any("length is 256 for every example, and divides none." in note for note in found.notes)


def test_the_figure_has_a_panel_a_measure_and_the_mechanisms_that_it_names(tmp_path):
    names = ["softmax", "skeinformer", "s4d", *"abcdefg"]
    saved(tmp_path, *(record(name, 0, 0.3 + n / 100) for n, name in enumerate(names)), labels=LABELLED)
    known(tmp_path, length=LENGTHS, depth=DEPTHS)
    length, depth = divided(tmp_path)
    assert [line.name for line in drawn(length)] == ["g", "f", "e", "s4d", "skeinformer", "softmax"]
    figure = difficulty_figure([length, depth])
    assert [axis.get_xlabel() for axis in figure.axes] == ["length", "depth"]
    for axis, division in zip(figure.axes, (length, depth), strict=True):
        assert len(axis.containers) == LINES + 1  # and the floors
        assert [label.get_text().split("\n")[0] for label in axis.get_xticklabels()] == [b.title for b in division.bins]


def test_the_committed_runs_are_divided_as_their_records_say():
    records = [run for run in load_measured(RESULTS) if run.status == "ok"]
    packed = Packed.load(RESULTS / "measured")
    contests, lacking = gather(records, packed)
    assert not lacking
    assert {contest.task for contest in contests} >= {"listops", "image", "pathfinder", "text", "retrieval"}
    accuracies = {run.key: accuracy_of(run) for run in records}
    found = divisions(contests, packed)
    assert {one.contest.digest for one in found} == {contest.digest for contest in contests}
    for division in found:
        size = len(division.contest.labels)
        for line in division.lines:
            right = sum(a.mean * len(b.examples) for a, b in zip(line.bins, division.bins, strict=True))
            mean = np.mean([accuracies[key] for key in line.keys.values()])
            assert right / size == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("attn", ["softmax", "skeinformer", "s4d"])
def test_committed_runs_on_listops_fall_with_length_above_their_floors(attn, capsys):
    csv = printed(capsys, "difficulty", "task=listops", f"attn={attn}", "scale=mini", "by=length", "format=csv")
    rows = pd.read_csv(io.StringIO(csv))
    assert {"floor: root_operator", "floor: majority"} <= {*rows["attn"]}
    ours = rows[rows["attn"] == attn].groupby("protocol")["accuracy"].apply(list)
    assert len(ours)
    for accuracies in ours:
        assert accuracies[0] > accuracies[-1] + 0.1


def test_what_the_note_says_of_listops_is_in_the_table():
    note = (RESULTS / "README.md").read_text().partition("## Where they fail on ListOps")[2].partition("\n## ")[0]
    rows = pd.read_csv(RESULTS / "tables" / "difficulty-listops.csv")
    numbers = {f"{100 * accuracy:.1f}" for accuracy in rows["accuracy"]}
    said = re.findall(r"\b\d+\.\d\b", note)
    assert len(said) > 20
    assert {*said} <= numbers


@pytest.mark.parametrize("collected", [True, False])
def test_it_is_imported_with_the_runs(tmp_path, collected):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    saved(theirs, sound("a", 0, 0.4), labels=LABELLED)
    known(theirs, length=LENGTHS)
    if collected:
        collect(theirs)
        shutil.rmtree(theirs / "runs")
    ours.mkdir()
    import_records(ours, theirs)
    assert Packed.load(ours / "measured").measures("ab" * 32)["length"].tolist() == LENGTHS.tolist()
