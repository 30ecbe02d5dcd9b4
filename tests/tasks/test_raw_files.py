"""Where raw files are looked for, what is said of them, and files that are not what their names say."""

import gzip
import logging
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from lra.errors import InputError
from lra.tasks import retrieval, text
from lra.tasks.image import Image
from lra.tasks.listops import ListOps
from lra.tasks.pathfinder import Pathfinder
from lra.tasks.raw_files import Layout, find_folder
from lra.tasks.retrieval import Retrieval
from lra.tasks.text import Text
from scripts import prepare

GENERATED = {
    "listops": {"max_depth": 3, "max_args": 4, "min_length": 8, "max_length": 33, "num_train": 30, "num_val": 10},
    "pathfinder": {"resolution": 16, "difficulty": "easy", "num_train": 30, "num_val": 10},
}
IMDB = Layout(("imdb",), lambda folder: (folder / "train.parquet").exists())


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", {"train": 3, "val": 2, "test": 1})
    monkeypatch.setattr(text, "ROWS", {"train": 20, "test": 20})
    monkeypatch.delenv("LRA_DATA", raising=False)


def write_listops(folder):
    folder.mkdir(parents=True)
    for number, part in enumerate(("train", "val", "test")):
        rows = "".join(f"( ( ( [MAX {number} ) {i} ) ] )\t{max(number, i)}\n" for i in range(5))
        (folder / f"basic_{part}.tsv").write_text(f"Source\tTarget\n{rows}")
    return folder


def write_pairs(folder):
    folder.mkdir(parents=True)
    for part, rows in (("train", range(3)), ("eval", range(3, 5)), ("test", range(5, 6))):
        lines = [f"{i % 2}.0\tP{i}\tQ{i}\tb'paper {i}'\tb'another {i}'\n" for i in rows]
        (folder / f"new_aan_pairs.{part}.tsv").write_text("".join(lines))
    return folder


def write_images(folder, resolution=32):
    condition = folder / "curv_contour_length_14"
    (condition / "metadata").mkdir(parents=True)
    (condition / "imgs" / "0").mkdir(parents=True)
    rows = []
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (resolution, resolution)).astype(np.uint8)
        Pillow.fromarray(pixels).save(condition / "imgs" / "0" / f"sample_{i}.png")
        rows.append(f"imgs/0 sample_{i}.png {i} {i % 2} 1.0\n")
    (condition / "metadata" / "0.npy").write_text("".join(rows))
    return folder


def write_reviews(folder):
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        table = pa.table({"text": [f"{part} review {i}" for i in range(20)], "label": [i % 2 for i in range(20)]})
        pq.write_table(table, folder / f"{part}.parquet")
    return folder


WRITERS = {"listops-1000": write_listops, "tsv_data": write_pairs, "pathfinder32": write_images}
TASKS = {"listops-1000": ListOps, "tsv_data": Retrieval, "pathfinder32": Pathfinder}


# Finding


@pytest.mark.parametrize("setting", ["LRA_DATA", "task.data_dir"])
@pytest.mark.parametrize("above", [".", "lra_release", "lra_release/lra_release"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_release_is_read_from_the_folder_it_was_unpacked_in(tmp_path, monkeypatch, name, above, setting):
    folder = WRITERS[name](tmp_path / "release" / above / name)
    data_dir = tmp_path / "release"
    if setting == "LRA_DATA":
        monkeypatch.setenv("LRA_DATA", str(data_dir))
        data_dir = None
    task = TASKS[name](cache_dir=tmp_path / "cache", data_dir=data_dir)
    assert task.describe()["source"] == "released"
    assert f"released in {folder}, " in task.summary("it")
    # The same data have the same description, wherever they lie.
    monkeypatch.delenv("LRA_DATA", raising=False)
    assert TASKS[name](cache_dir=tmp_path / "cache", data_dir=folder).describe() == task.describe()


def test_our_own_names_come_first_and_the_inner_of_two_trees(tmp_path, monkeypatch):
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    layout = Layout(("listops", "listops-1000"), lambda folder: (folder / "a").exists(), shelf="shelf")

    def found(place):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "a").touch()
        return find_folder(None, layout).path == tmp_path / place

    places = ["shelf/listops", "listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"]
    assert all(map(found, [*places, "listops", "."]))


@pytest.mark.parametrize("data_dir", ["pathfinder", "pathfinder/lra_release"])
def test_pathfinder_has_a_shelf_for_its_resolutions(tmp_path, monkeypatch, data_dir):
    folder = write_images(tmp_path / data_dir / "pathfinder32")
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    assert Pathfinder(cache_dir=tmp_path / "cache").data_dir == folder
    assert Pathfinder(cache_dir=tmp_path / "cache", data_dir=tmp_path / "pathfinder").data_dir == folder


def test_an_empty_setting_is_none(tmp_path, monkeypatch):
    for value in ("", None):
        monkeypatch.setenv("LRA_DATA", "")
        assert find_folder(value, IMDB) == (None, "")
        monkeypatch.setenv("LRA_DATA", str(tmp_path))
        (tmp_path / "imdb").mkdir(exist_ok=True)
        assert find_folder(value, IMDB).path == tmp_path / "imdb"


@pytest.mark.parametrize("value", ["no", "no/such/folder", "file", "~nobody-of-this-name/x"])
def test_lra_data_must_be_a_folder(tmp_path, monkeypatch, value):
    (tmp_path / "file").touch()
    value = value if value.startswith("~") else str(tmp_path / value)
    monkeypatch.setenv("LRA_DATA", value)
    for make in (ListOps, Pathfinder, Text, Image, Retrieval):
        with pytest.raises(InputError, match=f"Cannot read the folder of LRA_DATA={value} .*It must be .*unset it"):
            make(cache_dir=tmp_path)
        with pytest.raises(InputError, match=f"Cannot read the folder of task.data_dir={value} .*Correct it.$"):
            make(cache_dir=tmp_path, data_dir=value)
    # Where a folder is given, or none is asked for, nothing depends on it.
    assert Text(cache_dir=tmp_path, data_dir=write_reviews(tmp_path / "imdb"))
    assert Text(cache_dir=tmp_path, source="hub")


def test_a_folder_of_the_tasks_name_is_its_folder_even_without_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    assert find_folder(None, IMDB).path is None
    (tmp_path / "imdb").mkdir()
    assert find_folder(None, IMDB).path == tmp_path / "imdb"
    with pytest.raises(InputError, match="Cannot read .*imdb/train.parquet .No such file.*imdb holds nothing"):
        Text(cache_dir=tmp_path / "cache").prepare()
    (tmp_path / "listops" / "listops-1000").mkdir(parents=True)
    with pytest.raises(InputError, match="listops/basic_train.tsv .*holds listops-1000.*without task.data_dir and LRA"):
        ListOps(cache_dir=tmp_path / "cache").prepare()


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "imdb").mkdir()
    monkeypatch.setenv("LRA_DATA", str(tmp_path))

    def scandir(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=f"LRA_DATA={tmp_path} .Permission denied"):
        find_folder(None, IMDB)


# What was used is said


@pytest.mark.parametrize(("name", "make"), [("listops", ListOps), ("pathfinder", Pathfinder)])
def test_what_is_generated_instead_says_so(tmp_path, monkeypatch, caplog, name, make):
    write_reviews(tmp_path / "imdb")
    write_images(tmp_path / "pathfinder" / "pathfinder32")  # of no use for 16x16
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    with caplog.at_level(logging.INFO):
        for _ in range(2):  # from the cache, too
            task = make(cache_dir=tmp_path / "cache", num_test=10, **GENERATED[name])
            line = task.summary(name)
            assert line.startswith(f"Data of {name}: generated, ")
            assert "; 30 train, 10 val, 10 test. " in line
            assert f"LRA_DATA={tmp_path} has no folder {name if name == 'listops' else 'pathfinder16'}" in line
    assert caplog.text.count("Its source: generated. LRA_DATA=") == 1
    monkeypatch.delenv("LRA_DATA")
    assert (
        make(cache_dir=tmp_path / "cache", num_test=10, **GENERATED[name]).summary(name) == line.partition(" LRA_")[0]
    )


def test_files_and_the_hub_are_named(tmp_path, monkeypatch):
    import datasets

    folder = write_reviews(tmp_path / "imdb")
    line = "bytes 4000; 18 train, 2 val, 20 test."
    task = Text(cache_dir=tmp_path / "cache", data_dir=folder)
    assert task.summary("text") == f"Data of text: parquet in {folder}, {line}"
    pairs = write_pairs(tmp_path / "lra_release" / "tsv_data")
    task = Retrieval(cache_dir=tmp_path / "cache", data_dir=tmp_path, max_length=64)
    assert task.summary("aan") == f"Data of aan: released in {pairs}, raw 64; 3 train, 2 val, 1 test."

    def load_dataset(repository, *, revision, split):
        return datasets.Dataset(pq.read_table(folder / f"{split}.parquet"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "empty"))
    hub = Text(cache_dir=tmp_path / "cache").summary("text")
    where = f"stanfordnlp/imdb at revision {text.HUB.revision}"
    assert hub.startswith(f"Data of text: hub ({where}), {line} LRA_DATA={tmp_path / 'empty'} has no folder imdb")

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match="no network.*LRA_DATA=.* has no folder imdb"):
        Text(cache_dir=tmp_path / "other").prepare()


def test_preparing_says_what_was_prepared_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    words = ["task=listops", "scale=smoke", f"cache_dir={tmp_path / 'cache'}"]
    assert prepare.main(words) == 0
    line = f"Data of listops: generated, brackets; 2,000 train, 200 val, 500 test. LRA_DATA={tmp_path} has no folder"
    assert capsys.readouterr().out.startswith(line)
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "no"))
    assert prepare.main(words) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"listops could not be prepared: Cannot read the folder of LRA_DATA={tmp_path}/no")
    assert not printed.out


def test_where_data_are_changes_no_description(tmp_path, monkeypatch):
    task = ListOps(cache_dir=tmp_path / "cache", num_test=10, **GENERATED["listops"])
    described = task.describe()
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    again = ListOps(cache_dir=tmp_path / "cache", num_test=10, **GENERATED["listops"])
    assert again.describe() == described
    assert again.prepare() == task.prepare()


# What is no data

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in to go on</body></html>\n"
NATURES = [
    (LFS, "is a pointer of Git LFS, not the file itself. Run git lfs pull"),
    (b"/annex/objects/SHA256E-s9--4d7a.parquet\n", "is a pointer of git-annex.*git annex get"),
    (PAGE, "is a web page, as a failed download leaves it. Download the file itself"),
    (b"<HTML>not found", "is a web page"),
    (gzip.compress(b"Source\tTarget\n", mtime=0), "is compressed with gzip. Unpack it"),
    (b"PK\x03\x04....", "is a zip archive. Unpack it"),
    (b"\x00\x05\x16\x07\x00\x02", "is what a Mac writes beside a file .AppleDouble.. Use the file named without ._"),
    ("Source\tTarget\n".encode("utf-16"), "is text in UTF-16. Convert it: iconv -f UTF-16 -t UTF-8"),
]
FILES = {
    "listops": (write_listops, ListOps, "basic_val.tsv"),
    "pairs": (write_pairs, Retrieval, "new_aan_pairs.test.tsv"),
    "parquet": (write_reviews, Text, "train.parquet"),
    "metadata": (write_images, Pathfinder, "curv_contour_length_14/metadata/0.npy"),
    "png": (write_images, Pathfinder, "curv_contour_length_14/imgs/0/sample_3.png"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(("content", "message"), NATURES, ids=[message for _, message in NATURES])
def test_a_file_that_is_something_else_is_named_as_what_it_is(tmp_path, kind, content, message):
    write, make, name = FILES[kind]
    folder = write(tmp_path / ("pathfinder32" if write is write_images else "files"))
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name.rpartition('/')[2]} {message}") as raised:
        make(cache_dir=tmp_path / "cache", data_dir=folder).prepare()
    assert "ownload it again" not in str(raised.value)


def test_a_file_that_is_still_packed_is_pointed_at(tmp_path):
    folder = write_listops(tmp_path / "listops")
    with (folder / "basic_test.tsv").open("rb") as file, gzip.open(folder / "basic_test.tsv.gz", "wb") as packed:
        shutil.copyfileobj(file, packed)
    (folder / "basic_test.tsv").unlink()
    with pytest.raises(InputError, match="basic_test.tsv .No such file.*If basic_test.tsv.gz is that file, unpack it"):
        ListOps(cache_dir=tmp_path / "cache", data_dir=folder).prepare()


@pytest.mark.parametrize(
    ("kind", "copied"),
    [("listops", "basic_test.tsv"), ("pairs", "new_aan_pairs.eval.tsv"), ("parquet", "test.parquet")],
)
def test_one_file_under_two_names_is_no_two_splits(tmp_path, kind, copied):
    write, make, name = FILES[kind]
    folder = write(tmp_path / "files")
    shutil.copy(folder / name, folder / copied)
    with pytest.raises(InputError, match="has the very content of .*a copy of the other, under a wrong name"):
        make(cache_dir=tmp_path / "cache", data_dir=folder).prepare()


def test_what_a_mac_leaves_beside_files_is_not_read(tmp_path):
    for name, write in WRITERS.items():
        folder = write(tmp_path / name)
        before = TASKS[name](cache_dir=tmp_path / "cache", data_dir=folder).describe()
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
            path.with_name(".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
        assert TASKS[name](cache_dir=tmp_path / "cache", data_dir=folder).describe() == before
