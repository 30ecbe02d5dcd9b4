"""The process that `fake_cuda` starts: a line of JSON comes in for every case, and one with what it did goes out."""

from __future__ import annotations

import ctypes
import json
import sys
import traceback

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])  # ahead of torch

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from lra.files import ROOT
from lra.machine.distributed import World
from lra.machine.launches import launches, waits
from lra.runs.factory import make_trainer, sketch
from lra.tasks import Split
from lra.training.batching import Batch, Batching
from lra.training.objectives import classify
from lra.training.stepper import Stepper
from tests.helpers import fake_cuda_faults
from tests.helpers.configurations import resolved, stacked
from tests.helpers.fake_cuda import Case, Seen
from tests.helpers.toy import ToyTask

DEVICE = torch.device("cuda", 0)
BATCH_SIZE = 3
LENGTH, PADDED = 196, 200  # a square, for images, and not the length that is padded to
BUDGET = 16

Operation = tuple[str, str, list[tuple[int, ...]]]


class FakeTask(ToyTask):
    """The shapes of a task, with sequences short enough that Python's loops over chunks are."""

    vocab_size = 256
    max_len = LENGTH

    def split(self, part: str) -> Split:
        lengths = np.resize([LENGTH, 150, 37, 190, 3, LENGTH], 2 * BATCH_SIZE * self.num_inputs)
        tokens = np.ones(lengths.sum(), np.uint8)
        return Split(tokens, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(2 * BATCH_SIZE, np.int64))


class Discipline(TorchDispatchMode):
    """Watches operations: the host may make batches and send them, and waits for nothing.

    Attributes:
        phase: the part of a step that runs.
        batch: tensors of the host that may be sent.
        faults: what was done otherwise.
        trace: every operation on the device, as (phase, operation, shapes of what it takes and makes).
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = "none"
        self.batch: dict[int, Tensor] = {}
        self.faults: dict[str, None] = {}
        self.trace: list[Operation] = []

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Name a part of a step, as the profiler's marks do."""
        before, self.phase = self.phase, name
        try:
            yield
        finally:
            self.phase = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # by far the most frequent
            return _device(args[0])
        taken = _tensors((args, kwargs))
        here = [x for x in taken if _device(x).type == "cpu"]
        if taken and len(here) == len(taken) and all(id(x) in self.batch for x in here) and not _sends(kwargs):
            with unset_fake_temporarily():  # what the host does with its own batch
                out = func(*args, **kwargs)
            self.batch.update((id(x), x) for x in _tensors(out))
            return out
        name = func.name()
        if any(id(x) not in self.batch for x in here) or (here and name != "aten::_to_copy"):
            self._fault(f"{name} takes a tensor of the host")
        if waits(func, args):
            self._fault(f"{name} waits for values")
        out = func(*args, **kwargs)
        made = _tensors(out)
        if any(_device(x) != DEVICE for x in made):
            self._fault(f"{name} makes a tensor on the host")
        if launches(func):
            self.trace.append((self.phase, name, [tuple(x.shape) for x in taken + made]))
        return out

    def _fault(self, what: str) -> None:
        self.faults[f"{self.phase}: {what}, {_line(traceback.extract_stack())}"] = None


class Watched(Batching):
    """Tells a discipline what batches it made."""

    discipline: Discipline

    def gather(self, split: Split, index: NDArray[np.int64], max_len: int) -> Batch:
        with _disable_current_modes():
            batch = super().gather(split, index, max_len)
        self.discipline.batch.update((id(x), x) for x in batch)
        return batch


def seen(case: Case) -> Seen:
    """Train, as a case says."""
    discipline = Discipline()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), discipline:
            _take_steps(case, discipline)
    except Exception as error:
        where = _line(traceback.extract_tb(error.__traceback__))
        discipline.faults[f"{type(error).__name__}: {error}, {where}"] = None
    return Seen(list(discipline.faults), len(discipline.trace))


def _take_steps(case: Case, discipline: Discipline) -> None:
    config = configuration(case.attn, case.protocol, case.task, 2 if case.thorough else 1)
    task = FakeTask(num_inputs=2 if case.task == "retrieval" else 1)
    with _disable_current_modes():
        model, trainer = sketch(config, task), make_trainer(config)
    to_device(model.train())
    batching = Watched(**config["data"])
    object.__setattr__(batching, "discipline", discipline)
    stepper = Stepper(
        model=model, split=task.split("train"), max_len=LENGTH, device=DEVICE, world=World(), steps=trainer.steps,
        batch_size=BATCH_SIZE, micro_batch=None, precision=case.precision, optimization=trainer.optimization,
        batching=batching,
    )  # fmt: skip
    stepper.prepare(compile=False)
    stepper.scaler.scale(torch.zeros((), device=DEVICE))  # which makes its own tensors at first
    discipline.trace.clear()
    stepper.take(np.arange(BATCH_SIZE), discipline.mark)
    if case.thorough:
        first, discipline.trace = discipline.trace, []
        stepper.take(np.arange(BATCH_SIZE, 2 * BATCH_SIZE), discipline.mark)
        if _of_model(first) != _of_model(discipline.trace):
            discipline.faults["the second step has other operations or shapes than the first"] = None
        _evaluate(case, stepper, discipline)


def _evaluate(case: Case, stepper: Stepper, discipline: Discipline) -> None:
    batch = stepper.batching.gather(stepper.split, np.arange(BATCH_SIZE), LENGTH)
    with torch.no_grad(), discipline.mark("evaluation"):
        classify(stepper.model.eval(), batch, DEVICE, case.precision)


def _of_model(trace: list[Operation]) -> list[Operation]:
    return [one for one in trace if one[0] in ("forward", "backward")]


@cache
def configuration(attn: str, protocol: str, task: str, depth: int) -> dict[str, Any]:
    """What a command line gives, with few layers, short sequences, and a budget below their length."""
    faulty = getattr(fake_cuda_faults, attn, None)
    cfg = stacked(task=task, attn="softmax" if faulty else attn, protocol=protocol)
    cfg.budget = BUDGET
    if faulty:
        cfg.attn = {"_target_": f"{faulty.__module__}.{attn}", "_partial_": True, "name": attn}
    cfg.model.depth = min(cfg.model.depth, depth)
    if cfg.data.padded_length is not None:
        cfg.data.padded_length = PADDED
    return resolved(cfg)


def to_device(model: nn.Module) -> None:
    """Replace every parameter and buffer by one of the device without content, as `model.to` would."""
    moved: dict[int, Tensor] = {}  # layers may share one

    def move(x: Tensor) -> Tensor:
        if id(x) not in moved:
            like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=DEVICE)
            moved[id(x)] = nn.Parameter(like, x.requires_grad) if isinstance(x, nn.Parameter) else like
        return moved[id(x)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: move(x) for name, x in tensors.items() if x is not None})


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _device(x: Tensor) -> torch.device:
    return x.fake_device if isinstance(x, FakeTensor) else x.device


def _sends(kwargs: dict[str, Any]) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type != "cpu"


def _line(stack: traceback.StackSummary) -> str:
    """Name the innermost line of the code that is tested."""
    tested = (f"{ROOT}/models/", f"{ROOT}/lra/", fake_cuda_faults.__file__)
    own = [one for one in stack if one.filename.startswith(tested)]
    return f"{own[-1].filename.removeprefix(f'{ROOT}/')}:{own[-1].lineno}" if own else "no line of ours"


def main() -> None:
    """Take the steps of all cases."""
    # Autocast and the scaler of gradients ask for a driver.
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda: True
    warnings.simplefilter("ignore")
    logging.disable()
    for line in sys.stdin:
        print(json.dumps(seen(Case(*json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
