"""Other lengths of the tasks: what `task.length` stands for, what it refuses, and that without it nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from lra.configuration import compose_config
from lra.errors import InputError
from lra.records.identity import identify, run_key
from lra.runs.factory import make_task
from lra.runs.schema import resolve
from lra.tasks import PARTS
from lra.tasks.image import Image, resize
from lra.tasks.listops import ListOps
from lra.tasks.listops.grammar import Grammar
from lra.tasks.listops.task import sizes_at
from lra.tasks.pathfinder import Pathfinder
from lra.tasks.retrieval import Retrieval
from lra.tasks.text import Text
from tests.helpers.configurations import choices, stacked

LENGTHS = [256, 384, 512, 1000, 1024, 2000, 2048, 4096, 8192, 16384]
FEW = {"num_train": 40, "num_val": 20, "num_test": 20}


@pytest.mark.parametrize("length", LENGTHS)
def test_trees_have_more_than_half_the_length_and_are_found_often(length):
    """A share of 3 to 4 %, whatever the length: fewer than one in two hundred would make drawing slow."""
    from lra.tasks.listops.generator import draw

    sizes = sizes_at(length)
    candidates = 4000
    tokens, offsets, labels = draw(Grammar(operator_probability=0.25, data_seed=0, **sizes), 0, candidates)
    lengths = np.diff(offsets)
    assert len(tokens) == offsets[-1]
    assert length // 2 < lengths.min() <= lengths.max() < length
    assert 0.005 * candidates < len(labels) < 0.1 * candidates
    assert np.bincount(labels, minlength=10).max() < 0.3 * len(labels)  # no label is most of them


def test_no_tree_is_of_two_doubled_lengths():
    bounds = [(sizes["min_length"], sizes["max_length"]) for sizes in map(sizes_at, (256, 512, 1024))]
    assert [upper for _, upper in bounds[:-1]] == [lower for lower, _ in bounds[1:]]
    assert sizes_at(2000)["max_depth"] == 10  # as released


@pytest.mark.parametrize("length", [256, 1000])
def test_listops_of_a_length_is_named_so(tmp_path, length):
    task = ListOps(cache_dir=tmp_path, **FEW, **ListOps.at_length(length))
    task.prepare()
    assert task.max_len == length
    assert task.describe()["variant"] == f"brackets, length {length}"
    for part in PARTS:
        lengths = np.diff(task.split(part).offsets)
        assert length // 2 < lengths.min() <= lengths.max() < length


# Of the training examples below, made by the code from before there were lengths.
BEFORE = {
    "listops": "820f9d9433a3fb81f565772d51a33764ec6329a2773f22f9dc584285e28fca33",
    "pathfinder": "d451760e5ab87d08fffd8f5e7b54a0f6438150eb1c1b78af0dc1b0c7e1e0635b",
}


@pytest.mark.parametrize("more", [{}, {"length": None}])
def test_without_a_length_the_data_are_those_that_they_were(tmp_path, more):
    trees = ListOps(cache_dir=tmp_path, **FEW, max_depth=3, max_args=4, min_length=8, max_length=33, **more)
    images = Pathfinder(cache_dir=tmp_path, **FEW, resolution=16, difficulty="easy", **more)
    for task in (trees, images):
        assert task.describe()["sha256"]["train"] == BEFORE[task.name]
        assert "length" not in task.describe()


@pytest.mark.parametrize("task", choices("task"))
def test_without_a_length_keys_are_those_that_they_were(task):
    resolved = resolve(stacked(task=task, scale="mini"))
    assert resolved["task"]["length"] is None
    attn = {"name": "softmax", "version": 1}
    with_null = identify(resolved, task, make_task(resolved), attn)
    without = {**with_null, "task": {name: value for name, value in with_null["task"].items() if name != "length"}}
    assert run_key(with_null) == run_key(without)
    longer = {**with_null, "task": {**with_null["task"], "length": 1024}}
    assert run_key(longer) != run_key(without)


@pytest.mark.parametrize(
    ("task", "length", "settings"),
    [
        ("listops", 512, {"max_depth": 7, "max_args": 10, "min_length": 256, "max_length": 512}),
        ("text", 2048, {"max_length": 2048}),
        ("retrieval", 512, {"max_length": 512}),
        ("image", 4096, {"side": 64}),
        ("pathfinder", 16384, {"resolution": 128}),
        ("pathx", 256, {"resolution": 16}),
    ],
)
@pytest.mark.parametrize("scale", ["full", "mini", "smoke"])
def test_a_length_goes_before_the_sizes_of_scale_and_protocol(task, length, settings, scale):
    plain = resolve(stacked(task=task, scale=scale))
    cfg = stacked(task=task, scale=scale)
    OmegaConf.update(cfg, "task.length", length)
    resolved = resolve(cfg)
    assert resolved["task"] == {**plain["task"], **settings, "length": length}
    assert (resolved["data"]["padded_length"], resolved["model"]["num_positions"]) == (None, None)
    assert make_task(resolved).max_len == length
    assert resolved["trainer"] == plain["trainer"]


def test_what_is_typed_beside_a_length_stays():
    words = ["task.length=512", "task.max_depth=9", "data.padded_length=600", "data.padding=max"]
    resolved = resolve(compose_config("scale=full", *words))
    assert resolved["task"]["max_depth"] == 9
    assert resolved["task"]["max_length"] == 512
    assert resolved["data"]["padded_length"] == resolved["model"]["num_positions"] == 600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.length=255"], "task.length must be an integer, at least 256. Got 255."),
        (["task.length=32768"], "task.length must be at most 16384. Got 32768."),
        (["task.length=long"], "task.length must be an integer, at least 256. Got 'long'."),
        (["task.length=true"], "task.length must be an integer, at least 256. Got True."),
        (["task.length=512", "task.max_length=600"], "task.length=512 and the task's other settings disagree"),
        (["task.length=512", "task.max_depth=3"], "has more than 122 tokens, and task.min_length=256 asks for more."),
        (["task=text", "task.length=16384"], "task.length must be at most 13704, the longest review. Got 16384."),
        (["task=retrieval", "task.length=16384"], "task.length must be at most 10000, to which the texts were cut"),
        (["task=image", "task.length=512"], "task.length must be one of 256, 1024, 4096, 16384: the pixels of a squa"),
        (["task=pathfinder", "task.length=2304"], "of a square image with a side of 16, 32, 64, 128. Got 2304."),
    ],
)
def test_an_impossible_length_is_refused_in_a_sentence(words, message):
    with pytest.raises(InputError) as error:
        make_task(resolve(compose_config("scale=mini", *words)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_released_trees_have_no_other_length(tmp_path):
    (tmp_path / "listops").mkdir()
    (tmp_path / "listops" / "basic_test.tsv").write_text("Source\tTarget\n")
    with pytest.raises(InputError, match="task.length=512 is of generated trees, and .* has released ones. Leave"):
        ListOps(cache_dir=tmp_path, data_dir=tmp_path, **ListOps.at_length(512))


def test_a_larger_image_repeats_its_pixels_and_says_so(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    larger = resize(values, 128)
    assert larger.shape == (3, 128, 128)
    assert np.array_equal(
        larger.reshape(3, 32, 4, 32, 4), np.broadcast_to(values[:, :, None, :, None], (3, 32, 4, 32, 4))
    )
    task = Image(cache_dir=tmp_path, **Image.at_length(16384))
    assert (task.image_side, task.max_len) == (128, 16384)
    assert "longer than 1,024 tokens, and there is no more in them" in task.remark
    assert "no more" not in Image(cache_dir=tmp_path, **Image.at_length(1024)).remark


def test_every_class_has_the_settings_of_its_length(tmp_path):
    for kind in (ListOps, Text, Retrieval, Image, Pathfinder):
        assert kind(cache_dir=tmp_path, **kind.at_length(4096)).max_len == 4096
        with pytest.raises(InputError, match="disagree: with these no sequence is longer than 4096"):
            kind(cache_dir=tmp_path, **{**kind.at_length(4096), "length": 1024})
