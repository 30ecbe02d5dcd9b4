"""The cache: damage is found, builders do not collide, nothing is copied, a failure to write harms nothing."""

import errno
import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from lra.errors import InputError
from lra.tasks import PARTS, Split, cache

SPECIFICATION = {"task": "toy", "version": 1, "seed": 3, "rate": 0.1, "nested": {"pair": (1, 2)}}


def toy_splits(num_inputs=1):
    """Three splits of different sizes; one sequence is empty, and 0 and 255 occur."""
    rng = np.random.default_rng(0)
    splits = {}
    for part, size in zip(PARTS, (40, 5, 7), strict=True):
        lengths = rng.integers(0, 30, size * num_inputs)
        lengths[1] = 0
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        splits[part] = Split(rng.integers(0, 256, offsets[-1], np.uint8), offsets, rng.integers(0, 9, size))
    return splits


class Builder:
    """Makes the toy splits and counts how often."""

    def __init__(self, num_inputs=1):
        self.num_inputs = num_inputs
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return toy_splits(self.num_inputs).items()


def equal(split, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(split, other, strict=True))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def entry(tmp_path):
    return cache.fetch(SPECIFICATION, Builder(), cache_dir=tmp_path)


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_what_is_written_is_read(tmp_path, num_inputs):
    build = Builder(num_inputs)
    built = cache.fetch(SPECIFICATION, build, num_inputs=num_inputs, cache_dir=tmp_path)
    read = cache.fetch(SPECIFICATION, build, num_inputs=num_inputs, cache_dir=tmp_path)
    assert build.calls == 1
    assert built.folder == read.folder
    assert read.folder.parent == tmp_path / "toy"
    assert sorted(files(read.folder)) == ["manifest.json", "test.arrow", "train.arrow", "val.arrow"]
    for part, split in toy_splits(num_inputs).items():
        assert equal(built.splits[part], split)
        assert equal(read.splits[part], split)
        assert read.sizes[part] == len(split.labels)
        assert read.sha256[part] == cache.checksum(split)


def test_the_files_are_ordinary_datasets(tmp_path):
    from datasets import Dataset

    entry = cache.fetch(SPECIFICATION, Builder(2), num_inputs=2, cache_dir=tmp_path)
    dataset = Dataset.from_file(str(entry.folder / "val.arrow"))
    split = toy_splits(2)["val"]
    assert len(dataset) == 5
    for n, example in enumerate(dataset):
        bounds = split.offsets[2 * n : 2 * n + 3]
        pair = [split.tokens[a:b].tolist() for a, b in pairwise(bounds)]
        assert example == {"tokens": pair, "label": split.labels[n]}


def test_reading_copies_nothing(entry):
    """The arrays are the file: what is written into the file afterwards shows in them."""
    path = entry.folder / "train.arrow"
    content = path.read_bytes()
    for array in entry.splits["train"]:
        assert not array.flags.owndata
        assert not array.flags.writeable
        place = content.index(array.tobytes())
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\x77")
        assert array.view(np.uint8)[0] == 0x77
        assert path.read_bytes() != content


def test_the_checksum_is_fixed():
    split = Split(np.arange(3, dtype=np.uint8), np.array([0, 2, 3]), np.array([1, 0]))
    raw = bytes([0, 1, 2]) + b"".join(number.to_bytes(8, "little") for number in (0, 2, 3, 1, 0))
    assert cache.checksum(split) == hashlib.sha256(raw).hexdigest()


def test_another_specification_is_another_entry(tmp_path, entry):
    for change in ({"version": 2}, {"seed": 4}, {"rate": 0.2}):
        assert cache.fetch({**SPECIFICATION, **change}, Builder(), cache_dir=tmp_path).folder != entry.folder
    assert cache.fetch(SPECIFICATION, Builder(2), num_inputs=2, cache_dir=tmp_path).folder != entry.folder
    assert cache.fetch(dict(reversed(SPECIFICATION.items())), Builder(), cache_dir=tmp_path).folder == entry.folder


def truncate(folder):
    os.truncate(folder / "train.arrow", (folder / "train.arrow").stat().st_size // 2)


def empty(folder):
    os.truncate(folder / "val.arrow", 0)


def flip_token(folder):
    flip(folder / "test.arrow", toy_splits()["test"].tokens.tobytes())


def flip_label(folder):
    flip(folder / "train.arrow", toy_splits()["train"].labels.tobytes())


def flip_offset(folder):
    flip(folder / "train.arrow", toy_splits()["train"].offsets.tobytes()[8:])


def flip(path, needle):
    content = bytearray(path.read_bytes())
    content[content.index(needle)] ^= 1
    path.write_bytes(content)


def swap(folder):
    (folder / "val.arrow").replace(folder / "test.arrow")


def remove_file(folder):
    (folder / "val.arrow").unlink()


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def break_manifest(folder):
    os.truncate(folder / "manifest.json", 20)


def other_version(folder):
    edit_manifest(folder, lambda manifest: manifest["specification"].update(version=2))


def other_layout(folder):
    edit_manifest(folder, lambda manifest: manifest["specification"].update(layout=cache.LAYOUT + 1))


def other_size(folder):
    edit_manifest(folder, lambda manifest: manifest["splits"]["val"].update(examples=4))


def other_checksum(folder):
    edit_manifest(folder, lambda manifest: manifest["splits"]["val"].update(sha256="0" * 64))


def edit_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = [
    *(truncate, empty, flip_token, flip_label, flip_offset, swap, remove_file, remove_manifest),
    *(break_manifest, other_version, other_layout, other_size, other_checksum),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_told_and_mended(tmp_path, caplog, damage):
    folder = cache.fetch(SPECIFICATION, Builder(), cache_dir=tmp_path).folder
    before = files(folder)
    damage(folder)
    build = Builder()
    with caplog.at_level(logging.WARNING):
        entry = cache.fetch(SPECIFICATION, build, cache_dir=tmp_path)
    assert build.calls == 1
    assert f"{folder} is not sound" in caplog.text
    assert all(equal(entry.splits[part], split) for part, split in toy_splits().items())
    assert files(folder) == before
    caplog.clear()
    cache.fetch(SPECIFICATION, build, cache_dir=tmp_path)
    assert build.calls == 1
    assert not caplog.records
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == [folder.name]


def test_a_flipped_byte_anywhere_is_found(entry):
    """Also in what Arrow says of its own buffers, which it would follow past the end of the file."""
    specification = json.loads((entry.folder / "manifest.json").read_text())["specification"]
    for path in (entry.folder / "val.arrow", entry.folder / "manifest.json"):
        content = path.read_bytes()
        for place in range(0, len(content), 5):
            path.unlink()  # it is mapped still: a new file, not the old one changed
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x04]) + content[place + 1 :])
            with pytest.raises(cache._UnsoundError):
                cache._load(entry.folder, specification)
        path.write_bytes(content)
    assert cache._load(entry.folder, specification)


BUILDER = """
import sys, time
from pathlib import Path
from lra.tasks import cache
from tests.tasks.test_cache import SPECIFICATION, toy_splits

def build():
    with Path(sys.argv[2]).open("a") as file:
        file.write("built\\n")
    time.sleep(1)
    return toy_splits().items()

import datasets
Path(sys.argv[3]).touch()
while len(list(Path(sys.argv[3]).parent.glob("ready*"))) < 2:
    time.sleep(0.01)
print(cache.fetch(SPECIFICATION, build, cache_dir=sys.argv[1]).sha256["train"])
"""


def test_of_two_builders_one_builds_and_the_other_waits(tmp_path):
    arguments = [sys.executable, "-c", BUILDER, tmp_path / "cache", tmp_path / "log"]
    processes = [
        subprocess.Popen([*arguments, tmp_path / f"ready{n}"], stdout=subprocess.PIPE, text=True) for n in range(2)
    ]
    printed = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert printed == [cache.checksum(toy_splits()["train"])] * 2
    assert (tmp_path / "log").read_text() == "built\n"


def test_leftovers_of_the_dead_go_and_work_in_progress_stays(tmp_path):
    for name in (".dead.new", ".dead.old", ".alive.new"):
        (tmp_path / "toy" / name).mkdir(parents=True)
        (tmp_path / "toy" / name / "train.arrow").write_bytes(b"half")
    with FileLock(tmp_path / "toy" / ".alive.lock"):
        cache.fetch(SPECIFICATION, Builder(), cache_dir=tmp_path)
    assert [path.name for path in (tmp_path / "toy").glob(".*.???") if path.is_dir()] == [".alive.new"]


def test_a_build_that_was_killed_is_done_again(tmp_path, entry):
    entry.folder.rename(entry.folder.with_name(f".{entry.folder.name}.new"))
    build = Builder()
    assert cache.fetch(SPECIFICATION, build, cache_dir=tmp_path).folder.is_dir()
    assert build.calls == 1


def test_a_sound_entry_needs_no_lock(tmp_path, entry, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    build = Builder()
    assert cache.fetch(SPECIFICATION, build, cache_dir=tmp_path).folder == entry.folder
    truncate(entry.folder)
    with pytest.raises(InputError, match=r"Permission denied.*cache_dir=.*LRA_CACHE") as error:
        cache.fetch(SPECIFICATION, build, cache_dir=tmp_path)
    assert str(entry.folder) in str(error.value)
    assert build.calls == 0


def test_a_cache_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    build = Builder()
    with pytest.raises(InputError, match=r"file/cache/toy.*cache_dir=.*LRA_CACHE"):
        cache.fetch(SPECIFICATION, build, cache_dir=tmp_path / "file" / "cache")
    assert build.calls == 0


def test_a_full_disk_leaves_what_was_there(tmp_path, entry):
    """The limit on a file's size stands in for the disk's: writing fails in the same call."""
    truncate(entry.folder)
    before = files(entry.folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(InputError, match=r"File too large.*Make room.*cache_dir=") as error:
            cache.fetch(SPECIFICATION, Builder(), cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(entry.folder) in str(error.value)
    assert files(entry.folder) == before
    assert [path.name for path in entry.folder.parent.iterdir() if path.suffix != ".lock"] == [entry.folder.name]


@pytest.mark.parametrize("error", [InputError("line 7"), KeyboardInterrupt(), OSError("raw file")])
def test_a_failing_build_leaves_nothing_and_keeps_its_own_error(tmp_path, error):
    def build():
        yield "train", toy_splits()["train"]
        raise error

    with pytest.raises(type(error)) as raised:
        cache.fetch(SPECIFICATION, build, cache_dir=tmp_path)
    assert raised.value is error
    assert not list(tmp_path.rglob("*.arrow"))


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LRA_CACHE", raising=False)
    assert cache.cache_root() == tmp_path / "home" / ".cache" / "lra"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_root() == tmp_path / "xdg" / "lra"
    monkeypatch.setenv("LRA_CACHE", "~/mine")
    assert cache.cache_root() == tmp_path / "home" / "mine"
    assert cache.cache_root(str(tmp_path / "given")) == tmp_path / "given"
    entry = cache.fetch(SPECIFICATION, Builder())
    assert Path(tmp_path, "home", "mine", "toy") == entry.folder.parent


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/cache", None])
def test_a_home_folder_that_is_not_known_is_named(monkeypatch, folder):
    for name in ("LRA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(InputError, match="cannot be kept in ~.*: there is no such home folder here. .*cache_dir="):
        cache.cache_root(folder)
