"""Devices by name, and a GPU for each run."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
import torch

from lra.errors import InputError
from lra.machine.devices import claimed_device, claimed_number


def test_devices_by_name():
    with claimed_device("cpu") as device:
        assert device == torch.device("cpu")
    with claimed_device("auto") as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="device must be auto, cpu or cuda. Got 'gpu'"), claimed_device("gpu"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_gpu_is_said():
    with pytest.raises(InputError, match="torch sees no CUDA device. Use device=cpu"), claimed_device("cuda"):
        pass


def test_runs_at_the_same_time_have_different_gpus_and_leave_them(tmp_path, caplog):
    with ExitStack() as stack:
        held = [stack.enter_context(claimed_number(3, tmp_path)) for _ in range(3)]
        assert sorted(held) == [0, 1, 2]
        with claimed_number(3, tmp_path) as shared:
            assert shared in held
        assert "All 3 GPUs are in use" in caplog.text
    with claimed_number(3, tmp_path) as number:
        assert number == 0


def test_a_part_of_a_gpu_whose_name_is_a_path_can_be_held(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-8a3c/1/0")
    with claimed_number(1, tmp_path) as number:
        assert number == 0
        assert [path.name for path in tmp_path.iterdir()] == [f"lra-{os.getuid()}-gpu-MIG-GPU-8a3c-1-0-0.lock"]


def test_a_folder_that_takes_no_locks_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="The lock of a GPU in .*file cannot be written: .* with TMPDIR="),
        claimed_number(1, tmp_path / "file"),
    ):
        pass


def test_a_process_whose_number_has_no_gpu_is_told_so(monkeypatch):
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 5, "MASTER_ADDR": "a", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(InputError, match="LOCAL_RANK=5 has no GPU: torch sees 4"), claimed_device("cuda"):
        pass
