"""A run's folder: where it is, who holds it, and what it says when it cannot be had."""

from __future__ import annotations

import os
import re
import socket

import pytest

from lra.errors import InputError
from lra.files import writing
from lra.records.folder import Holder, RunFolder
from tests.helpers.records import saved, sound

RUN = sound("softmax", 0, 0.4)


def test_the_folders_of_all_runs_are_those_where_one_began(tmp_path):
    others = [sound("vmean", seed, 0.3) for seed in (0, 1)]
    saved(tmp_path, RUN, *others)
    begun = RunFolder(tmp_path / "runs" / "text" / "vmean" / "0123456789")
    begun.path.mkdir(parents=True)
    begun.config.write_text("{}")
    (tmp_path / "runs" / ".multirun" / "jobs" / "1").mkdir(parents=True)
    (tmp_path / "runs" / "listops" / "missing-lra-full.json").write_text("{}")
    expected = {RunFolder.of(tmp_path, run) for run in (RUN, *others)} | {begun}
    assert set(RunFolder.all(tmp_path)) == expected
    assert RunFolder.all(tmp_path / "nowhere") == []


def test_who_claims_a_folder_is_named_to_others(tmp_path):
    folder = RunFolder.of(tmp_path, RUN)
    assert folder.holder() is None
    with folder.claimed(RUN.config):
        holder = folder.holder()
        assert holder is not None
        assert (holder.process, holder.host) == (os.getpid(), socket.gethostname())
        with pytest.raises(InputError, match=re.escape(f"training this run in {folder}: {holder}. Wait")):
            folder.claimed(RUN.config).__enter__()
    assert folder.holder() == holder
    with folder.claimed(RUN.config):
        pass


@pytest.mark.parametrize("content", ["", "process 3 on a, since b", "[]", '{"process": 3}'])
def test_a_damaged_note_names_no_holder(tmp_path, content):
    (tmp_path / ".holder").write_text(content)
    assert RunFolder(tmp_path).holder() is None
    assert str(Holder(3, "a", "b")) == "process 3 on a, since b"


def test_only_a_result_is_finished(tmp_path):
    folder = RunFolder.of(tmp_path, RUN)
    assert folder.finished() is None
    saved(tmp_path, RUN)
    assert folder.finished() == RUN
    folder.record.write_text(folder.record.read_text().replace('"status": "ok"', '"status": "interrupted"'))
    assert folder.finished() is None


@pytest.mark.parametrize(("remedy", "end"), [("Choose another.", ": Not a directory. Choose another."), ("", "ory.")])
def test_what_cannot_be_written_is_one_sentence(tmp_path, remedy, end):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error, writing("This file", remedy):
        (tmp_path / "file" / "x").mkdir()
    assert str(error.value).startswith("This file cannot be written: ")
    assert str(error.value).endswith(end)
