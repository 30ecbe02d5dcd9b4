"""Printing on whatever there is: few characters, no reader, no stream at all."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lra.files import ROOT
from lra.machine.terminal import Output, secure_output


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "a ? b ? 1"), ("latin-1", "a · b ± 1"), ("utf-8", "a · b ± 1")]
)
def test_characters_that_there_are_not_are_replaced(tmp_path, encoding, shown):
    with (tmp_path / "out").open("wb") as file:
        print("a · b ± 1", file=Output(file.fileno(), encoding))
    assert (tmp_path / "out").read_text(encoding=encoding) == shown + "\n"


def test_a_reader_that_went_away_is_no_error():
    reading, writing = os.pipe()
    output = Output(writing, "utf-8")
    print("read", file=output)
    assert os.read(reading, 100) == b"read\n"
    os.close(reading)
    for _ in range(3):
        print("not read", file=output)
        output.write("not a whole line")
        output.flush()
    output.close()
    os.write(writing, b"C's libraries have no error either")
    os.close(writing)


def test_a_disk_without_room_is_no_error():
    with Path("/dev/full").open("wb") as full:
        print("lost", file=Output(full.fileno(), "utf-8"))


def python(code: str, *shell: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, with what the shell does to its streams."""
    words = ["sh", "-c", f'"$0" -c "$1" {" ".join(shell)}', sys.executable, code]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(words, env=settings, capture_output=True, timeout=60, check=False)


SECURED = "from lra.machine.terminal import secure_output, replace_characters; import os, sys; secure_output();"


def test_a_program_is_secured_once_or_twice():
    done = python(f"{SECURED} secure_output(); print('·'); print('±', file=sys.stderr)", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"?\n", b"?\n")


def test_closed_streams_go_nowhere_and_their_numbers_to_no_file(tmp_path):
    path = tmp_path / "file"
    code = (
        f"{SECURED} file = open('{path}', 'w'); print('lost'); print('lost', file=sys.stderr);"
        "os.system('echo lost'); file.write('kept'); sys.exit(file.fileno() <= 2)"
    )
    assert python(code, ">&-", "2>&-", "<&-").returncode == 0
    assert path.read_text() == "kept"


def test_a_stream_that_is_not_the_interpreters_own_is_left_alone(monkeypatch):
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    secure_output()
    assert sys.stdout is own
