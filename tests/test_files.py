"""Files are written whole or not at all, and what killed writers left is swept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lra.files import ROOT, replacing, set_aside, write_atomically


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def killed_while_writing(path: Path) -> None:
    """Start a writer of a file, and kill it when it has written a part."""
    code = (
        "import sys, time; from pathlib import Path; from lra.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'half'), stream.flush(), print(flush=True), time.sleep(100)"
    )
    words = [sys.executable, "-c", code, str(path)]
    writer = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    assert len(list(path.parent.glob(f".{path.name}.*.part"))) == 1
    write_atomically(path, "of another writer")  # who leaves the living one alone
    assert len(list(path.parent.glob(f".{path.name}.*.part"))) == 1
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


def test_what_a_killed_writer_left_is_swept_by_the_next_one_of_the_same_file(tmp_path):
    path, others = tmp_path / "records.jsonl", [".records.jsonl.swp", ".records.json.abcdefgh.part", ".x", "x.part"]
    for name in others:
        (tmp_path / name).touch()
    killed_while_writing(path)
    write_atomically(tmp_path / "another", "")
    assert len(list(tmp_path.glob(".records.jsonl.*.part"))) == 1
    write_atomically(path, "new")
    assert {one.name for one in tmp_path.iterdir()} == {"another", path.name, *others}
    assert path.read_text() == "new"


def test_many_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "x"
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                write_atomically(path, str(number) * 1000)
                assert len(set(path.read_text())) == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_set_aside_replaces_nothing(tmp_path):
    for number in range(3):
        (tmp_path / "x").write_text(str(number))
        set_aside(tmp_path / "x")
    names = ["x.damaged", "x.damaged-2", "x.damaged-3"]
    assert [(tmp_path / name).read_text() for name in names] == ["0", "1", "2"]


def test_a_folder_in_the_place_of_a_file_is_set_aside_by_name(tmp_path, caplog):
    (tmp_path / "x" / "y").mkdir(parents=True)
    with replacing(tmp_path / "x") as stream:
        stream.write(b"content")
    assert (tmp_path / "x").read_bytes() == b"content"
    assert (tmp_path / "x.damaged" / "y").is_dir()
    assert f"{tmp_path / 'x'} is a folder where a file belongs: it is {tmp_path / 'x.damaged'} now." in caplog.text
