"""The schedules against hand-computed rates, the optimiser against flax's formula, and both across an interruption."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from lra.errors import InputError
from lra.training.optimizer import Optimization

PLAIN = {
    "learning_rate": 1e-3, "warmup_steps": 10, "weight_decay": 0.0, "adam_eps": 1e-8, "cycle_momentum": False,
    "clip_norm": None,
}  # fmt: skip


class Holder(nn.Module):
    """A module of one parameter."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)


def rates(steps: int, count: int | None = None, **changes) -> list[float]:
    """The rates of the first `count` steps of a training of `steps` steps."""
    optimizer, schedule = Optimization(**{**PLAIN, **changes}).build(Holder(torch.zeros(1)), steps)
    found = []
    for step in range(count or steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < steps:
            schedule.step()
    return found


@pytest.mark.parametrize(
    ("base", "warmup", "steps", "at", "expected"),
    [
        (0.05, 1000, 5000, 0, 0.0),
        (0.05, 1000, 5000, 500, 0.0007906),
        (0.05, 1000, 5000, 1000, 0.001581),  # ListOps' peak
        (0.05, 1000, 5000, 4000, 0.0007906),  # half of it after four times the warm-up
        (0.05, 8000, 20000, 8000, 0.000559),  # Text's peak
        (0.05, 8000, 5000, 4999, 0.000349),  # Retrieval ends in its warm-up
    ],
)
def test_inverse_sqrt_is_lras_unnormalised_schedule(base, warmup, steps, at, expected):
    rate = rates(
        steps, at + 1, schedule="inverse_sqrt", learning_rate=base / math.sqrt(warmup), warmup_steps=warmup
    )[at]  # fmt: skip
    assert rate == pytest.approx(expected, rel=1e-3, abs=1e-12)
    assert rate == pytest.approx(base * min(1, at / warmup) / math.sqrt(max(at, warmup)), rel=1e-12)


def test_cosine_is_lras_which_ends_just_short_of_nothing():
    found = rates(35000, schedule="cosine", learning_rate=5e-4, warmup_steps=175)
    assert found[0] == 0
    assert found[35] == pytest.approx(1e-4)
    assert max(found) == found[175] == pytest.approx(5e-4)
    assert found[175 + 17500] == pytest.approx(2.5e-4)
    assert found[-1] == pytest.approx(5e-4 * 0.5 * (1 + math.cos(math.pi * (34999 - 175) / 35000)))
    assert 0 < found[-1] < 1e-7


def test_cosine_to_zero_is_s4s():
    """Beside torch's own cosine, which the original changes by a warm-up."""
    found = rates(50, schedule="cosine_to_zero", learning_rate=1e-2, warmup_steps=5)
    assert found[:5] == pytest.approx([2e-3, 4e-3, 6e-3, 8e-3, 1e-2])
    optimizer = torch.optim.SGD(Holder(torch.zeros(1)).parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 45)
    for rate in found[5:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert rates(50, schedule="cosine_to_zero", learning_rate=1e-2, warmup_steps=0)[0] == 1e-2


def test_one_cycle_rises_from_a_twentyfifth_and_falls_to_nothing():
    found = rates(100, warmup_steps=20, learning_rate=1e-4)
    assert found[0] == pytest.approx(1e-4 / 25)
    assert max(found) == found[19] == pytest.approx(1e-4)
    assert found[-1] == pytest.approx(1e-4 / 25 / 1e4)
    assert found[59] == pytest.approx((found[19] + found[-1]) / 2, rel=0.02)


def test_beta1_cycles_only_where_it_is_asked_to():
    for cycle, expected in ((True, 0.95), (False, 0.9)):
        optimizer, _ = Optimization(**{**PLAIN, "cycle_momentum": cycle}).build(Holder(torch.zeros(1)), 100)
        assert optimizer.param_groups[0]["betas"] == (expected, 0.999)


def test_the_optimiser_is_flaxs_adam_with_decoupled_decay():
    """new = p - lr (m' / (sqrt(v') + eps) + decay p), m' and v' without bias: flax.deprecated's optim.Adam."""
    options = {"schedule": "inverse_sqrt", "adam_betas": [0.9, 0.98], "adam_eps": 1e-9, "weight_decay": 0.1}
    model = Holder(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    p = model.value
    optimizer, schedule = Optimization(**{**PLAIN, **options, "warmup_steps": 3}).build(model, 10)
    by_hand, m, v = p.detach().clone(), torch.zeros(3), torch.zeros(3)
    for step in range(6):
        rate = optimizer.param_groups[0]["lr"]
        gradient = torch.tensor([0.3, -1e-3, step - 2.0], dtype=torch.float64)
        p.grad = gradient.clone()
        optimizer.step()
        schedule.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
        unbiased = m / (1 - 0.9 ** (step + 1)) / ((v / (1 - 0.98 ** (step + 1))).sqrt() + 1e-9)
        by_hand = by_hand - rate * unbiased - rate * 0.1 * by_hand
    torch.testing.assert_close(p.detach(), by_hand, rtol=1e-12, atol=1e-12)


class Rated(nn.Linear):
    """A layer whose bias is not decayed and has a learning rate of its own, as a mechanism may ask for."""

    undecayed = ("bias",)

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.learning_rates = {"bias": 1e-5}


def test_parameters_have_rates_and_decay_of_their_own_where_their_module_says_so():
    model = nn.Sequential(nn.Linear(2, 3), Rated())
    model.append(model[0])  # shared: counted once
    optimization = Optimization(**{**PLAIN, "weight_decay": 0.1, "learning_rate": 1e-3})
    usual, own = optimization.groups(model)
    assert (usual["lr"], usual["weight_decay"], own["lr"], own["weight_decay"]) == (1e-3, 0.1, 1e-5, 0.0)
    assert [*map(id, usual["params"])] == [*map(id, [*model[0].parameters(), model[1].weight])]
    assert [*map(id, own["params"])] == [id(model[1].bias)]


@pytest.mark.parametrize("schedule", ["one_cycle", "inverse_sqrt", "cosine", "cosine_to_zero"])
def test_a_rate_of_its_own_follows_the_schedule(schedule):
    optimizer, scheduler = Optimization(**{**PLAIN, "schedule": schedule}).build(Rated(), 30)
    for _ in range(29):
        usual, own = (group["lr"] for group in optimizer.param_groups)
        assert own == pytest.approx(usual / 100, rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("cycle", [True, False])
@pytest.mark.parametrize("schedule", ["one_cycle", "inverse_sqrt", "cosine", "cosine_to_zero"])
def test_a_restored_pair_goes_on_bit_for_bit(schedule, cycle):
    if cycle and schedule != "one_cycle":
        return
    optimization = Optimization(**{**PLAIN, "schedule": schedule, "cycle_momentum": cycle, "weight_decay": 0.1})

    def begin():
        torch.manual_seed(0)
        model = Rated()
        return model, *optimization.build(model, 30)

    def train(model, optimizer, schedule, first, last):
        for step in range(first, last):
            optimizer.zero_grad()
            model(torch.full((4, 3), 0.1 * step)).square().sum().backward()
            optimizer.step()
            schedule.step()

    whole = begin()
    train(*whole, 0, 25)
    halted = begin()
    train(*halted, 0, 12)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in halted], file)
    file.seek(0)
    resumed = begin()
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(*resumed, 12, 25)
    assert whole[1].param_groups[0]["lr"] == resumed[1].param_groups[0]["lr"]
    assert whole[1].param_groups[0]["betas"] == resumed[1].param_groups[0]["betas"]
    for mine, other in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(mine, other)


def test_only_one_cycle_cycles_the_momentum():
    with pytest.raises(InputError, match="cycle_momentum belongs to optimizer.schedule=one_cycle"):
        Optimization(**{**PLAIN, "schedule": "cosine", "cycle_momentum": True})


def test_only_inverse_sqrt_may_warm_up_beyond_the_end():
    Optimization(**{**PLAIN, "schedule": "inverse_sqrt", "warmup_steps": 8000}).check(5000)
    for schedule in ("one_cycle", "cosine", "cosine_to_zero"):
        with pytest.raises(InputError, match="between 0 and trainer.steps=5. Got 10"):
            Optimization(**{**PLAIN, "schedule": schedule}).check(5)


def test_one_cycle_has_no_way_up_of_one_step():
    with pytest.raises(InputError, match="optimizer.warmup_steps must be 0, or at least 2, .* Got 1."):
        Optimization(**{**PLAIN, "warmup_steps": 1}).check(5)
    for warmup_steps in (0, 2, 5):
        rates(5, warmup_steps=warmup_steps)
