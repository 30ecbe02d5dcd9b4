"""The mixer contract, held by everything of configs/attn as a block has it, and by the mixer of docs/mixer.md."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lra.errors import InputError
from lra.files import ROOT
from lra.runs.factory import make_classifier, make_mixer, make_model
from lra.runs.schema import resolve
from models.attention.reformer import ReformerAttention
from models.attention.softmax import SoftmaxAttention
from models.mechanism import Mechanism
from models.mixers import Mixer, StreamMixer
from models.mixers.multi_head import MultiHead
from run import train
from tests.helpers.configurations import composed, resolved
from tests.helpers.contract import (
    MAX_LEN,
    B,
    C,
    D,
    H,
    L,
    TwoLayers,
    Uploads,
    configured,
    files,
    holey_mask,
    noisy,
    rows,
    run,
)
from tests.helpers.frozen import freeze_draws

SHOWN = "mixer.md"
NAMES = [*files(), SHOWN]
PAGE = ROOT / "docs" / "mixer.md"


def shown(language: str) -> str:
    """The code that docs/mixer.md shows in a language."""
    [block] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block


@cache
def fourier_mixer() -> type[Mixer]:
    names: dict = {}
    exec(shown("python"), names)
    return names["FourierMixer"]


def build(name: str, budget: int = 8, dropout: float = 0.0) -> Mixer:
    make = fourier_mixer() if name == SHOWN else configured(name, budget)
    torch.manual_seed(0)
    mixer = make_mixer(make, {"num_heads": H, "head_dim": D})(dim=C, max_len=MAX_LEN, dropout=dropout)
    return TwoLayers(mixer) if isinstance(mixer, StreamMixer) else mixer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype_stay_and_rows_of_padding_are_zero(name, dtype):
    mask = holey_mask()
    out = build(name).to(dtype)(*rows(dtype=dtype), mask)
    assert out.shape == (B, L, C)
    assert out.dtype == dtype
    assert out.isfinite().all()
    assert out[~mask].count_nonzero() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [3.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_padded_content_changes_no_bit(name, scale, training):
    module, mask, clean = freeze_draws(build(name)).train(training), holey_mask(), rows()
    out, grads = run(module, clean, mask)
    noisy_out, noisy_grads = run(module, [noisy(x, mask, scale) for x in clean], mask)
    assert torch.equal(out, noisy_out)
    assert torch.equal(grads[0], noisy_grads[0])


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_reaches_padding(name):
    mask = holey_mask()
    _, (grad,) = run(freeze_draws(build(name)), rows(), mask)
    assert grad[~mask].count_nonzero() == 0


# In float64, because in float32 a different summation order may flip a sampled or sorted index.
@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_do_not_matter(name):
    module, mask, (x,) = freeze_draws(build(name)).double(), holey_mask(), rows(dtype=torch.float64)
    out, (grad,) = run(module, [x], mask)
    alone, (alone_grad,) = run(module, [x[:1]], mask[:1])
    torch.testing.assert_close(out[:1], alone, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grad[:1], alone_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("extra", [1, 8, 64])
@pytest.mark.parametrize("name", NAMES)
def test_appended_padding_does_not_matter(name, extra):
    module, mask, (x,) = freeze_draws(build(name)).double(), holey_mask(), rows(dtype=torch.float64)
    out, (grad,) = run(module, [x], mask)
    longer, (longer_grad,) = run(module, [F.pad(x, (0, 0, 0, extra), value=2.0)], F.pad(mask, (0, extra)))
    torch.testing.assert_close(longer[:, :L], out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(longer_grad[:, :L], grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_empty_and_single_token_sequences(name, training):
    module, (x,), mask = build(name).train(training), rows(), holey_mask()
    mask[0] = False
    mask[1] = False
    mask[1, 5] = True
    out, (grad,) = run(module, [x], mask)
    assert out.isfinite().all()
    assert out[~mask].count_nonzero() == 0
    assert grad.isfinite().all()
    assert grad[0].count_nonzero() == 0


@pytest.mark.parametrize("length", [1, 2, 3, 7, 31, 33, 65, MAX_LEN])
@pytest.mark.parametrize("name", NAMES)
def test_any_length_is_accepted(name, length):
    module = build(name)
    for mask in (holey_mask(length), torch.ones(B, length, dtype=torch.bool)):
        out, (grad,) = run(module, rows(length), mask)
        assert out.shape == (B, length, C)
        assert out.isfinite().all()
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_stays_finite_at_large_numbers(name):
    module, mask, (x,) = build(name), holey_mask(), rows()
    mask[1] = False
    with torch.autocast("cpu", torch.bfloat16):
        out = module(50 * x, mask)  # logits in the thousands
    assert out.isfinite().all()
    for grad in torch.autograd.grad(out.float().sum(), [x, *module.parameters()], allow_unused=True):
        assert grad is None or grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    module = build(name)
    unread = tuple(f"{projection}." for projection in module.attention.unread) if isinstance(module, MultiHead) else ()
    parameters = dict(module.named_parameters())
    if not parameters:
        pytest.skip("no parameters")
    grads = torch.autograd.grad(module(*rows(), holey_mask()).square().sum(), [*parameters.values()], allow_unused=True)
    for parameter, grad in zip(parameters, grads, strict=True):
        if parameter.startswith(unread):
            assert grad is None or grad.count_nonzero() == 0, parameter
        else:
            note = f"{parameter} has no gradient. If the mechanism never reads it: unread = (...) in the class."
            assert grad is not None, note
            assert grad.count_nonzero() > 0, note


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_the_output(name, training):
    module, x, mask = build(name, dropout=0.1).train(training), rows(), holey_mask()
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(run(module, x, mask))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1][0], results[1][1][0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_draw_is_the_only_source_of_randomness(name, training):
    module = freeze_draws(build(name)).train(training)
    state = torch.get_rng_state()
    module(*rows(), holey_mask())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_shapes_drawn_depend_on_shapes_alone(name):
    module, shapes = freeze_draws(build(name)), []
    for part in module.modules():
        if isinstance(part, Mechanism):

            def recorded(distribution, shape, device, frozen=part.draw):
                shapes[-1].append((distribution, shape))
                return frozen(distribution, shape, device)

            part.draw = recorded
    for mask in (holey_mask(), torch.ones(B, L, dtype=torch.bool), torch.zeros(B, L, dtype=torch.bool)):
        shapes.append([])
        module(torch.randn(B, L, C), mask)
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_read_back_from_the_device(name):
    with FakeTensorMode():  # tensors without values: code that waits for one fails
        out = build(name)(torch.empty(B, L, C), torch.empty(B, L, dtype=torch.bool))
    assert out.shape == (B, L, C)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_uploaded_to_the_device(name, training, monkeypatch):
    """Forward and backward on a device that is not the host's and needs no hardware; only autocast does not know it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    module = build(name).train(training).to("meta")
    x = torch.empty(B, L, C, device="meta", requires_grad=True)
    mask = torch.empty(B, L, dtype=torch.bool, device="meta")
    with Uploads("meta", [x, mask, *module.parameters(), *module.buffers()]) as uploads:
        out = module(x, mask)
        torch.autograd.grad(out.sum(), x)
    assert uploads.found == []
    assert out.shape == (B, L, C)


@pytest.mark.parametrize(
    "upload",
    [
        lambda x: x[:, [0, 2]],
        lambda x: x * x.new_tensor([2.0]),
        lambda x: x * torch.tensor(2.0, device=x.device),
        lambda x: x + torch.arange(3).to(x.device),
    ],
)
def test_an_upload_is_seen(upload):
    x = torch.empty(3, 3, device="meta")
    with Uploads("meta", [x]) as uploads:
        upload(x)
    assert uploads.found


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_off_at_evaluation(name):
    with_dropout, without = (freeze_draws(build(name, dropout=rate)).eval() for rate in (0.5, 0.0))
    assert torch.equal(run(with_dropout, rows(), holey_mask())[0], run(without, rows(), holey_mask())[0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_equals_cpu(name):
    module, mask, (x,) = freeze_draws(build(name)).double(), holey_mask(), rows(dtype=torch.float64)
    out, (grad,) = run(module, [x], mask)
    on_device = x.detach().cuda().requires_grad_()
    cuda_out, (cuda_grad,) = run(module.cuda(), [on_device], mask.cuda())
    torch.testing.assert_close(cuda_out.cpu(), out, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(cuda_grad.cpu(), grad, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_bfloat16_stays_finite(name):
    module, mask = build(name).cuda(), holey_mask().cuda()
    mask[1] = False
    x = rows()[0].detach().cuda().requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        out = module(50 * x, mask)
    assert out.isfinite().all()
    assert torch.autograd.grad(out.float().sum(), x)[0].isfinite().all()


def test_an_attention_gets_heads_and_a_mixer_is_taken_as_it_is():
    sizes = {"dim": C, "max_len": MAX_LEN, "dropout": 0.0}
    made = make_mixer(configured("skeinformer", 5), {"num_heads": 3, "head_dim": 4})(**sizes)
    assert isinstance(made, MultiHead)
    assert made.query.out_features == 12
    assert (made.attention.num_heads, made.attention.head_dim, made.attention.num_samples) == (3, 4, 5)
    assert make_mixer(fourier_mixer(), {"num_heads": 3, "head_dim": 4}) is fourier_mixer()


def test_multi_head_attention_is_torchs_own():
    mixer, theirs = build("softmax").double(), nn.MultiheadAttention(H * D, H, batch_first=True).double()
    mixer = MultiHead(SoftmaxAttention, num_heads=H, head_dim=D, dim=H * D, max_len=L, dropout=0.0).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([mixer.query.weight, mixer.key.weight, mixer.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([mixer.query.bias, mixer.key.bias, mixer.value.bias]))
        theirs.out_proj.load_state_dict(mixer.out.state_dict())
    x, mask = torch.randn(B, L, H * D, dtype=torch.float64), holey_mask()
    expected, _ = theirs(x, x, x, key_padding_mask=~mask)
    torch.testing.assert_close(mixer(x, mask)[mask], expected[mask])


def test_projections_have_a_bias_unless_the_attention_has_none():
    attention = partial(ReformerAttention, projection_bias=False)
    mixer = MultiHead(attention, num_heads=H, head_dim=D, dim=C, max_len=L, dropout=0.0)
    assert {name for name, _ in mixer.named_parameters()} == {"query.weight", "value.weight", "out.weight", "out.bias"}
    assert mixer.key is mixer.query
    torch.testing.assert_close(mixer(torch.zeros(B, L, C), holey_mask())[2], mixer.out.bias.expand(L, -1))
    assert build("reformer").query.bias is not None


@pytest.mark.parametrize("target", ["torch.nn.Linear", "models.ops.exact_weights.weights_of", "models.encoder.Encoder"])
def test_what_is_neither_is_refused_by_name(target, tmp_path):
    cfg = composed(f"attn._target_={target}", f"cache_dir={tmp_path}")
    task = instantiate(cfg.task)(cache_dir=tmp_path)
    name = target.rpartition(".")[2]
    message = rf"attn._target_ must be a subclass of models.attention.Attention or of models.mixers.Mixer. Got .*{name}"
    with pytest.raises(InputError, match=message):
        make_model(resolved(cfg), task)
    with pytest.raises(InputError, match=message):
        train(resolve(cfg), "listops", "softmax", [])


@pytest.mark.parametrize(
    ("attn", "option", "message"),
    [
        ("fourier", "windw", "cannot be built from model.* and attn.*unexpected keyword argument 'windw'"),
        ("fourier", "dim", "attn.dim has no effect: the model hands it in"),
        ("softmax", "head_dim", "attn.head_dim has no effect: the model hands it in"),
    ],
)
def test_an_option_that_does_not_fit_is_named(package, attn, option, message):
    cfg = composed(f"hydra.searchpath=[file://{package}]", f"attn={attn}", f"+attn.{option}=3")
    with pytest.raises(InputError, match=message):
        make_model(resolved(cfg), instantiate(cfg.task)(cache_dir=package))


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A folder with the two files of docs/mixer.md, of which Python and Hydra can know."""
    (tmp_path / "fourier_mixers.py").write_text(shown("python"))
    (tmp_path / "attn").mkdir()
    target = ("models.mixers.fourier", "fourier_mixers")
    (tmp_path / "attn" / "fourier.yaml").write_text(shown("yaml").replace(*target))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_two_files_add_a_mixer(package):
    """From the command line's words to a record, with another block than usual."""
    words = [
        f"hydra.searchpath=[file://{package}]", "attn=fourier", "scale=smoke", "model.block.norm=batch",
        "model.block.place=post", "trainer.steps=30", "trainer.eval_every=10", "device=cpu", "wandb.mode=disabled",
        f"results_dir={package}", f"cache_dir={package}",
    ]  # fmt: skip
    train(resolve(composed(*words)), "listops", "fourier", words)
    [path] = package.rglob("record.json")
    record = json.loads(path.read_text())
    assert (record["status"], record["attn"], record["steps"]) == ("ok", "fourier", 30)
    assert record["config"]["attn"]["bias"] is False
    losses = [json.loads(line)["train_loss"] for line in path.with_name("metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_batch_norm_is_refused_where_a_batch_is_split(monkeypatch, tmp_path):
    cfg = composed("model.block.norm=batch", "trainer.micro_batch=4", f"cache_dir={tmp_path}")
    task = instantiate(cfg.task)(cache_dir=tmp_path)
    with pytest.raises(InputError, match="over the whole batch, which trainer.micro_batch=4 would split"):
        make_model(resolved(cfg), task)
    cfg.trainer.micro_batch = None
    make_model(resolved(cfg), task)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(InputError, match="over the whole batch, which 2 processes would split"):
        make_model(resolved(cfg), task)


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_a_classifier_around_a_mixer_ignores_padding(num_inputs):
    shape = {"dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.1}
    sizes = {"vocab_size": 11, "max_len": 20, "num_classes": 5, "num_inputs": num_inputs}
    model = make_classifier(fourier_mixer(), {**shape, "attention_dropout": 0.1}, **sizes).double().eval()
    tokens = torch.randint(1, 11, (3, num_inputs, 10))
    mask = torch.arange(10) < torch.tensor([10, 4, 1])[:, None, None].expand(3, num_inputs, 1)
    expected = model(tokens, mask)
    assert torch.equal(model(tokens.masked_fill(~mask, 7), mask), expected)
    torch.testing.assert_close(model(F.pad(tokens, (0, 6)), F.pad(mask, (0, 6))), expected, rtol=0, atol=1e-12)
