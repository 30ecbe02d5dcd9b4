"""The training loop on a task it can learn: results, randomness, accumulation, stopping, divergence."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lra.errors import InputError
from lra.machine.meter import Meter
from lra.training.compilation import compiled, wanted
from lra.training.outcome import DivergedError, Outcome
from lra.training.surroundings import Surroundings
from lra.training.trainer import Trainer
from models.attention.softmax import SoftmaxAttention
from models.attention.softmax_materialised import SoftmaxMaterialisedAttention
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, TRAINER, changed, model_for, numbers


def fit(trainer: Trainer, model: nn.Module | None = None, num_inputs: int = 1, seed: int = 0):
    task = ToyTask(num_inputs)
    curve: list[dict] = []
    outcome = Outcome()
    surroundings = Surroundings(CPU, report=curve.append)
    trainer.fit(model or model_for(task), task, outcome, seed=seed, surroundings=surroundings)
    return outcome, curve


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_it_learns_a_task_that_can_be_learnt(num_inputs):
    outcome, curve = fit(TRAINER, num_inputs=num_inputs)
    assert outcome.test_accuracy > 0.95
    assert [point["step"] for point in curve] == [10, 20, 30, 40]
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert curve[-1]["epoch"] == 40 * 32 / 256
    assert outcome.cost["ms_per_step"] > 0


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not():
    trainer = changed(steps=15)
    runs = [
        numbers(fit(trainer, model_for(ToyTask(), SoftmaxMaterialisedAttention, dropout=0.2), seed=seed)[1])
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


class Noisy(SoftmaxAttention):
    def forward(self, q, k, v, mask):
        return super().forward(q, k, v, mask) + 0.1 * self.draw("normal", tuple(v.shape), v.device)


def test_two_seeds_give_two_evaluations_and_a_seed_repeats_its_own():
    task, model, trainer = ToyTask(), model_for(ToyTask(), Noisy), changed(eval_batch_size=13)
    losses = [
        trainer.evaluate(model, task.split("val"), task.max_len, seed, Surroundings(CPU), "val").loss
        for seed in (0, 1, 2, 12345, 0, 1, 2, 12345)
    ]
    assert len(set(losses)) == 4
    assert losses[:4] == losses[4:]


def test_how_often_it_evaluates_changes_nothing_in_training():
    often, seldom = (
        fit(changed(steps=12, eval_every=every), model_for(ToyTask(), Noisy, dropout=0.2))[1] for every in (3, 12)
    )
    mean = np.mean([point["train_loss"] for point in often])
    assert mean == pytest.approx(seldom[0]["train_loss"], rel=1e-12)
    assert often[-1]["val_loss"] == seldom[0]["val_loss"]


@pytest.mark.parametrize("size", [8, 12, "auto"])  # 12 leaves a smaller part of 8
def test_accumulation_gives_the_gradient_of_the_undivided_batch(size):
    whole, parts = (fit(changed(steps=6, eval_every=2, micro_batch=n, clip_norm=0.5))[1] for n in (32, size))
    for a, b in zip(whole, parts, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)
        assert a["train_accuracy"] == pytest.approx(b["train_accuracy"])


def test_parts_of_a_batch_hold_examples_of_about_one_length():
    padded = {}
    for size in (None, 8):
        task, meter = ToyTask(), Meter(CPU)
        changed(steps=6, eval_every=6, micro_batch=size).fit(
            model_for(task), task, Outcome(), seed=0, surroundings=Surroundings(CPU, meter=meter)
        )
        real, padded[size] = np.sum(meter.tokens, axis=0)
        whole = padded[None] - real
        # Lengths are 1 to 12, rounded up to 8 or 12: of four parts at least one has no long example.
        assert size is None or padded[size] - real < 0.8 * whole


def test_clipping_bounds_the_first_update():
    """Adam's first step does not depend on the gradient's size, but with a large eps it is the gradient itself."""
    moves = []
    for clip in (None, 1e-3):
        model = model_for(ToyTask())
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        fit(changed(steps=1, warmup_steps=0, eval_every=1, clip_norm=clip, adam_eps=1e6), model)
        moves.append((nn.utils.parameters_to_vector(model.parameters()) - before).norm().item())
    assert moves[1] < moves[0] / 10


def test_evaluation_is_a_plain_mean_over_all_examples_and_leaves_no_trace():
    task, model = ToyTask(), model_for(ToyTask(), dropout=0.3)
    split = task.split("test")
    model.train()
    state = torch.get_rng_state()
    result = changed(eval_batch_size=13).evaluate(model, split, task.max_len, 0, Surroundings(CPU), "test")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    model.eval()
    losses, hits = [], []
    for n, label in enumerate(split.labels):
        row = torch.from_numpy(split.tokens[split.offsets[n] : split.offsets[n + 1]].copy())[None, None]
        logits = model(row, torch.ones_like(row, dtype=torch.bool))
        losses.append(F.cross_entropy(logits, torch.tensor([label])).item())
        hits.append(logits.argmax().item() == label)
        assert result.predictions[n] == logits.argmax().item()
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.accuracy == np.mean(hits)


class Scripted(nn.Module):
    """Answers as told, whatever it is shown: right on the given share of validation passes."""

    def __init__(self, task: ToyTask, script: list[float]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("passes", torch.tensor(0))
        self.task, self.script = task, script

    def forward(self, tokens, mask):
        logits = F.one_hot(tokens[:, 0, 0].long() - 1, 3).float() * 4
        if self.training:
            return logits + self.bias
        if len(tokens) == len(self.task.split("val").labels):
            self.passes += 1
            right = torch.arange(len(tokens)) < self.script[int(self.passes) - 1] * len(tokens)
            return torch.where(right[:, None], logits, -logits)
        # On the test split it tells which weights it was given back.
        return torch.where((torch.arange(len(tokens)) < int(self.passes))[:, None], logits, -logits)


def test_a_run_that_will_be_long_on_a_cpu_says_so_after_three_steps(monkeypatch, caplog):
    fit(changed(steps=6))
    assert "hours on this CPU" not in caplog.text
    monkeypatch.setattr("lra.training.trainer.LONG_ON_CPU_SECONDS", 0)
    fit(changed(steps=6))
    assert re.search(r"A step takes \d+\.\d s: 6 of them about 0\.0 hours on this CPU", caplog.text)


def test_a_long_evaluation_shows_how_far_it_is(monkeypatch, capsys):
    fit(changed(steps=1, warmup_steps=0))
    assert "validation:" not in capsys.readouterr().err
    monkeypatch.setattr("lra.training.trainer.QUIET_SECONDS", 0)
    fit(changed(steps=1, warmup_steps=0, eval_batch_size=50))
    shown = capsys.readouterr().err
    batches = -(-len(ToyTask().split("val").labels) // 50)
    assert re.search(rf"validation: +0%.* 0/{batches} ", shown)
    assert "test: " in shown


def test_the_best_weights_on_validation_are_tested_and_the_last_ones_beside_them():
    task = ToyTask()
    script = [0.25, 0.75, 0.75, 0.5]  # the second pass is the best, and the third does not displace it
    trainer = changed(eval_batch_size=67)
    outcome, _ = fit(trainer, Scripted(task, script))
    assert (outcome.best_step, outcome.val_accuracy, outcome.last_val_accuracy) == (20, 0.75, 0.5)
    assert outcome.test_accuracy == 2 / 67
    assert outcome.last_test_accuracy == 4 / 67
    assert not outcome.stopped_early


def test_it_stops_when_the_validation_loss_no_longer_falls():
    script = [0.25, 0.75, 0.5, 0.5]
    outcome, curve = fit(changed(patience=2, steps=100, eval_batch_size=67), Scripted(ToyTask(), script))
    assert outcome.stopped_early
    assert (outcome.steps, outcome.best_step, len(curve)) == (40, 20, 4)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))
            self.calls = 0

        def forward(self, tokens, mask):
            self.calls += self.training
            return self.bias.expand(len(tokens), 3) * (torch.nan if self.calls == 7 else 1)

    outcome = Outcome()
    with pytest.raises(DivergedError, match="training loss is nan at step 7"):
        TRAINER.fit(Explodes(), ToyTask(), outcome, seed=0, surroundings=Surroundings(CPU))
    assert outcome.test_accuracy is None
    assert outcome.cost["ms_per_step"] > 0  # what was measured before is kept


def test_the_learning_rate_rises_and_falls_linearly():
    _, curve = fit(changed(steps=20, warmup_steps=5, eval_every=1))
    rates = [point["learning_rate"] for point in curve]
    assert rates[0] == pytest.approx(1e-2 / 25)
    assert rates[4] == pytest.approx(1e-2)
    assert np.diff(rates[:5]) == pytest.approx([(1e-2 - 1e-2 / 25) / 4] * 4)
    assert rates[-1] == pytest.approx(1e-2 / 25e4)
    assert np.ptp(np.diff(rates[5:])) < 1e-10


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_too(precision):
    outcome, _ = fit(changed(precision=precision))
    assert outcome.test_accuracy > 0.9


def test_a_gradient_that_fp16_cannot_hold_at_any_scale_ends_the_run():
    class Overflows(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, tokens, mask):
            weight = self.weight + 0
            if weight.requires_grad:
                weight.register_hook(lambda gradient: gradient * torch.inf)
            return weight.expand(len(tokens), 3)

    with pytest.raises(DivergedError, match="not finite in fp16 at any scale"):
        fit(changed(precision="fp16"), Overflows())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"micro_batch": 33}, "micro_batch must be auto, null, or a number from 1 to trainer.batch_size=32. Got 33"),
        ({"warmup_steps": 41}, "between 0 and trainer.steps=40. Got 41"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(InputError, match=message):
        changed(**change)


class Narrow(nn.Module):
    """Has no memory for more than `most` examples at once."""

    def __init__(self, most: int, in_training: bool) -> None:
        super().__init__()
        self.inner = model_for(ToyTask())
        self.most = most
        self.in_training = in_training

    def forward(self, tokens, mask):
        if len(tokens) > self.most and self.training == self.in_training:
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(tokens, mask)


def test_the_largest_micro_batch_is_found_and_changes_no_gradient():
    outcome, curve = fit(changed(steps=6, eval_every=2, micro_batch="auto"), Narrow(11, in_training=True))
    assert outcome.micro_batch == 8
    assert numbers(curve)[-1]["val_loss"] == pytest.approx(fit(changed(steps=6, eval_every=2))[1][-1]["val_loss"])


def test_a_micro_batch_that_no_longer_fits_is_halved(caplog):
    model = Narrow(100, in_training=True)

    def shrink(values):
        model.most = 5

    trainer = changed(steps=6, eval_every=2, micro_batch="auto")
    outcome = Outcome()
    trainer.fit(model, ToyTask(), outcome, seed=0, surroundings=Surroundings(CPU, report=shrink))
    assert outcome.micro_batch == 4
    assert "Out of memory with 32 examples at once; going on with 16" in caplog.text


def test_one_example_too_many_is_still_out_of_memory():
    with pytest.raises(torch.OutOfMemoryError):
        fit(changed(micro_batch="auto"), Narrow(0, in_training=True))


def test_an_evaluation_that_does_not_fit_is_done_in_parts():
    narrow, wide = (fit(changed(steps=4), Narrow(most, in_training=False))[0] for most in (3, 100))
    assert narrow.test_accuracy == wide.test_accuracy
    assert np.array_equal(narrow.predictions["last"], wide.predictions["last"])


def test_deterministic_kernels_compute_the_same(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        plain, careful = (fit(changed(steps=6, eval_every=3, deterministic=mode))[1] for mode in (False, True))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert numbers(plain) == numbers(careful)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about its own parts
def test_a_compiled_step_computes_what_the_plain_one_does():
    plain, fast = (fit(changed(steps=6, eval_every=3, compile=mode, micro_batch=20)) for mode in (False, True))
    for a, b in zip(plain[1], fast[1], strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)
    assert list(fast[0].weights) == list(plain[0].weights)
    assert fast[0].compile_seconds > 0 == plain[0].compile_seconds


def test_compiling_ahead_leaves_running_statistics_as_they_were(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    task, model = ToyTask(), model_for(ToyTask(), block={"norm": "batch"})
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    compiled(model, task.split("train"), TRAINER.batching, [32], task.max_len, CPU, "fp32")
    assert before
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        (OSError(28, "No space left on device"), InputError, "torch.compile fails here: .*No space left .*TMPDIR="),
        (RuntimeError("No working C++ compiler found\nin"), InputError, "C.. compiler found. .*trainer.compile=false"),
        (torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError, "out of memory"),
    ],
)
def test_a_machine_that_cannot_compile_is_told_so(monkeypatch, fault, expected, message):
    from torch._dynamo.exc import BackendCompilerFailed

    def fail(*_):
        raise BackendCompilerFailed(compiled, fault, None)

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: fail)
    task = ToyTask()
    with pytest.raises(expected, match=message):
        compiled(model_for(task), task.split("train"), TRAINER.batching, [32], task.max_len, CPU, "fp32")


def test_auto_compiles_on_a_gpu_only():
    assert [wanted("auto", torch.device(name)) for name in ("cpu", "cuda")] == [False, True]
    assert [wanted(mode, CPU) for mode in (True, False)] == [True, False]
