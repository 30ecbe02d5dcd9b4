"""Image: grey values, the official validation set, the order of the rows, every source, and wrong images."""

import hashlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from lra.errors import InputError
from lra.files import ROOT
from lra.tasks import image
from lra.tasks.columns import read_parquet
from lra.tasks.image import Image, decode, grey, original_places, resize, tfds_order

CIFAR = ROOT.parent / "shared" / "data" / "cifar10"
needs_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason=f"no data in {CIFAR}")

ROWS = {"train": 100, "test": 20}
FIRST_IMAGES = 4


def pixels(row: int) -> np.ndarray:
    array = np.random.default_rng(row).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    array[0] = 0
    return array


def encoded(array: np.ndarray, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


def label(row: int) -> int:
    return (row * row // 7 + row) % 10  # another sequence in each file of 20


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Files of 20 images take the place of data_batch_1 to _5, 100,000 + row those of test_batch."""
    files = {}
    for first in range(0, 100, 20):
        labels = bytes(label(row) for row in range(first, first + 20))
        images = b"".join(pixels(row).tobytes() for row in range(first, first + FIRST_IMAGES))
        files[hashlib.sha256(labels).hexdigest()[:16]] = hashlib.sha256(images).hexdigest()[:16]
    assert len(files) == 5
    monkeypatch.setattr(image, "ROWS", ROWS)
    monkeypatch.setattr(image, "FILES", files)
    monkeypatch.setattr(image, "FIRST_IMAGES", FIRST_IMAGES)
    monkeypatch.delenv("LRA_DATA", raising=False)


TRAIN, TEST = list(range(100)), list(range(100_000, 100_020))


def write(folder: Path, train=TRAIN, form: str = "PNG", **columns) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    options = {"lossless": True} if form == "WEBP" else {}
    for part, rows in (("train", train), ("test", TEST)):
        images = [{"bytes": encoded(pixels(row), form, **options), "path": f"{row}.png"} for row in rows]
        table = {"img": images, "label": [label(row) for row in rows]}
        pq.write_table(pa.table({**table, **(columns if part == "train" else {})}), folder / f"{part}.parquet")
    return folder


def made(tmp_path: Path, **options) -> Image:
    task = Image(cache_dir=tmp_path / "cache", **{"data_dir": tmp_path / "cifar10", **options})
    task.prepare()
    return task


def rows_of(task: Image, part: str) -> list[int]:
    """Tell the images of a split."""
    known = {grey(pixels(row)).tobytes(): row for row in (*TRAIN, *TEST)}
    return [known[tokens.tobytes()] for tokens in task.split(part).tokens.reshape(-1, 1024)]


@pytest.mark.parametrize(
    ("colour", "value"), [((255, 255, 255), 255), ((59, 62, 63), 61), ((10, 200, 30), 124), ((0, 0, 0), 0)]
)
def test_grey_is_tensorflows(colour, value):
    assert grey(np.array(colour, np.uint8)) == value


def test_grey_is_never_above_pillows_and_at_most_one_below():
    colours = np.random.default_rng(0).integers(0, 256, (1, 100_000, 3)).astype(np.uint8)
    below = np.asarray(Pillow.fromarray(colours).convert("L")).astype(int) - grey(colours)
    assert set(np.unique(below)) == {0, 1}
    assert 0.25 < below.mean() < 0.28


def test_the_official_validation_set_is_the_published_one():
    order = tfds_order("train", 50_000)
    assert order[:5].tolist() == [16399, 1680, 47917, 17307, 27051]
    digests = [
        hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest() for ids in (order[-5000:], np.sort(order[-5000:]))
    ]
    assert digests == [
        "356681849204d9a398aa248a4e1a775bde763df4975e8cc6a6618d57f3c0566b",
        "ba29fbc0edcd9af86aa03ba21936f089dcfe0673680e57b9c259ecaeec6d52a1",
    ]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_tokens_are_grey_pixels_row_by_row(tmp_path, form):
    write(tmp_path / "cifar10", form=form)
    task = made(tmp_path)
    assert (task.vocab_size, task.max_len, task.num_inputs, task.num_classes) == (256, 1024, 1, 10)
    order = tfds_order("train", 100).tolist()
    assert rows_of(task, "train") + rows_of(task, "val") == order
    assert task.split("train").labels.tolist() == [label(row) for row in order[:90]]
    assert sorted(rows_of(task, "test")) == TEST
    assert (task.split("test").tokens == 0).any()  # a pixel as any other
    assert all(
        np.array_equal(np.diff(task.split(part).offsets), [1024] * size)
        for part, size in task.describe()["sizes"].items()
    )
    assert task.describe()["variant"] == "32x32"
    assert task.describe()["official_validation"] is True


def test_files_in_another_turn_are_put_in_place(tmp_path):
    """The hub, which was made from the members of the archive as they lie in it, has them so."""
    write(tmp_path / "cifar10")
    write(
        tmp_path / "turned" / "cifar10", [row for file in (3, 2, 1, 4, 0) for row in TRAIN[20 * file : 20 * file + 20]]
    )
    task, turned = made(tmp_path), made(tmp_path / "turned")
    assert turned.describe()["official_validation"] is True
    assert turned.describe()["sha256"] == task.describe()["sha256"]


@pytest.mark.parametrize("how", ["column", "images", "labels"])
def test_a_copy_in_no_known_order_says_so(tmp_path, how):
    swapped = list(TRAIN)
    if how == "images":
        same = next(row for row in TRAIN[1:20] if label(row) == label(0))
        swapped[0], swapped[same] = same, 0
    elif how == "labels":
        swapped[10], swapped[11] = 11, 10
    columns = {"original_position": [True] * 99 + [False]} if how == "column" else {}
    write(tmp_path / "cifar10", swapped, **columns)
    described = made(tmp_path).describe()
    assert described["official_validation"] is False
    assert described["variant"] == "32x32, not the official validation images"


def test_a_smaller_side_is_means_of_grey_values(tmp_path):
    write(tmp_path / "cifar10")
    task = made(tmp_path, side=16)
    assert task.max_len == 256
    assert task.describe()["variant"] == "16x16"
    expected = grey(pixels(int(tfds_order("train", 100)[0]))).astype(float).reshape(16, 2, 16, 2).mean((1, 3))
    assert np.array_equal(task.split("train").tokens[:256].reshape(16, 16), np.floor(expected + 0.5))
    assert resize(np.full((1, 32, 32), 255, np.uint8), 8).tolist() == [[[255] * 8] * 8]


def test_limits_take_the_same_images_in_every_order(tmp_path):
    write(tmp_path / "cifar10", original_position=[False] * 100)
    task = made(tmp_path, num_train=30, num_val=5, num_test=10)
    assert task.describe()["sizes"] == {"train": 30, "val": 5, "test": 10}
    assert set(rows_of(task, "train")) < set(tfds_order("train", 100).tolist())
    assert made(tmp_path, num_train=30, num_val=5, num_test=10).describe() == task.describe()


def test_the_hub_must_be_in_the_original_order(tmp_path, monkeypatch):
    import datasets

    def load_dataset(repository, *, revision, split):
        assert (repository, revision) == ("uoft-cs/cifar10", image.HUB.revision)
        return datasets.Dataset(pq.read_table(tmp_path / "cifar10" / f"{split}.parquet"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    write(tmp_path / "cifar10")
    task = made(tmp_path, data_dir=None)
    assert task.describe()["source"] == "hub"
    assert task.describe()["sha256"] == made(tmp_path).describe()["sha256"]
    write(tmp_path / "cifar10", TRAIN[::-1])
    with pytest.raises(InputError, match="train of uoft-cs/cifar10 at revision 0b2714.* is not in the order"):
        made(tmp_path / "again", data_dir=None)


BUILDER = """
import sys
from pathlib import Path
import tensorflow_datasets as tfds

class Cifar10(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("3.0.2")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(part) for part in ("train", "test")}

    def _generate_examples(self, part):
        # Files, not arrays: these TensorFlow Datasets can store without TensorFlow.
        for path in sorted(Path(sys.argv[2], part).iterdir()):
            place, label = path.stem.split("-")
            yield int(place), {"id": f"{part}_{int(place):05d}", "image": str(path), "label": int(label)}

Cifar10(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


def test_tensorflow_datasets_give_what_a_folder_gives_without_tensorflow(tmp_path):
    pytest.importorskip("array_record")
    pytest.importorskip("tensorflow_datasets")
    for part, rows in (("train", TRAIN), ("test", TEST)):
        (tmp_path / "png" / part).mkdir(parents=True)
        for place, row in enumerate(rows):
            (tmp_path / "png" / part / f"{place}-{label(row)}.png").write_bytes(encoded(pixels(row)))
    # In a process of its own: a builder registers its name for good.
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "tfds"), str(tmp_path / "png")]
    subprocess.run(command, check=True, capture_output=True)
    write(tmp_path / "cifar10")
    tfds, folder = made(tmp_path, source="tfds", data_dir=tmp_path / "tfds"), made(tmp_path)
    assert tfds.describe()["official_validation"] is True
    assert [tfds.describe()["sha256"][part] for part in ("train", "val")] == [
        folder.describe()["sha256"][part] for part in ("train", "val")
    ]
    assert sorted(rows_of(tfds, "test")) == TEST
    assert "tensorflow" not in sys.modules


@needs_cifar
def test_the_checks_of_the_order_are_true_of_cifar10(monkeypatch):
    monkeypatch.undo()
    columns = read_parquet(CIFAR / "train.parquet", {"img": "image", "label": "label"}, {"original_position": "flag"})
    assert original_places(columns) is None
    del columns["original_position"]  # the first 1,017 images of each file are in their places
    assert np.array_equal(original_places(columns), np.arange(50_000))
    assert decode(columns["img"][0], "")[0, 0].tolist() == [59, 62, 63]


def test_one_bar_counts_every_image_and_none_where_nothing_is_decoded(tmp_path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **_):
            bars.append([0, total])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            bars[-1][0] += count

    monkeypatch.setattr(image, "tqdm", Bar)
    write(tmp_path / "cifar10")
    for _ in range(2):
        made(tmp_path, num_test=None)
        assert bars == [[120, 120]]


# Bad input


def replace(folder: Path, row: int, content: bytes) -> None:
    path = folder / "train.parquet"
    table = pq.read_table(path).to_pylist()
    table[row]["img"]["bytes"] = content
    pq.write_table(pa.Table.from_pylist(table), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: replace(f, 50, encoded(pixels(0)[:28, :28])), "row 50: expected an RGB .*(28, 28, 3)"),
        (lambda f: replace(f, 50, encoded(pixels(0)[..., 0])), "row 50: expected an RGB image of 32x32 .*(32, 32)"),
        (lambda f: replace(f, 50, encoded(pixels(0))[:300]), "train.parquet, row 50: the image cannot be decoded"),
        (lambda f: replace(f, 50, b"<html>"), "train.parquet, row 50: the image cannot be decoded"),
        (lambda f: write(f, TRAIN[:-1]), "train.parquet has 99 rows, expected 100"),
        (lambda f: (f / "test.parquet").write_bytes(b"PAR1"), "Cannot read .*test.parquet"),
        (lambda f: pq.write_table(pa.table({"image": [1]}), f / "train.parquet"), "no column img, label: .* image"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_and_nothing_is_left(tmp_path, spoil, message):
    spoil(write(tmp_path / "cifar10"))
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        made(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_wrong_side_is_named():
    with pytest.raises(InputError, match=re.escape("task.side must be one of 8, 16, 32, 64, 128. Got 20.")):
        Image(cache_dir=None, side=20)


def test_the_floor_is_the_commonest_class(tmp_path):
    write(tmp_path / "cifar10")
    task = made(tmp_path)
    commonest = np.bincount(task.split("train").labels).argmax()
    assert task.floors() == {"majority": float(np.mean(task.split("test").labels == commonest))}
