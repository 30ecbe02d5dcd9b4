"""Text: what becomes of a review, who is in validation, every source, and wrong files; and what all sources share."""

import hashlib
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lra.errors import InputError
from lra.files import ROOT
from lra.tasks import PARTS, text
from lra.tasks.examples import choose, hash_key
from lra.tasks.text import CHARACTERS, Text, encode_characters

IMDB = ROOT.parent / "shared" / "data" / "imdb"
needs_imdb = pytest.mark.skipif(not IMDB.is_dir(), reason=f"no data in {IMDB}")

REVIEWS = ["A <br />film.", "ένα φιλμ", "É", *(f"review {i}" for i in range(37))]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(text, "ROWS", {"train": len(REVIEWS), "test": len(REVIEWS)})
    monkeypatch.delenv("LRA_DATA", raising=False)


def write(folder: Path, reviews=REVIEWS, labels=None, part: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    labels = [i % 2 for i in range(len(reviews))] if labels is None else labels
    for name in (part,) if part else ("train", "test"):
        # The column that nobody reads makes two files of the same reviews.
        table = pa.table({"text": reviews, "label": labels, "split": [name] * len(reviews)})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def made(tmp_path: Path, **options) -> Text:
    task = Text(cache_dir=tmp_path / "cache", **{"data_dir": tmp_path / "imdb", **options})
    task.prepare()
    return task


def texts(split) -> list[bytes]:
    return [bytes(split.tokens[a:b] - 1) for a, b in pairwise(split.offsets)]


def test_an_id_is_a_byte_plus_one_and_texts_come_back(tmp_path):
    write(tmp_path / "imdb")
    task = made(tmp_path)
    splits = {part: task.split(part) for part in PARTS}
    assert sorted(texts(splits["test"])) == sorted(review.encode() for review in REVIEWS)
    assert sorted(texts(splits["train"]) + texts(splits["val"])) == sorted(texts(splits["test"]))
    assert task.split("train").tokens.min() > 0
    assert (task.vocab_size, task.max_len, task.num_inputs, task.num_classes) == (257, 4000, 1, 2)


def test_bytes_are_cut_to_the_length_even_inside_a_character(tmp_path):
    write(tmp_path / "imdb")
    task = made(tmp_path, max_length=3)
    assert sorted(texts(task.split("test"))) == sorted(review.encode()[:3] for review in REVIEWS)


def test_a_length_says_how_many_reviews_are_as_long(tmp_path):
    write(tmp_path / "imdb", [*REVIEWS[:-2], "x" * 300, "y" * 256])
    task = made(tmp_path, **Text.at_length(256))
    assert np.diff(task.split("test").offsets).max() == task.max_len == 256
    told = "5.0 % of the test reviews have 256 bytes or more; the others are shorter, and stay so."
    assert task.summary("text").endswith(told)
    assert told not in made(tmp_path, max_length=256).summary("text")


def test_characters_end_in_eos_and_what_is_rare_is_unknown(tmp_path):
    assert list(encode_characters("\t!ω", 4096)) == [3, 5, 1, 2]
    assert list(encode_characters("\t\t\t\t", 3)) == [3, 3, 2]
    write(tmp_path / "imdb")
    task = made(tmp_path, symbols="characters")
    assert task.vocab_size == 134
    assert task.describe()["variant"] == "characters 4000"


def test_validation_is_a_tenth_of_each_class_and_apart_from_train(tmp_path):
    write(tmp_path / "imdb")
    task = made(tmp_path)
    assert task.describe()["sizes"] == {"train": 36, "val": 4, "test": 40}
    assert np.bincount(task.split("val").labels).tolist() == [2, 2]
    assert not set(texts(task.split("val"))) & set(texts(task.split("train")))


def test_validation_on_test_is_lras_way_and_says_so(tmp_path):
    write(tmp_path / "imdb")
    task = made(tmp_path, validation="test")
    described = task.describe()
    assert described["sizes"] == {"train": 40, "val": 40, "test": 40}
    assert described["sha256"]["val"] == described["sha256"]["test"]
    assert described["variant"] == "bytes 4000, validation is test"


def test_neither_order_nor_source_of_the_rows_shows_in_the_arrays(tmp_path):
    write(tmp_path / "one" / "imdb")
    rows = np.random.default_rng(0).permutation(len(REVIEWS))
    write(tmp_path / "two" / "imdb", [REVIEWS[i] for i in rows], [int(i % 2) for i in rows])
    options = {"num_train": 20, "num_val": 2, "num_test": 10}
    one, two = (made(tmp_path / name, **options).describe() for name in ("one", "two"))
    assert one == two
    assert one["sizes"] == {"train": 20, "val": 2, "test": 10}
    # A change that changes these bytes must raise `Text.version`.
    assert one["sha256"]["val"] == "9d7e589fb26d7a481527cd15224e99af63658787e5c51fb0e3de3f7576e20683"


def test_floors_and_a_second_prepare(tmp_path):
    write(tmp_path / "imdb", labels=[0] * 30 + [1] * 10)
    task = made(tmp_path)
    assert task.floors() == {"majority": 0.75}
    assert made(tmp_path).prepare() == task.prepare()


@pytest.mark.slow
@needs_imdb
def test_the_vocabulary_of_characters_is_that_of_the_train_texts():
    reviews = pq.read_table(IMDB / "train.parquet", columns=["text"])["text"].to_pylist()
    code_points = np.frombuffer("".join(review[:4095] for review in reviews).encode("utf-32-le"), "<u4")
    assert "".join(map(chr, np.flatnonzero(np.bincount(code_points) >= 15))) == CHARACTERS


@needs_imdb
def test_imdb_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "ROWS", {"train": 25_000, "test": 25_000})
    task = made(tmp_path, data_dir=IMDB, max_length=1000)
    described = task.describe()
    assert described["sizes"] == {"train": 22_500, "val": 2_500, "test": 25_000}
    assert all(
        np.bincount(task.split(part).labels).tolist() == [size // 2] * 2 for part, size in described["sizes"].items()
    )
    assert not set(texts(task.split("val"))) & set(texts(task.split("train")))


# Choosing by hash


def test_duplicates_stay_on_one_side_and_shares_are_exact():
    keys = np.array([hash_key(str(i // 2 if i < 40 else i).encode()) for i in range(1000)], np.uint64)
    labels = np.where(np.arange(1000) // 2 % 4 == 0, 1, 0)
    chosen = choose(keys, labels, 100)
    assert chosen.sum() == 100
    assert abs(int(labels[chosen].sum()) - int(labels.sum()) // 10) <= 1
    assert all(len({bool(c) for c in chosen[keys == key]}) == 1 for key in set(keys.tolist()))
    order = np.random.default_rng(1).permutation(1000)
    assert np.array_equal(choose(keys[order], labels[order], 100), chosen[order])


# Other sources


def test_the_hub_gives_what_a_folder_gives(tmp_path, monkeypatch):
    import datasets

    write(tmp_path / "imdb")
    asked = []

    def load_dataset(repository, *, revision, split):
        asked.append((repository, revision, split))
        return datasets.Dataset(pq.read_table(tmp_path / "imdb" / f"{split}.parquet"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub, folder = made(tmp_path, data_dir=None), made(tmp_path)
    assert asked == [("stanfordnlp/imdb", text.HUB.revision, part) for part in ("train", "test")]
    assert hub.describe()["source"] == "hub"
    assert hub.describe()["revision"] == text.HUB.revision
    assert hub.describe()["sha256"] == folder.describe()["sha256"]


def test_without_a_network_the_message_says_where_to_put_the_files(tmp_path, monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach 'stanfordnlp/imdb' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match="stanfordnlp/imdb at revision e62816.*reach.*task.data_dir=.*LRA_DATA"):
        made(tmp_path, data_dir=None)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


BUILDER = """
import sys
import tensorflow_datasets as tfds

class ImdbReviews(tfds.core.GeneratorBasedBuilder):
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain_text", version="1.0.0")]

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["neg", "pos"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples() for part in ("train", "test")}

    def _generate_examples(self):
        for i, review in enumerate(eval(sys.argv[2])):
            yield i, {"text": review, "label": i % 2}

ImdbReviews(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


def test_tensorflow_datasets_give_what_a_folder_gives_without_tensorflow(tmp_path):
    pytest.importorskip("array_record")
    pytest.importorskip("tensorflow_datasets")
    # In a process of its own: a builder registers its name for good.
    subprocess.run(
        [sys.executable, "-c", BUILDER, str(tmp_path / "tfds"), repr(REVIEWS)], check=True, capture_output=True
    )
    write(tmp_path / "imdb")
    tfds, folder = made(tmp_path, source="tfds", data_dir=tmp_path / "tfds"), made(tmp_path)
    assert tfds.describe()["dataset"] == "imdb_reviews/plain_text/1.0.0"
    assert tfds.describe()["sha256"] == folder.describe()["sha256"]
    assert "tensorflow" not in sys.modules
    with pytest.raises(InputError, match="cannot read imdb_reviews in .*array_record"):
        made(tmp_path, source="tfds", data_dir=tmp_path / "empty")


# Bad input


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "train.parquet").unlink(), "Cannot read .*train.parquet .*holds test.parquet"),
        (
            lambda f: (f / "test.parquet").unlink() or (f / "test.parquet").mkdir(),
            "Cannot read .*test.parquet .*A file must be there, not a folder",
        ),
        (lambda f: cut(f / "test.parquet"), "Cannot read .*test.parquet.*copy or download it again"),
        (lambda f: write(f, REVIEWS[:-1], part="train"), "train.parquet has 39 rows, expected 40"),
        (lambda f: write(f, [*REVIEWS[:-1], ""], part="train"), "train.parquet, row 39: the text is empty"),
        (lambda f: write(f, [*REVIEWS[:-1], None], part="train"), "train.parquet, row 39: no text"),
        (lambda f: write(f, [], part="train", labels=[]), "train.parquet has no rows"),
        (lambda f: write(f, labels=[*[0] * 39, 2]), "train.parquet, row 39: expected a label of 0 to 1, found 2"),
        (lambda f: write(f, labels=["0"] * 39 + ["2"]), "row 39: expected a label of 0 to 1, or one of neg.*found '2'"),
        (
            lambda f: pq.write_table(pa.table({"review": ["a"], "label": [1]}), f / "train.parquet"),
            "no column text: expected text, label, found review, label",
        ),
        (
            lambda f: pq.write_table(
                pa.table({"text": pa.array([b"\xe9t\xe9"] * 40).cast(pa.string(), safe=False), "label": [0] * 40}),
                f / "test.parquet",
            ),
            "test.parquet, row 0: the text is not UTF-8 .byte 0xe9 at 0",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_and_nothing_is_left(tmp_path, spoil, message):
    spoil(write(tmp_path / "imdb"))
    with pytest.raises(InputError, match=message):
        made(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": "words"}, "task.symbols must be one of bytes, characters. Got 'words'."),
        ({"validation": "train"}, "task.validation must be one of"),
        ({"source": "torch"}, "task.source must be one of"),
        ({"source": "hub"}, "Leave one of them out"),
        ({"source": "parquet", "data_dir": None}, "needs a folder of train.parquet and test.parquet"),
        ({"max_length": 0}, "task.max_length must be an integer"),
        ({"num_test": 0}, "task.num_test must be an integer"),
        ({"num_train": 37}, "task.num_train=37, but the train split has 36"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, options, message):
    write(tmp_path / "imdb")
    with pytest.raises(InputError, match=message):
        made(tmp_path, **options)


def test_the_key_is_the_hash_of_the_text():
    assert hash_key(b"a") == int(hashlib.sha256(b"a").hexdigest()[:16], 16)
