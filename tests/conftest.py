"""Settings of every test: one thread, since the tensors are tiny and threads would only wait for one another."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # which Triton reads when it is imported, whoever does that first


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attn-dir",
        type=Path,
        metavar="FOLDER",
        help="hold the mechanisms that the files in this folder name against the contract too (docs/attention.md)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the files in before the test modules ask which there are."""
    if folder := config.getoption("--attn-dir"):
        from lra.errors import InputError
        from tests.helpers import contract

        try:
            contract.include(folder.resolve())
        except InputError as error:
            raise pytest.UsageError(str(error)) from error
