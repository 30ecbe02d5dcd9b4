"""Parquet as pandas, polars and datasets write it: what is read, and the sentence for what has no sure meaning."""

import base64
import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from lra.errors import InputError
from lra.files import ROOT
from lra.tasks import image, text
from lra.tasks.checks import check_labels
from lra.tasks.columns import as_lists, read_parquet
from lra.tasks.image import CLASSES, Image
from lra.tasks.text import Text

ROWS = 20
REVIEWS = [f"review {i} of ένα φιλμ" for i in range(ROWS)]
LABELS = [i % 2 for i in range(ROWS)]
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(text, "ROWS", {"train": ROWS, "test": ROWS})
    monkeypatch.setattr(image, "ROWS", {"train": ROWS, "test": ROWS})
    monkeypatch.setattr(image, "FIRST_IMAGES", 2)
    monkeypatch.delenv("LRA_DATA", raising=False)


def png(pixels) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def categorical(values, index=pa.int8, value=pa.string):
    distinct = list(dict.fromkeys(values))
    return pa.DictionaryArray.from_arrays(
        pa.array([distinct.index(v) for v in values], index()), pa.array(distinct, value())
    )


def write(folder, columns, declared=None, group=7):
    """Write both files, in groups of so many rows, so that columns come in chunks.

    `declared` is the Arrow schema that a file says it had, as other writers declare theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        table = pa.table({**columns, "split": [part] * ROWS})
        if declared is None:
            pq.write_table(table, folder / f"{part}.parquet", row_group_size=group)
            continue
        schema = pa.schema([(name, declared.get(name, table[name].type)) for name in table.column_names])
        with pq.ParquetWriter(folder / f"{part}.parquet", table.schema, store_schema=False) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({b"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes())})
    return folder


def checksums(task):
    return task.describe()["sha256"]


# Texts and labels

TEXTS = {
    "large_string": pa.array(REVIEWS, pa.large_string()),
    "string_view": pa.array(REVIEWS, pa.string_view()),
    "binary": pa.array([review.encode() for review in REVIEWS], pa.binary()),
    "binary_view": pa.array([review.encode() for review in REVIEWS], pa.binary_view()),
    "pandas category": categorical(REVIEWS),
    "polars Categorical": categorical(REVIEWS, pa.uint32, pa.large_string),
}


@pytest.fixture
def plain(tmp_path):
    return checksums(
        Text(cache_dir=tmp_path / "cache", data_dir=write(tmp_path / "plain", {"text": REVIEWS, "label": LABELS}))
    )


@pytest.mark.parametrize("form", TEXTS)
def test_text_of_every_type_is_the_same_text(tmp_path, plain, form):
    folder = write(tmp_path / "imdb", {"text": TEXTS[form], "label": LABELS})
    assert checksums(Text(cache_dir=tmp_path / "cache", data_dir=folder)) == plain


@pytest.mark.parametrize(
    "declared",
    [pa.string_view(), pa.dictionary(pa.uint32(), pa.string_view()), pa.dictionary(pa.uint32(), pa.large_string())],
)
def test_text_that_polars_declares_is_the_same_text(tmp_path, plain, declared):
    folder = write(tmp_path / "imdb", {"text": REVIEWS, "label": LABELS}, {"text": declared})
    assert checksums(Text(cache_dir=tmp_path / "cache", data_dir=folder)) == plain


IMDB = ROOT.parent / "shared" / "data" / "imdb"


@pytest.mark.skipif(not IMDB.is_dir(), reason=f"no data in {IMDB}")
def test_imdb_itself_in_other_types_is_the_same_data(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "ROWS", {"train": 25_000, "test": 25_000})
    for part in ("train", "test"):
        table = pq.read_table(IMDB / f"{part}.parquet", columns=["text", "label"])
        names = categorical([NAMES[label] for label in table["label"].to_pylist()])
        other = pa.table({"text": table["text"].cast(pa.string_view()), "label": names})
        pq.write_table(other, tmp_path / f"{part}.parquet")
    made, itself = (Text(cache_dir=tmp_path / "cache", data_dir=folder, num_test=5000) for folder in (tmp_path, IMDB))
    assert made.describe() == itself.describe()


NAMES = ["neg", "pos"]


@pytest.mark.parametrize(
    "labels",
    [
        *(pa.array(LABELS, kind) for kind in (pa.int8(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64())),
        pa.array([bool(label) for label in LABELS]),
        pa.array([str(label) for label in LABELS]),
        pa.array([f"{label}.0" for label in LABELS], pa.string_view()),
        pa.array([NAMES[label] for label in LABELS]),
        pa.array([["negative", "positive"][label] for label in LABELS], pa.large_string()),
        categorical([NAMES[label] for label in LABELS]),
        categorical(LABELS, value=pa.int64),
    ],
    ids=lambda labels: f"{labels.type}-{labels[1]}",
)
def test_labels_of_every_type_are_the_same_labels(tmp_path, plain, labels):
    folder = write(tmp_path / "imdb", {"text": REVIEWS, "label": labels})
    assert checksums(Text(cache_dir=tmp_path / "cache", data_dir=folder)) == plain


@pytest.mark.parametrize(
    ("label", "num_classes", "found"),
    [(0.5, 2, "0.5"), (float("nan"), 2, "nan"), (-1, 2, "-1"), (2**63, 2, "9223372036854775808"), (True, 10, "True"),
     (b"maybe", 2, "'maybe'"), (b"", 2, "''"), (b"\xff", 2, "'\ufffd'"), (b"01", 2, "'01'"), (None, 2, "None")],
)  # fmt: skip
def test_a_label_without_a_sure_meaning_is_named(label, num_classes, found):
    with pytest.raises(InputError, match=f"here, row 1: expected a label of 0 to {num_classes - 1}.*, found {found}"):
        check_labels([1, label], num_classes, "here", {"neg": 0})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": list(range(ROWS)), "label": LABELS}, "column text has the type int64, expected text. Use"),
        (
            {"text": [["a"]] * ROWS, "label": LABELS},
            "column text has the type list<element: string>, expected text",
        ),
        (
            {"text": [{"a": "b"}] * ROWS, "label": LABELS},
            "column text has the type struct<a: string>, expected text",
        ),
        ({"text": pa.nulls(ROWS), "label": LABELS}, "row 0: no text, as in 20 rows"),
        (
            {"text": REVIEWS, "label": [[0]] * ROWS},
            "column label has the type list<element: int64>, expected whole",
        ),
        (
            {"text": REVIEWS, "label": pa.array(LABELS, pa.timestamp("s"))},
            "column label has the type timestamp[ms], expected whole numbers, or the classes' names",
        ),
        (
            {"text": pa.array(["a", *[None] * 19]).dictionary_encode(), "label": LABELS},
            "row 1: no text, as in 19 rows. Use the data set's own file",
        ),
    ],
)
def test_a_type_that_cannot_be_is_named_with_what_was_expected(tmp_path, columns, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        Text(cache_dir=tmp_path / "cache", data_dir=write(tmp_path / "imdb", columns)).prepare()
    assert "train.parquet" in str(raised.value)
    assert "again" not in str(raised.value)


def test_a_value_may_be_missing_from_a_dictionary_too():
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
    with pytest.raises(InputError, match="here, row 1: no id, as in 1 rows"):
        as_lists(pa.table({"id": column}), {"id": "id"}, "here")


def test_a_column_that_is_there_twice_is_named(tmp_path):
    table = pa.Table.from_arrays([pa.array(REVIEWS)] * 2 + [pa.array(LABELS)], names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="x.parquet has 2 columns text. Keep one"):
        read_parquet(tmp_path / "x.parquet", {"text": "text"})


def test_an_id_may_be_a_number(tmp_path):
    for number, ids in enumerate(
        (["7", "10"], [7, 10], pa.array([7, 10], pa.uint16()), pa.array(["7", "10"], pa.string_view()))
    ):
        pq.write_table(pa.table({"id": ids}), tmp_path / f"{number}.parquet")
        assert read_parquet(tmp_path / f"{number}.parquet", {"id": "id"}) == {"id": [b"7", b"10"]}
    pq.write_table(pa.table({"id": [7.0, 10.0]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="the column id has the type double, expected text or whole numbers"):
        read_parquet(tmp_path / "x.parquet", {"id": "id"})


# Images

ENCODED = [png(pixels) for pixels in PIXELS]
STRUCTS = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(ENCODED)]
CIFAR_LABELS = [i % 10 for i in range(ROWS)]


def nested(pixels, kind):
    """Lists of fixed sizes, one in another."""
    values = pa.array(pixels.ravel())
    for size in reversed(pixels.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size) if kind == "fixed" else _listed(values, size, kind)
    return values


def _listed(values, size, kind):
    offsets = np.arange(0, len(values) + 1, size)
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(offsets), values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def images(structs, kind=pa.binary):
    return pa.array(structs, pa.struct([("bytes", kind()), ("path", pa.string())]))


IMAGES = {
    "encoded": pa.array(ENCODED, pa.binary()),
    "encoded, binary_view": pa.array(ENCODED, pa.binary_view()),
    "struct of views": images(STRUCTS, pa.binary_view),
    "struct without paths": pa.array([{"bytes": content} for content in ENCODED]),
    "nested lists": pa.array(PIXELS.tolist()),
    "nested lists of uint8": nested(PIXELS, "list"),
    "nested large lists": nested(PIXELS, "large"),
    "nested lists of fixed sizes": nested(PIXELS, "fixed"),
    "nested lists, colours first": nested(np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)), "list"),
    "nested lists of int64": nested(PIXELS.astype(np.int64), "fixed"),
}


@pytest.fixture
def plain_images(tmp_path):
    folder = write(tmp_path / "plain", {"img": images(STRUCTS), "label": CIFAR_LABELS})
    return checksums(Image(cache_dir=tmp_path / "cache", data_dir=folder))


@pytest.mark.parametrize("form", IMAGES)
def test_images_of_every_form_are_the_same_images(tmp_path, plain_images, form):
    group = ROWS if form == "struct of views" else 7  # pyarrow cannot slice these
    folder = write(tmp_path / "cifar10", {"img": IMAGES[form], "label": CIFAR_LABELS}, group=group)
    assert checksums(Image(cache_dir=tmp_path / "cache", data_dir=folder)) == plain_images


def test_classes_may_be_named(tmp_path, plain_images):
    labels = categorical([CLASSES[label] for label in CIFAR_LABELS])
    folder = write(tmp_path / "cifar10", {"img": images(STRUCTS), "label": labels})
    assert checksums(Image(cache_dir=tmp_path / "cache", data_dir=folder)) == plain_images


def test_an_image_as_datasets_stores_an_array(tmp_path, plain_images):
    """As an extension type, where `datasets` is imported, and as the lists below it, where not."""
    from datasets import Array3D, Dataset, Features, Value

    features = Features({"img": Array3D((32, 32, 3), "uint8"), "label": Value("int64")})
    (tmp_path / "cifar10").mkdir()
    for part in ("train", "test"):
        columns = {"img": list(PIXELS), "label": CIFAR_LABELS, "split": [part] * ROWS}
        data = Dataset.from_dict(columns, features=Features({**features, "split": Value("string")}))
        data.to_parquet(str(tmp_path / "cifar10" / f"{part}.parquet"))
    assert checksums(Image(cache_dir=tmp_path / "cache", data_dir=tmp_path / "cifar10")) == plain_images


@pytest.mark.parametrize("form", ["struct", "names"])
def test_images_in_files_of_their_own_are_read_beside_the_table(tmp_path, plain_images, form):
    names = [f"png/{i}.png" for i in range(ROWS)]
    column = pa.array(names) if form == "names" else images([{"bytes": None, "path": name} for name in names])
    folder = write(tmp_path / "cifar10", {"img": column, "label": CIFAR_LABELS})
    with pytest.raises(
        InputError, match=f"row 0: the image has only the path 'png/0.png', and .* no such file in {folder}"
    ):
        Image(cache_dir=tmp_path / "cache", data_dir=folder).prepare()
    (folder / "png").mkdir()
    for name, content in zip(names, ENCODED, strict=True):
        (folder / name).write_bytes(content)
    task = Image(cache_dir=tmp_path / "cache", data_dir=folder)
    assert checksums(task) == plain_images
    # What decides the arrays is not in the table: other files are another entry.
    before = task.prepare()
    (folder / names[3]).write_bytes(ENCODED[4])
    assert Image(cache_dir=tmp_path / "cache", data_dir=folder).prepare() != before
    (folder / names[3]).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(InputError, match="png/3.png is a pointer of Git LFS"):
        Image(cache_dir=tmp_path / "cache", data_dir=folder).prepare()


RAGGED = [*PIXELS.tolist()[:-1], PIXELS[-1, :31].tolist()]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            [pixels.tobytes() for pixels in PIXELS],
            "row 0: the image is bare pixels, 3,072 bytes, and nothing says",
        ),
        (
            PIXELS.reshape(ROWS, -1).tolist(),
            "column img has the type list<element: int64>, expected encoded images",
        ),
        ((PIXELS / 255).tolist(), "element: double>>>, expected encoded images"),
        ((PIXELS.astype(int) - 1).tolist(), "a pixel has -1 to 254, expected 0 to 255"),
        ((PIXELS.astype(int) + 1).tolist(), "a pixel has 1 to 256, expected 0 to 255"),
        (RAGGED, "column img has the type list<element: list<element: list<element: int64>>>, expected encoded"),
        (PIXELS[..., 0].tolist(), "row 0: expected an RGB image of 32x32 pixels, found uint8 of shape (32, 32)"),
        (list(range(ROWS)), "column img has the type int64, expected encoded images"),
        ([{"data": content} for content in ENCODED], "column img has the type struct<data: binary>, expected"),
        (
            [{"bytes": 1, "path": "a"}] * ROWS,
            "column img has the type struct<bytes: int64, path: string>, expected",
        ),
        (["n" * 5000] * ROWS, "row 0: the image has only the path 'nnn"),
        (["a\0b"] * ROWS, "row 0: the image has only the path 'a\\x00b', and there is no such file"),
        (
            pa.StructArray.from_arrays([pa.array(ENCODED)] * 2, ["bytes", "bytes"]),
            "column img has the type struct<bytes: binary, bytes: binary>, expected encoded images",
        ),
        ([{"bytes": None, "path": None}] * ROWS, "row 0: the image has neither bytes nor a path. Put"),
        ([{"bytes": ENCODED[0], "path": None}, None] * 10, "row 1: no img, as in 10 rows"),
    ],
)
def test_an_image_without_a_sure_meaning_is_named(tmp_path, column, message):
    folder = write(tmp_path / "cifar10", {"img": column, "label": CIFAR_LABELS})
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        Image(cache_dir=tmp_path / "cache", data_dir=folder).prepare()
    assert "again" not in str(raised.value)
    assert len(str(raised.value)) < 600
