"""A training step leaves a GPU alone: nothing is sent but the batch, nothing read back, no tensor is on the host.

On CUDA tensors without content, so that no GPU is needed; what the numbers are is seen on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lra.training.objectives import PRECISIONS
from tests.helpers import fake_cuda
from tests.helpers.configurations import choices
from tests.helpers.fake_cuda import Case

SAMPLE = {"softmax": "fp32", "skeinformer": "bf16", "s4d": "fp16"}
# Of every kind of data, what is made for it alone.
ON_OTHER_TASKS = ("softmax", "skeinformer", "s4d", "tnn", "tnn_2d", "mega")

pytestmark = [
    pytest.mark.skipif(fake_cuda.compiler() is None, reason="there is no C++ compiler"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch knows CUDA itself"),
]


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    return fake_cuda.library(tmp_path_factory.mktemp("library"))


def faults(library: Path, cases: list[Case]) -> dict[Case, list[str]]:
    return {case: seen.faults for case, seen in fake_cuda.steps(library, cases).items() if seen.faults}


def test_a_sample_leaves_the_device_alone(library):
    cases = [Case(name, "skeinformer", precision, thorough=True) for name, precision in SAMPLE.items()]
    assert faults(library, cases) == {}


def test_what_waits_for_the_device_is_found(library):
    found = {
        "ReadsAValue": "DataDependentOutputException: aten._local_scalar_dense.default",
        "HasAShapeOfValues": "DynamicOutputShapeException: aten.nonzero.default",
        "IndexesWithAList": "forward: aten::_to_copy takes a tensor of the host",
        "MakesATensorOfNumbers": "forward: aten::_to_copy takes a tensor of the host",
        "ForgetsTheDevice": "forward: aten::add.Tensor takes a tensor of the host",
        "MakesAScalarOnTheHost": "forward: aten::mul.Tensor takes a tensor of the host",
        "WritesWhereAMaskIs": "forward: aten::index_put_ waits for values",
        "DrawsRows": "forward: aten::multinomial waits for values",
        "Solves": "forward: aten::_linalg_check_errors waits for values",
        "ReadsAGradient": "DataDependentOutputException: aten._local_scalar_dense.default",
        "CountsItsSteps": "the second step has other operations or shapes than the first",
    }
    seen = faults(library, [Case(name, thorough=name == "CountsItsSteps") for name in found])
    assert [case.attn for case in seen] == list(found)
    for (name, fault), told in zip(found.items(), seen.values(), strict=True):
        assert any(one.startswith(fault) for one in told), (name, told)


@pytest.mark.slow
def test_every_mechanism_leaves_the_device_alone_in_two_steps_and_an_evaluation(library):
    assert faults(library, [Case(name, thorough=True) for name in choices("attn")]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", choices("protocol"))
def test_every_mechanism_leaves_the_device_alone(library, protocol):
    cases = [Case(name, protocol, precision) for name in choices("attn") for precision in PRECISIONS]
    assert faults(library, cases) == {}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", choices("protocol"))
def test_the_data_of_every_task_leave_the_device_alone(library, protocol):
    cases = [Case(name, protocol, task=task) for name in ON_OTHER_TASKS for task in choices("task")]
    assert faults(library, cases) == {}
