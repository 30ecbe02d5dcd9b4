"""What is launched and waited for, against operations of which that is known."""

from __future__ import annotations

import pytest
import torch

from lra.machine.launches import LaunchCounter

CPU = torch.device("cpu")


def counted(run) -> tuple[int, int]:
    x, mask = torch.arange(12.0).view(3, 4), torch.tensor([True, False, True])
    with LaunchCounter(CPU) as counter, counter.mark("part"):
        run(x, mask)
    return counter.launched["part"], counter.waited["part"]


@pytest.mark.parametrize(
    ("run", "launched", "waited"),
    [
        (lambda x, mask: x + 1, 1, 0),
        (lambda x, mask: (x @ x.mT).relu_(), 2, 0),
        (lambda x, mask: x.T.unsqueeze(0)[:, 1:].detach().expand(2, -1, -1), 0, 0),
        (lambda x, mask: torch.empty_like(x), 0, 0),
        (lambda x, mask: x.sum().item(), 2, 1),
        (lambda x, mask: x[mask], 1, 1),
        (lambda x, mask: x[mask.int()], 2, 0),
        (lambda x, mask: mask.nonzero(), 1, 1),
        (lambda x, mask: torch.equal(x, x), 1, 1),
        (lambda x, mask: x.clone().masked_fill_(mask[:, None], 0), 2, 0),
        (lambda x, mask: torch._foreach_add_([x.clone(), x.clone()], 1), 3, 0),
        (lambda x, mask: x.multinomial(2), 1, 1),
    ],
)
def test_operations_are_counted(run, launched, waited):
    assert counted(run) == (launched, waited)


def test_a_part_has_its_own_backward_pass_and_nothing_outside_of_it():
    x = torch.ones(3, requires_grad=True)
    with LaunchCounter(CPU) as counter:
        with counter.mark("forward"):
            y = (x * x).sum()
        y = y + y
        with counter.mark("backward"):
            y.backward()
    assert set(counter.launched) == {"forward", "backward"}
    assert counter.launched["forward"] == 2
    assert counter.launched["backward"] > 2


def test_what_comes_back_from_the_device_is_waited_for():
    with LaunchCounter(torch.device("meta")) as counter, counter.mark("part"):
        torch.ones(3).sum()
        torch.ones(3).to("meta")
        torch.empty_like(torch.ones(3, device="meta"), device="cpu")
        torch.ones(3, device="meta").sum()
    assert counter.launched["part"] == 4
    assert counter.waited["part"] == 1
