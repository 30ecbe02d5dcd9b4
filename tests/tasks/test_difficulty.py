"""What makes test examples hard: against plain recursion, by hand, and against what the generator of images drew."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest

from lra.benchmarks import listops_by_recursion as twin
from lra.tasks import Split, difficulty
from lra.tasks.image import Image
from lra.tasks.listops import ListOps
from lra.tasks.listops.difficulty import measure
from lra.tasks.listops.grammar import decode, encode
from lra.tasks.pathfinder import Pathfinder, generator
from lra.tasks.pathfinder import difficulty as pathfinder_difficulty
from lra.tasks.retrieval import Retrieval
from lra.tasks.text import Text
from tests.twins import pathfinder as slow_pathfinder

SMALL = {"max_depth": 4, "max_args": 5, "min_length": 15, "max_length": 60, "num_train": 50, "num_val": 20}


def packed(sequences: list) -> Split:
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    return Split(np.concatenate(sequences).astype(np.uint8), offsets, np.zeros(len(sequences), np.int64))


def size(tree: twin.Tree, brackets: bool) -> int:
    if isinstance(tree, int):
        return 1
    return 1 + sum(size(argument, brackets) for argument in tree[1]) + brackets


def depth(tree: twin.Tree) -> int:
    return 0 if isinstance(tree, int) else 1 + max(map(depth, tree[1]))


def operators(tree: twin.Tree) -> int:
    return 0 if isinstance(tree, int) else 1 + sum(map(operators, tree[1]))


def distance(tree: twin.Tree, brackets: bool) -> int:
    if isinstance(tree, int):
        return 0
    to_the_last = 1 + sum(size(argument, brackets) for argument in tree[1][:-1])
    return max(to_the_last, *(distance(argument, brackets) for argument in tree[1]))


@pytest.mark.parametrize("brackets", [True, False])
@pytest.mark.parametrize("options", [SMALL, {"num_train": 5, "num_val": 5, "min_length": 100, "max_length": 900}])
def test_expressions_are_measured_as_plain_recursion_does(tmp_path, brackets, options):
    task = ListOps(cache_dir=tmp_path, brackets=brackets, num_test=200, **options)
    found = task.difficulties()
    bracketed = ListOps(cache_dir=tmp_path, num_test=200, **options).split("test")
    trees = [twin.parse(decode(bracketed.tokens[a:b])) for a, b in pairwise(bracketed.offsets)]
    assert found["length"].tolist() == [size(tree, brackets) for tree in trees]
    assert found["length"].tolist() == np.diff(task.split("test").offsets).tolist()
    assert found["depth"].tolist() == [depth(tree) for tree in trees]
    assert found["operators"].tolist() == [operators(tree) for tree in trees]
    assert found["distance"].tolist() == [distance(tree, brackets) for tree in trees]


def test_expressions_measured_by_hand():
    sources = ["7", "[MAX 2 9 ]", "[MIN [MAX 2 9 ] 3 ]", "[SM 1 [MED 4 [MIN 5 6 7 ] 2 ] ]"]
    by_hand = {"length": [1, 4, 7, 12], "depth": [0, 1, 2, 3], "operators": [0, 1, 2, 3], "distance": [0, 2, 5, 7]}
    assert {name: values.tolist() for name, values in measure(packed([*map(encode, sources)])).items()} == by_hand
    without = measure(packed([*map(encode, sources)]), brackets=False)
    assert without["length"].tolist() == [1, 3, 5, 9]
    assert without["distance"].tolist() == [0, 2, 4, 6]
    assert without["depth"].tolist() == by_hand["depth"]


def of_split(kind, split: Split) -> dict:
    """What a task measures of a test split, whatever its source."""
    task = kind.__new__(kind)
    task.split = lambda part: split
    return {name: values.tolist() for name, values in task._difficulties().items()}


def test_texts_are_measured_by_their_length_and_images_by_their_class():
    split = packed([np.ones(length) for length in (3, 5, 4, 1)])
    assert of_split(Text, split) == {"length": [3, 5, 4, 1]}
    assert of_split(Retrieval, split) == {"length": [5, 4]}
    assert of_split(Image, split._replace(labels=np.array([3, 0, 9, 9]))) == {"class": [3, 0, 9, 9]}


@pytest.mark.parametrize(("resolution", "kind"), [(16, "easy"), (32, "hard"), (128, "easy")])
def test_images_are_measured_as_they_were_drawn(resolution, kind):
    found = pathfinder_difficulty.measure(resolution, kind, 3, 5, 25)
    for place in range(20):
        drawn = generator.geometry(resolution, kind, 3, 5 + place)
        along = drawn.contours[drawn.marked[0]].reshape(-1, 2)
        assert found["contour"][place] == round(sum(np.hypot(*(b - a)) for a, b in pairwise(along)))
        assert found["markers"][place] == round(np.hypot(*(drawn.markers[0] - drawn.markers[1])))
        assert found["distractors"][place] == drawn.num_distractors
        if drawn.label:  # the markers are the two ends of what is measured
            assert np.array_equal(along[[0, -1]], drawn.markers)
            assert found["markers"][place] <= found["contour"][place]


def test_distractors_are_those_that_the_slow_generator_had_room_for(monkeypatch):
    placed = []
    draw = slow_pathfinder.distractor
    monkeypatch.setattr(slow_pathfinder, "distractor", lambda *given: placed.append(draw(*given)) or placed[-1])
    counts = []
    for number in range(6):
        placed.clear()
        slow_pathfinder.draw(generator.stimulus(16, "easy"), slow_pathfinder.Stream(3, 16 * 3, number))
        counts.append(sum(one is not None for one in placed))
    assert pathfinder_difficulty.measure(16, "easy", 3, 0, 6)["distractors"].tolist() == counts
    assert len(set(counts)) > 1


def test_the_markers_of_an_image_are_found_where_they_were_drawn():
    drawn = generator.geometry(64, "easy", 0, 0)
    assert drawn.markers.tolist() == [[41, 25], [30, 58]]
    assert pathfinder_difficulty.measure(64, "easy", 0, 0, 1)["markers"].tolist() == [round(np.hypot(11, 33))]
    assert pathfinder_difficulty.measure_pixels(drawn.image.ravel(), 64)["markers"].tolist() == [
        round(np.hypot(11, 33))
    ]


@pytest.mark.parametrize(("resolution", "kind", "number"), [(64, "hard", 200), (128, "easy", 20)])
def test_the_markers_of_images_are_found_by_their_pixels(resolution, kind, number):
    images, _, _ = generator.draw_all(resolution, kind, 1, 0, number)
    found = pathfinder_difficulty.measure_pixels(images.ravel(), resolution)
    assert list(found) == ["markers"]
    known = pathfinder_difficulty.measure(resolution, kind, 1, 0, number)["markers"]
    assert abs(found["markers"] - known).max() <= 1


def test_where_markers_cannot_be_told_nothing_is_said():
    images, _ = generator.draw(32, "easy", 0, 0, 5)
    assert pathfinder_difficulty.measure_pixels(images.ravel(), 32) == {}
    assert pathfinder_difficulty.measure_pixels(np.zeros(64 * 64, np.uint8), 64) == {}


def test_the_test_images_are_the_ones_that_are_measured(tmp_path, monkeypatch):
    sizes = {"num_train": 7, "num_val": 4, "num_test": 9}
    task = Pathfinder(cache_dir=tmp_path, resolution=16, difficulty="easy", **sizes)
    expected = pathfinder_difficulty.measure(16, "easy", 0, 11, 20)
    assert {name: values.tolist() for name, values in task.difficulties().items()} == {
        name: values.tolist() for name, values in expected.items()
    }
    images, labels = generator.draw(16, "easy", 0, 11, 20)
    assert np.array_equal(task.split("test").tokens, images.ravel())
    assert np.array_equal(task.split("test").labels, labels)
    monkeypatch.setattr(pathfinder_difficulty, "_BLOCK_BYTES", 2 * 16**2)  # blocks do not show
    in_blocks = pathfinder_difficulty.measure(16, "easy", 0, 11, 20)
    assert all(np.array_equal(in_blocks[name], expected[name]) for name in expected)


def test_it_is_measured_once_and_again_where_the_file_is_damaged(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    calls = []

    def measure_two():
        calls.append(1)
        return {"length": np.array([3, 70_000])}

    for _ in range(2):
        assert difficulty.kept(tmp_path, 2, measure_two)["length"].tolist() == [3, 70_000]
    assert len(calls) == 1
    path = tmp_path / difficulty.NAME
    whole = path.read_bytes()
    for damaged in (whole[:-30], b"", difficulty.packed({"length": np.array([1.5, 2.5])})):
        path.write_bytes(damaged)
        caplog.clear()
        assert difficulty.kept(tmp_path, 2, measure_two)["length"].tolist() == [3, 70_000]
        assert str(path) in caplog.text
        assert path.read_bytes() == whole
    path.write_bytes(difficulty.packed({"length": np.array([1, 2, 3])}))
    assert difficulty.kept(tmp_path, 2, measure_two)["length"].tolist() == [3, 70_000]
    assert "is of another split" in caplog.text


def test_an_entry_with_it_is_the_same_data_and_one_that_cannot_be_written_is_measured(tmp_path, monkeypatch):
    options = {**SMALL, "num_test": 30, "cache_dir": tmp_path}
    task = ListOps(**options)
    before = task.describe()
    found = task.difficulties()
    assert (task.prepare() / difficulty.NAME).is_file()
    assert ListOps(**options).describe() == before
    (task.prepare() / difficulty.NAME).unlink()
    monkeypatch.setattr(difficulty, "write_atomically", refuse)
    assert ListOps(**options).difficulties()["length"].tolist() == found["length"].tolist()


def refuse(*_):
    raise OSError("read-only")
