"""The description of the configuration: it fits what is shipped, and refuses what users typed."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Unpack

import pytest
import torch
from omegaconf import OmegaConf

from lra.configuration import compose_config
from lra.errors import InputError
from lra.runs.factory import check_model, make_task, make_trainer
from lra.runs.schema import (
    Configuration,
    Data,
    Model,
    Optimizer,
    Trainer,
    check_added,
    check_names,
    check_tables,
    long_warmup,
    resolve,
)
from models.attention import Sizes
from models.attention.softmax import SoftmaxAttention
from tests.helpers.configurations import choices, composed, stacked


@pytest.mark.parametrize("protocol", choices("protocol"))
@pytest.mark.parametrize("scale", choices("scale"))
def test_what_is_shipped_fits(protocol, scale):
    for task in choices("task"):
        resolve(stacked(task=task, protocol=protocol, scale=scale))


def test_every_key_is_described_and_nothing_else():
    cfg = composed()
    assert set(Configuration.model_fields) == set(cfg)
    for name, node in {"model": Model, "trainer": Trainer, "optimizer": Optimizer, "data": Data}.items():
        assert set(node.model_fields) == set(cfg[name])


# What users typed, and what it must say; a value here is written as on the command line.
REFUSED = [
    ("data.bucket_batches=abc", "data.bucket_batches must be an integer, at least 1. Got 'abc'."),
    ("data.bucket_batches=0", "data.bucket_batches must be an integer, at least 1. Got 0."),
    ("data.padding=none", "data.padding must be one of batch, max. Got 'none'."),
    ("data.bucket_batches=null", "data.bucket_batches must be an integer, at least 1. Got None."),
    ("trainer.deterministic=-1", "trainer.deterministic must be true or false. Got -1."),
    ("trainer.checkpoint_seconds='7'", "trainer.checkpoint_seconds must be a number, at least 0. Got '7'."),
    ("trainer.checkpoint_seconds=5min", "trainer.checkpoint_seconds must be a number, at least 0. Got '5min'."),
    ("trainer.patience=''", "trainer.patience must be an integer, at least 1, or null. Got ''."),
    ("trainer.eval_batch_size=2.5", "trainer.eval_batch_size must be an integer, at least 1. Got 2.5."),
    ("trainer.steps=0", "trainer.steps must be an integer, at least 1. Got 0."),
    ("trainer.batch_size=1.5", "trainer.batch_size must be an integer, at least 1. Got 1.5."),
    ("trainer.compile=yes", "trainer.compile must be true or false, or auto. Got 'yes'."),
    ("trainer.micro_batch=automatic", "trainer.micro_batch must be an integer, at least 1, or auto, or null."),
    ("trainer.precision=fp8", "trainer.precision must be one of fp32, bf16, fp16. Got 'fp8'."),
    ("trainer=3", "trainer must be a mapping with the keys steps, batch_size, "),
    (
        "optimizer.schedule=linear",
        "optimizer.schedule must be one of one_cycle, inverse_sqrt, cosine, cosine_to_zero. Got 'linear'.",
    ),
    ("optimizer.adam_betas=1.5", "optimizer.adam_betas must be a list of 2, each a number from 0 to below 1. Got 1.5."),
    ("optimizer.adam_betas=[0.9]", "Got [0.9]."),
    ("optimizer.adam_betas=[0.9,1.0]", "Got [0.9, 1.0]."),
    ("optimizer.clip_norm=[1,2]", "optimizer.clip_norm must be a number, more than 0, or null. Got [1, 2]."),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate must be a number, at least 0. Got nan."),
    ("optimizer.learning_rate=.inf", "optimizer.learning_rate must be a number, at least 0. Got "),
    ("optimizer.learning_rate=abc", "optimizer.learning_rate must be a number, at least 0. Got 'abc'."),
    ("optimizer.weight_decay=-0.1", "optimizer.weight_decay must be a number, at least 0. Got -0.1."),
    ("optimizer=3", "optimizer must be a mapping with the keys schedule, "),
    ("model.real_valued=true", "model.real_valued must be a mapping with the keys mean, std, or null. Got True."),
    ("model.real_valued={}", "model.real_valued.mean is missing. It must be a number."),
    ("model.real_valued={mean:1}", "model.real_valued.std is missing. It must be a number, more than 0."),
    ("model.embedding_std=-1", "model.embedding_std must be a number, at least 0. Got -1."),
    ("model.num_heads=true", "model.num_heads must be an integer, at least 1. Got True."),
    ("model.dropout=nan", "model.dropout must be a number from 0 to below 1. Got nan."),
    ("model.match_params=1.5", "model.match_params must be an integer, at least 1, or text, not empty, or null."),
    ("model.positions=relative", "model.positions must be one of learned, sinusoidal, rotary, alibi, none."),
    ("model.stem=conv", "model.stem must be a mapping with the keys kind, width, place. Got 'conv'."),
    ("model.stem.kind=dense", "model.stem.kind must be one of none, conv. Got 'dense'."),
    ("model.stem.width=0", "model.stem.width must be an integer, at least 1. Got 0."),
    ("model.stem.place=head", "model.stem.place must be one of embedding, blocks, both. Got 'head'."),
    ("model.reducer.kind=pool", "model.reducer.kind must be one of none, k_centre_r. Got 'pool'."),
    ("model.reducer.retention=2", "model.reducer.retention must be a number, more than 0 and at most 1. Got 2."),
    ("cache_dir=-1", "cache_dir must be text, not empty, or null. Got -1."),
    ("results_dir=null", "results_dir must be text, not empty. Got None."),
    ("results_dir=[a]", "results_dir must be text, not empty. Got ['a']."),
    ("results_dir=", "results_dir must be text, not empty. Got ''."),
    ("sizes=abc", "sizes must be a mapping. Got 'abc'."),
    ("row=abc", "row must be a mapping. Got 'abc'."),
    ("~seed", "seed is missing. It must be an integer, at least 0."),
    ("seed=-1", "seed must be an integer, at least 0. Got -1."),
    ("wandb.mode=of", "wandb.mode must be one of online, offline, disabled. Got 'of'."),
    ("+trainer.epochs=3", "trainer.epochs is no key. Did you mean trainer.steps ("),
    ("wandb=online", "Got 'online'. Did you mean wandb.mode=online?"),
    ("trainer=fp16", "Got 'fp16'. Did you mean trainer.precision=fp16?"),
    ("+sed=3", "sed is no key. Did you mean seed?"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "message"), REFUSED)
def test_what_a_key_does_not_take_is_refused_in_a_sentence(word, message):
    with pytest.raises(InputError) as error:
        resolve(compose_config("scale=smoke", word))
    assert message in str(error.value)


@pytest.mark.parametrize("prefix", ["+", "++"])
@pytest.mark.parametrize("key", ["lr", "epochs", "trainer.epochs", "model.block.depth", "wandb.group"])
def test_an_added_key_that_nothing_reads_is_refused_in_a_sweep_as_in_a_run(prefix, key):
    with pytest.raises(InputError, match=f"^{re.escape(key)} is no key."):
        check_added(["-m", "attn=softmax,vmean", f"{prefix}{key}=3"])


def test_what_a_class_a_group_or_hydra_may_read_is_not_refused_for_its_prefix():
    check_added(["+attn.sharpness=3", "+task.colour=3", "++trainer.steps=3", "+experiment=controlled", "+hydra.a=3"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+tasks.listops.lr=1", "changes nothing in this run"), ("+sizes.mini.epochs=3", "changes nothing in this run"),
        ("tasks.text.steps=3", "changes nothing in this run"), ("sizes.full.num_val=3", "changes nothing in this run"),
        ("+row.lr=3", "is no setting"), ("++size.steps=3", "is no setting"),
    ],
)  # fmt: skip
def test_what_is_set_in_a_table_must_change_something(word, message):
    with pytest.raises(InputError, match=message) as error:
        check_tables(["scale=mini", word])
    assert str(error.value).startswith(word)


def test_a_table_may_be_set_where_the_run_or_another_job_reads_it():
    check_tables(["scale=mini", "sizes.mini.num_val=30", "trainer.steps=30"])
    check_tables(["tasks.text.steps=3", "scale=mini"], in_sweep=True)


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (["scale=mini", "trainer.steps=500"], "optimizer.warmup_steps=50."), (["scale=mini"], ""),
        (["scale=mini", "trainer.steps=2000"], ""), (["scale=mini", "trainer.steps=9000"], ""),
        (["scale=mini", "trainer.steps=500", "optimizer.warmup_steps=300"], ""), (["scale=full"], ""),
        (["scale=full", "trainer.steps=1200"], "optimizer.warmup_steps=60."),
    ],
)  # fmt: skip
def test_a_warm_up_made_for_more_steps_is_told_with_its_share(words, suggested):
    warning = long_warmup(resolve(compose_config(*words)))
    assert warning.endswith(suggested) if suggested else not warning


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["attn=skeinformer", "attn.num_samples=1.5"], "attn.num_samples must be an integer. Got 1.5."),
        (["attn=skeinformer", "attn.num_samples=null"], "attn.num_samples must be an integer. Got None."),
        (["attn=skeinformer", "attn.num_samples=0"], "num_samples must be at least 1. Got 0."),
        (["attn=skeinformer_uniform", "attn.reuse_pilot=1"], "attn.reuse_pilot must be true or false. Got 1."),
        (["attn=performer", "attn.kernel=elu"], "attn.kernel must be one of softmax, relu. Got 'elu'."),
        (["task.data_dir=true"], "task.data_dir must be text, or null. Got True."),
        (["task.num_train=1.5"], "task.num_train must be an integer. Got 1.5."),
        (["task.num_train=0"], "num_train must be an integer, at least 1. Got 0."),
        (["task=image", "task.side='8'"], "task.side must be an integer. Got '8'."),
        (["+task.colour=true"], "task.colour is no key. Keys of task: cache_dir, data_dir, brackets, "),
        (["task._target_=pathlib.Path"], "task._target_ must be a subclass of lra.tasks.Task. Got <class 'pathlib"),
        (["task._target_=nowhere.Task"], "task._target_=nowhere.Task cannot be imported: ModuleNotFoundError"),
        (["~task._partial_"], "task needs `_target_: package.module.Class` and `_partial_: true`."),
        (["data.padding=max", "data.padded_length=64"], "so model.num_positions must be at least as many. Got 33."),
        (
            ["data.padding=max", "data.padded_length=64", "model.num_positions=48"],
            "so model.num_positions must be at least as many. Got 48.",
        ),
    ],
)
def test_what_a_class_does_not_take_is_refused_before_anything_is_prepared(words, message, tmp_path):
    def begin() -> None:
        resolved = resolve(compose_config("scale=smoke", f"cache_dir={tmp_path}", *words))
        task = make_task(resolved)
        make_trainer(resolved)
        check_model(resolved, task)

    with pytest.raises(InputError) as error:
        begin()
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_folders_are_those_of_the_user():
    resolved = resolve(compose_config("results_dir='~/x'", "cache_dir='~/y'"))
    assert "~" not in resolved["results_dir"] + resolved["cache_dir"]
    assert resolve(compose_config())["cache_dir"] is None


class Counting(SoftmaxAttention):
    """Reads a number back while it is made, as is not possible without memory."""

    def __init__(self, *, wrong: bool = False, faulty: bool = False, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        ones = int(torch.ones(3).sum())
        if wrong:
            raise ValueError(f"wrong must be false for {ones}.")
        if faulty:
            raise KeyError("mine")


@pytest.mark.parametrize(("words", "expected"), [("+attn.wrong=true", "wrong must be false for 3."), ("seed=1", None)])
def test_a_model_that_needs_memory_to_be_made_is_checked_as_well(words, expected):
    resolved = resolve(compose_config("scale=smoke", f"attn._target_={__name__}.Counting", words))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with pytest.raises(InputError, match=expected) if expected else nullcontext():
        check_model(resolved, make_task(resolved))
    assert torch.equal(state, torch.get_rng_state())


def test_a_fault_of_a_mechanisms_own_is_left_to_the_run():
    resolved = resolve(compose_config("scale=smoke", f"attn._target_={__name__}.Counting", "+attn.faulty=true"))
    check_model(resolved, make_task(resolved))


def test_the_checked_configuration_is_the_composed_one():
    cfg = stacked(scale="mini")
    assert {**resolve(cfg), "results_dir": cfg.results_dir} == OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_name": "text"}, "task_name must be listops, as in task=listops. Got 'text'."),
        ({"protocol": {"name": "lra"}}, "protocol.name must be skeinformer, as in protocol=skeinformer. Got 'lra'."),
        ({"scale": "mini"}, "scale must be smoke, as in scale=smoke. Got 'mini'."),
    ],
)
def test_a_record_never_has_the_name_of_another_choice(change, message):
    resolved = resolve(stacked(scale="smoke"))
    chosen = {"task": "listops", "protocol": "skeinformer", "scale": "smoke", "attn": "softmax"}
    check_names(resolved, chosen)
    with pytest.raises(InputError) as error:
        check_names({**resolved, **change}, chosen)
    assert str(error.value).startswith(message)
