"""One step against the same by hand, what it takes to go on with the next one, and what of it a record holds."""

from __future__ import annotations

import io
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lra.machine.distributed import World
from lra.records.record import RunRecord
from lra.training.objectives import classify
from lra.training.outcome import Outcome
from lra.training.progress import Window
from lra.training.stepper import Stepper
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, TRAINER, model_for

TASK = ToyTask()
SPLIT = TASK.split("train")
INDEX = np.arange(TRAINER.batch_size)
BATCH = TRAINER.batching.gather(SPLIT, INDEX, TASK.max_len)


def stepper(micro_batch: int | None = None, steps: int = 10) -> Stepper:
    made = Stepper(
        model=model_for(TASK), split=SPLIT, max_len=TASK.max_len, device=CPU, world=World(), steps=steps,
        batch_size=TRAINER.batch_size, micro_batch=micro_batch, precision="fp32", optimization=TRAINER.optimization,
        batching=TRAINER.batching,
    )  # fmt: skip
    made.prepare(compile=False)
    return made


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_a_step_returns_what_its_batch_gave_before_the_update(micro_batch):
    logits = model_for(TASK)(BATCH.tokens, BATCH.mask)
    step = stepper(micro_batch).take(INDEX)
    assert step.loss.item() == pytest.approx(F.cross_entropy(logits, BATCH.labels).item(), rel=1e-5)
    assert step.accuracy.item() == pytest.approx((logits.argmax(-1) == BATCH.labels).float().mean().item())
    assert step.rate == pytest.approx(TRAINER.optimization.learning_rate / 25)
    assert step.real_tokens == BATCH.mask.sum()
    whole = BATCH.mask.numel()
    assert step.padded_tokens == whole if micro_batch is None else BATCH.mask.sum() <= step.padded_tokens < whole
    assert not step.loss.requires_grad


def test_the_state_of_a_stepper_is_all_that_the_next_steps_depend_on():
    whole = stepper(micro_batch=7)
    whole.take(INDEX)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    other = stepper(micro_batch=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        a, b = whole.take(INDEX), other.take(INDEX)
        assert (a.loss.item(), a.rate) == (b.loss.item(), b.rate)
    for mine, theirs in zip(whole.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_last_step_asks_the_schedule_for_no_further_rate():
    made = stepper(steps=5)
    rates = [made.take(INDEX).rate for _ in range(5)]
    assert rates[-1] == pytest.approx(TRAINER.optimization.learning_rate / 25e4)


def test_scores_of_parts_add_up_to_that_of_the_batch():
    model = model_for(TASK).double()
    whole = classify(model, BATCH, CPU, "fp32")
    parts = [
        classify(model, type(BATCH)(*(x[part] for x in BATCH)), CPU, "fp32") for part in (slice(9), slice(9, None))
    ]
    assert sum(part.num_predictions for part in parts) == whole.num_predictions == len(INDEX)
    assert sum(part.hits.item() for part in parts) == whole.hits.item()
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item(), rel=1e-6)
    assert torch.equal(torch.cat([part.predictions for part in parts]), whole.predictions)


def test_a_window_is_the_mean_of_its_steps_and_keeps_the_last_rate():
    window, made = Window(), stepper()
    steps = [made.take(INDEX) for _ in range(3)]
    for step in steps:
        window.add(step)
    window.read(3)
    assert window.rate == steps[-1].rate
    closed = window.close()
    assert closed["train_loss"] == pytest.approx(np.mean([step.loss.item() for step in steps]))
    assert closed["train_accuracy"] == pytest.approx(np.mean([step.accuracy.item() for step in steps]))


def test_a_record_has_a_field_for_all_that_an_outcome_gives_it():
    given = set(Outcome().in_record())
    assert given <= {field.name for field in fields(RunRecord)}
    assert {"steps", "test_accuracy", "micro_batch", "wall_seconds", "resumptions"} <= given
    assert given.isdisjoint({"cost", "curve", "weights", "predictions", "started"})


def test_a_checkpoint_keeps_of_an_outcome_what_cannot_be_measured_again():
    first = Outcome(steps=3, curve=[{"step": 3}], cost={"ms_per_step": 1.0}, started=0.0)
    kept = first.state_dict()
    assert set(kept) == {field.name for field in fields(Outcome)} - {"cost", "predictions", "started"}
    second = Outcome()
    second.load_state_dict(kept)
    assert (second.steps, second.curve, second.cost) == (3, [{"step": 3}], {})
    assert second.elapsed() >= first.wall_seconds
