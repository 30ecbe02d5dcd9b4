"""The protocols against their sources, row by row, and in every combination with tasks and backbones.

`data/hyperparameters.csv` holds those rows of the released configurations and of the code's own constants that have a
counterpart here; every row must have one in the mappings below. Rows without one (numbers of validation batches,
checkpoints, unused vocabulary, accumulation) and those that a protocol says it does not follow were left out of it.
"""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lra.errors import InputError
from lra.files import ROOT
from lra.records.identity import NEUTRAL
from lra.runs.factory import make_model, make_trainer
from lra.tasks import Task
from lra.training.batching import Batching
from tests.helpers.configurations import build_and_classify, choices, composed, resolved, stacked

LRA = "google-research/long-range-arena"
NYSTROMFORMER = "mlpen/Nystromformer LRA/code"
YOSO = "mlpen/YOSO LRA"
SKEINFORMER = "pkuzengqi/Skeinformer"
PAPER = "Skeinformer paper (NAACL 2022) appendix A.1"
S4 = "state-spaces/s4"
S5 = "lindermanlab/S5"
MEGA = "facebookresearch/mega"
TNN = "OpenNLPLab/Tnn"
PROTOCOLS = {
    LRA: "lra", NYSTROMFORMER: "nystromformer", YOSO: "nystromformer", SKEINFORMER: "skeinformer", PAPER: "skeinformer",
    S4: "s4", S5: "s5", MEGA: "mega", TNN: "tnn",
}  # fmt: skip
TASKS = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")

# Which backbones a source's own name stands for.
BACKBONES = {
    "bigbird": ["bigbird"], "linear_transformer": ["linear_transformer"], "linformer": ["linformer"],
    "local": ["local_block"], "longformer": ["longformer"], "performer": ["performer", "performer_relu"],
    "reformer": ["reformer"], "sinkhorn": ["sinkhorn"], "sinkhorn_transformer": ["sinkhorn"],
    "sparse_transformer": ["sparse_fixed"], "synthesizer": ["synthesizer_factorized", "synthesizer_random"],
    "transformer": ["softmax", "softmax_materialised"],
    "nystrom-64": ["nystromformer"], "linformer-256": ["linformer"], "reformer-2": ["reformer"],
    "performer-256": ["performer"], "yoso-v1-32": ["yoso"],
    "skeinformer": ["skeinformer"], "skein_uniform": ["skeinformer_uniform"], "skein_nonorm": ["skeinformer_no_norm"],
    "skein_simplenorm": ["skeinformer_simple_norm"], "skein_nopilot": ["skeinformer_no_pilot"],
    "base": ["vmean"], "all models": ["vmean"],
    "s4 current": ["s4", "s4d", "s4d_inv", "s4d_legs"], "s5": ["s5"],
    "mega": ["mega", "mega_chunk"],
    "tno": ["tnn"], "tno2d": ["tnn_2d"],
}  # fmt: skip


class Run:
    """What a command line makes: its resolved configuration and its task."""

    def __init__(self, **names: str) -> None:
        self.names = names
        cfg = stacked(**names)
        self.cfg = resolved(cfg)
        self.task: Task = instantiate(cfg.task)(cache_dir=Path("unused"))

    def __getitem__(self, key: str) -> Any:
        return OmegaConf.select(OmegaConf.create(self.cfg), key)

    @property
    def max_len(self) -> int:
        return self["model.num_positions"] or self.task.max_len

    def attention(self) -> Any:
        cfg = stacked(**self.names)
        return instantiate(cfg.attn)(num_heads=2, head_dim=32, max_len=self.max_len, dropout=0.0)

    def own(self, attn: str, key: str) -> Any:
        return Run(**{**self.names, "attn": attn})[f"attn.{key}"]


run = cache(Run)


def optimizer_of(r: Run) -> str:
    return "AdamW betas ({}; {}) eps 1e-6".format(*r["optimizer.adam_betas"]) if r["optimizer.adam_eps"] == 1e-6 else ""


def lras_constant(r: Run) -> float:
    """LRA's schedules are not normalised: with the inverse square root, the constant is no peak."""
    unnormalised = r["optimizer.schedule"] == "inverse_sqrt"
    return r["optimizer.learning_rate"] * (math.sqrt(r["optimizer.warmup_steps"]) if unnormalised else 1)


Counterpart = str | Callable[[Run], Any]
COMMON: dict[str, Counterpart] = {
    "batch_size": "trainer.batch_size",
    "num_train_steps": "trainer.steps",
    "weight_decay": "optimizer.weight_decay",
    "warmup": "optimizer.warmup_steps",
    "num_heads": "model.num_heads",
    "num_layers": "model.depth",
    "pooling_mode": lambda r: r["model.pooling"].upper(),
    "learn_pos_emb": lambda r: r["model.positions"] == "learned",
}
FROM_LRA: dict[str, Counterpart] = {
    **COMMON,
    "eval_frequency": "trainer.eval_every",
    "learning_rate": lras_constant,
    "factors": lambda r: (
        "constant * linear_warmup * "
        + {"inverse_sqrt": "rsqrt_decay", "cosine": "cosine_decay"}[r["optimizer.schedule"]]
    ),
    "steps_per_cycle": "trainer.steps",
    "max_length": "task.max_length",
    "classifier_pool": COMMON["pooling_mode"],
    "emb_dim": "model.dim",
    "qkv_dim": lambda r: r["model.num_heads"] * r["model.head_dim"],
    "mlp_dim": "model.mlp_dim",
    "dropout_rate": "model.dropout",
    "attention_dropout_rate": "model.attention_dropout",
    "grad_clip_norm": "optimizer.clip_norm",
    "block_size": "attn.block_size",
    "low_rank_features": "attn.proj_len",
    "k": lambda r: r.own("synthesizer_factorized", "rank"),
    "model_kwargs.attention_fn_cls": lambda r: r.own("performer", "kernel"),
    "model_kwargs.attention_fn_kwargs.nb_features": lambda r: r.own("performer", "num_features"),
    "optimizer": lambda r: (
        "Adam beta1={} beta2={} eps=1e-9".format(*r["optimizer.adam_betas"])
        if r["optimizer.adam_eps"] == 1e-9
        else None
    ),
    "padding_mask": lambda r: "token id > 0" if r["data.mask_zero"] else None,
    "head": lambda r: (
        "concat of the two pooled vectors; MLP mlp_dim then mlp_dim/2"
        if (r["model.pair_features"], r["model.head_depth"]) == ("concat", 3)
        else None
    ),
    "peak_learning_rate": "optimizer.learning_rate",
    "max_learning_rate_reached": lambda r: (
        r["optimizer.learning_rate"] * r["trainer.steps"] / r["optimizer.warmup_steps"]
    ),
}
FROM_MLPEN: dict[str, Counterpart] = {
    **COMMON,
    "embedding_dim": "model.dim",
    "transformer_dim": "model.dim",
    "dim": "model.dim",
    "transformer_hidden_dim": "model.mlp_dim",
    "hidden_dim": "model.mlp_dim",
    "head_dim": "model.head_dim",
    "num_head": "model.num_heads",
    "max_seq_len": lambda r: r.max_len,
    "dropout_prob": "model.dropout",
    "attention_dropout": "model.attention_dropout",
    "num_classes": lambda r: r.task.num_classes,
    "learning_rate": "optimizer.learning_rate",
    "lr_decay": lambda r: "linear" if r["optimizer.schedule"] == "one_cycle" else None,
    "eval_frequency": "trainer.eval_every",
    "patience": "trainer.patience",
    "optimizer": optimizer_of,
    "schedule": lambda r: (
        "OneCycleLR linear; pct_start = warmup/num_train_steps"
        if r["optimizer.schedule"] == "one_cycle" and r["optimizer.cycle_momentum"]
        else None
    ),
    "gradient_clipping": lambda r: r["optimizer.clip_norm"] or "none",
    "mask": lambda r: "token id != 0" if r["data.mask_zero"] else None,
    "pooling": lambda r: (
        "sum of masked outputs divided by the padded length"
        if (r["model.pooling"], r["model.padding_in_mean"]) == ("mean", "zeros")
        else None
    ),
    "max_length": lambda r: f"{r['task.max_length']} padded to {r['data.padded_length']}",
    "num_landmarks": "attn.num_landmarks",
    "conv_kernel_size": "attn.conv_size",
    "linformer_k": "attn.proj_len",
    "num_hash": "attn.num_hashes",
    "rp_dim": "attn.num_features",
    "hash_code_len": lambda r: r.attention().num_bits,
    "use_fast_hash": lambda r: r["attn.hashing"] == "hadamard",
    "n2_backward": lambda r: r["attn.backward"] == "lower_bound",
    "nb_features": "attn.num_samples",
    "num_random_blocks": "attn.num_random_blocks",
    "block_size": "attn.block_size",
}
FROM_PAPER: dict[str, Counterpart] = {
    "skeinformer_features": lambda r: r.own("skeinformer", "num_samples"),
    "linformer_k": lambda r: r.own("linformer", "proj_len"),
    "nystrom_landmarks": lambda r: r.own("nystromformer", "num_landmarks"),
    "performer_features": lambda r: r.own("performer", "num_features"),
    "bigbird_random_blocks": lambda r: r.own("bigbird", "num_random_blocks"),
    "bigbird_block_size": lambda r: r.own("bigbird", "block_size"),
}
# Training examples, by which epochs are steps; where the validation split is the test split, Text trains on all.
EXAMPLES = {
    "listops": 96_000, "text": 25_000, "retrieval": 147_086, "image": 45_000, "pathfinder": 160_000, "pathx": 160_000,
}  # fmt: skip


def epochs(r: Run) -> float:
    return r["trainer.steps"] * r["trainer.batch_size"] / EXAMPLES[r["task_name"]]


def warmup_epochs(r: Run) -> float:
    return r["optimizer.warmup_steps"] * r["trainer.batch_size"] / EXAMPLES[r["task_name"]]


def pixels(r: Run) -> str:
    return "mean {mean:g} std {std:g}".format(**r["model.real_valued"])


def alike(*keys: str) -> Callable[[Run], Any]:
    """The one value that several keys have."""

    def value(r: Run) -> Any:
        values = {r[key] for key in keys}
        return values.pop() if len(values) == 1 else values

    return value


FROM_STATE_SPACES: dict[str, Counterpart] = {
    "dropout": alike("model.dropout", "model.attention_dropout"),
    "p_dropout": alike("model.dropout", "model.attention_dropout"),
    "n_layers": "model.depth",
    "d_model": "model.dim",
    "prenorm": lambda r: r["model.block.place"] == "pre",
    "norm": "model.block.norm",
    "batchnorm": lambda r: r["model.block.norm"] == "batch",
    "decoder.mode": lambda r: {"mean": "pool"}.get(r["model.pooling"]),
    "pixels": pixels,
    "dataset.l_max": "task.max_length",
    "dataset.level": lambda r: {"characters": "char"}.get(r["task.symbols"]),
    "dataset.grayscale": lambda r: r["task._target_"].endswith("Image"),  # grey alone
    "loader.batch_size": "trainer.batch_size",
    "bsz": "trainer.batch_size",
    "scheduler": lambda r: {"cosine_to_zero": "cosine with linear warm-up"}.get(r["optimizer.schedule"]),
    "cosine_anneal": lambda r: r["optimizer.schedule"] == "cosine_to_zero",
    "scheduler.num_training_steps": "trainer.steps",
    "scheduler.num_warmup_steps": "optimizer.warmup_steps",
    "trainer.max_epochs": epochs,
    "epochs": epochs,
    "warmup_end": warmup_epochs,
    "optimizer.lr": "optimizer.learning_rate",
    "optimizer.weight_decay": "optimizer.weight_decay",
    "weight_decay": "optimizer.weight_decay",
    "layer.d_state": "attn.num_states",
    "layer.bidirectional": "attn.bidirectional",
    "layer.n_ssm": lambda r: 1 if r["attn.tied"] else None,
    "layer.dt_min": "attn.dt_min",
    "layer.dt_max": "attn.dt_max",
    "layer.lr": alike("attn.ssm_learning_rate", "attn.dt_learning_rate"),
    "layer.lr.A": "attn.ssm_learning_rate",
    "layer.lr.B": "attn.ssm_learning_rate",
    "layer.lr.dt": "attn.dt_learning_rate",
    "ssm_size_base": "attn.num_states",
    "blocks": "attn.num_blocks",
    "bidirectional": "attn.bidirectional",
    "C_init": "attn.output_initialization",
    "clip_eigs": "attn.clip_eigenvalues",
    "dt_min": "attn.dt_min",
    "activation_fn": lambda r: {"half": "half_glu1", "raw": "half_glu2"}.get(r["attn.gating"]),
    "ssm_lr_base": "attn.ssm_learning_rate",
    "lr_factor": lambda r: r["optimizer.learning_rate"] / r["attn.ssm_learning_rate"],
    "dt_global": lambda r: r["attn.dt_learning_rate"] is None,
    "opt_config": lambda r: {
        (False, True): "BfastandCdecay",
        (True, True): "BandCdecay",
        (True, False): "standard",
    }.get((r["attn.input_learning_rate"] == r["attn.ssm_learning_rate"], r["attn.input_decay"])),
}
FROM_MEGA: dict[str, Counterpart] = {
    "encoder-layers": "model.depth",
    "encoder_embed_dim": "model.dim",
    "encoder_hidden_dim": lambda r: (
        r["model.mlp_dim"] if r["model.mlp_dim"] == r["attn.expansion"] * r["model.dim"] else None
    ),
    "classifier_out_dim": "model.mlp_dim",
    "embedding_std": lambda r: "linear" if r["model.real_valued"] else r["model.embedding_std"],
    "n-dim": "attn.ema_dim",
    "z_dim": "attn.shared_dim",
    "truncation_length": "attn.truncation",
    "attention-activation-fn": "attn.function",
    # In one process a norm over the batch needs no synchronisation.
    "norm-type": lambda r: ("sync" if r["task_name"] == "pathx" else "") + r["model.block.norm"] + "norm",
    "encoder-normalize-before": lambda r: r["model.block.place"] == "pre",
    "sen-rep-type": lambda r: {("mean", "none"): "mp"}.get((r["model.pooling"], r["model.padding_in_mean"])),
    "lr": "optimizer.learning_rate",
    "adam-betas": lambda r: "({}; {})".format(*r["optimizer.adam_betas"]),
    "adam-eps": "optimizer.adam_eps",
    "clip-norm": "optimizer.clip_norm",
    "dropout": lambda r: r["model.dropout"] if r["model.dropout"] == r["model.attention_dropout"] else None,
    "attention-dropout": lambda r: Run(**{**r.names, "attn": "softmax_materialised"})["model.attention_dropout"],
    "weight-decay": "optimizer.weight_decay",
    "batch-size x update-freq x GPUs": "trainer.batch_size",
    "max-update": "trainer.steps",
    "lr-scheduler": lambda r: "linear_decay" if r["optimizer.schedule"] == "one_cycle" else None,
    "warmup-updates": "optimizer.warmup_steps",
    "pixel-normalization": lambda r: "{:g} {:g}".format(*(x / 255 for x in r["model.real_valued"].values())),
}
FROM_TNN: dict[str, Counterpart] = {
    "batch": "trainer.batch_size",
    "d_model": "model.dim",
    "n_layers": "model.depth",
    "expand_ratio_gtu": "attn.expand",
    "expand_ratio_glu": lambda r: r["model.mlp_dim"] / r["model.dim"],
    "gtu_gamma": "attn.gamma",
    "gtu_dpb_dim": "attn.rpe_dim",
    "tno_max_l": "attn.max_offset",
    "norm": lambda r: "synbatch" if r["model.block.norm"] == "batch" else None,
    "prenorm": lambda r: r["model.block.place"] == "pre",
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "dropout": lambda r: r["model.dropout"] if r["model.dropout"] == r["model.attention_dropout"] else None,
    "warmup_steps": "optimizer.warmup_steps",
    "scheduler": lambda r: "cosine_warmup" if r["optimizer.schedule"] == "cosine_to_zero" else None,
    "optimizer": lambda r: (
        "adamw betas (0.9; 0.999) eps 1e-8"
        if (r["optimizer.adam_betas"], r["optimizer.adam_eps"]) == ([0.9, 0.999], 1e-8)
        else None
    ),
    "gradient_clip_val": lambda r: r["optimizer.clip_norm"] or 0,
    "train_batches": "trainer.eval_every",
    "max_epochs": lambda r: r["trainer.steps"] / r["trainer.eval_every"],
    "encoder": lambda r: "linear" if r["model.real_valued"] else "embedding",
    "mean": "model.real_valued.mean",
    "std": "model.real_valued.std",
    "encoder._name_": lambda r: "position" if r["model.positions"] == "sinusoidal" else None,
    "layer": lambda r: "tno; glu" if r["model.block.mlp"] == "glu" else None,
    "decoder.mode": lambda r: "pool" if r["model.pooling"] == "mean" else None,
    "decoder.nli": lambda r: (r["model.pair_features"], r["model.head_depth"]) == ("nli", 2),
    "decoder.layers": "model.head_depth",
    "l_max": "task.max_length",
    "val_split": lambda r: 0 if r["task.validation"] == "test" else None,
}
MAPPINGS = {
    LRA: FROM_LRA, NYSTROMFORMER: FROM_MLPEN, YOSO: FROM_MLPEN, SKEINFORMER: FROM_MLPEN, PAPER: FROM_PAPER,
    S4: FROM_STATE_SPACES, S5: FROM_STATE_SPACES, MEGA: FROM_MEGA, TNN: FROM_TNN,
}  # fmt: skip


def parsed(text: str, parameter: str) -> Any:
    constants = {"None": None, "True": True, "False": False}
    if text in constants:
        return constants[text]
    try:
        number = float(text)
    except ValueError:
        return text
    return 2 ** math.ceil(math.log2(number)) if parameter == "max_seq_len" else number  # rounded up at run time


def published() -> dict[tuple[str, str, str], dict[str, Any]]:
    """By source, task and scope: values by parameter. A scope of LRA's has the base's, but for what it overrides."""
    with (ROOT / "tests" / "data" / "hyperparameters.csv").open() as file:
        rows = list(csv.DictReader(file))
    values: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        parameter = row["parameter"].removeprefix("model.")
        for task in TASKS[:5] if row["task"] == "all" else [row["task"]]:
            own = values.setdefault((row["source"], task, row["scope"]), {})
            if parameter != "(none)":
                own[parameter] = parsed(row["value"], parameter)
    return {
        (source, task, scope): {**values[source, task, "base"], **own} if source == LRA else own
        for (source, task, scope), own in values.items()
    }


PUBLISHED = published()


@pytest.mark.parametrize(("source", "task", "scope"), PUBLISHED, ids=lambda name: name.split("/")[-1])
def test_a_protocol_is_what_its_source_released(source, task, scope):
    for attn in BACKBONES[scope]:
        made = run(task=task, attn=attn, protocol=PROTOCOLS[source])
        for parameter, expected in PUBLISHED[source, task, scope].items():
            counterpart = MAPPINGS[source][parameter]
            value = made[counterpart] if isinstance(counterpart, str) else counterpart(made)
            if isinstance(expected, float):
                assert value == pytest.approx(expected, rel=2e-3), parameter  # derived rates have few digits
            else:
                assert value == expected, parameter


def test_every_task_of_every_source_is_compared():
    for source in (LRA, NYSTROMFORMER, YOSO, SKEINFORMER, S4, S5, MEGA, TNN):
        assert {task for other, task, _ in PUBLISHED if other == source} >= set(TASKS[:5])
    own = [path for path in choices("protocol_attn") if path.startswith("lra_")]
    named = {attn for source, _, scope in PUBLISHED if source == LRA for attn in BACKBONES[scope]}
    assert {f"lra_{attn}" for attn in named - {"vmean"}} == set(own)


@pytest.mark.parametrize(
    ("protocol", "brackets", "validation", "text_length", "tested", "version"),
    [
        ("skeinformer", False, "test", 4000, "last", 2),
        ("nystromformer", False, "test", 1000, "best", 1),
        ("lra", True, "test", 1000, "last", 1),
        ("controlled", True, "split", 4000, "best", 1),
        ("s4", True, "test", 4096, "best", 1),
        ("s5", True, "test", 4096, "best", 1),
        ("mega", True, "test", 4000, "best", 1),
        ("tnn", True, "test", 4096, "last", 1),
    ],
)
def test_a_protocol_has_the_data_of_its_code(protocol, brackets, validation, text_length, tested, version):
    listops, text = (run(task=task, protocol=protocol) for task in ("listops", "text"))
    assert listops["task.brackets"] is brackets
    assert (text["task.validation"], text["task.max_length"]) == (validation, text_length)
    assert listops["protocol"] == {"name": protocol, "version": version, "tested": tested}
    assert run(task="retrieval", protocol=protocol)["task.text"] == "raw"


@pytest.mark.parametrize("scale", ["mini", "smoke"])
@pytest.mark.parametrize("protocol", choices("protocol"))
@pytest.mark.parametrize("task", choices("task"))
def test_the_small_scales_have_no_quirk_of_the_data(task, protocol, scale):
    made = run(task=task, protocol=protocol, scale=scale)
    assert made["data"] == {"padding": "batch", "padded_length": None, "bucket_batches": 32, "mask_zero": False}
    assert made["model.padding_in_mean"] == "none"
    assert made["model.num_positions"] is None
    assert made["protocol.tested"] == "best"
    assert made["task"].get("brackets", True) is True
    assert made["task"].get("validation", "split") == "split"
    assert made["task"].get("symbols", "bytes") == "bytes"


# What published code does in one mechanism, by design or by mistake.
PUBLISHED_OPTIONS = {
    ("nystromformer", "linformer"): {"share_layers": True},
    ("nystromformer", "performer"): {"scale_twice": True},
    ("nystromformer", "reformer"): {"projection_bias": False},
    ("skeinformer", "performer"): {"scale_twice": True, "redraw": False},
    ("skeinformer", "reformer"): {"same_bucket": False, "count_once": False, "projection_bias": False},
    ("lra", "performer"): {"redraw": True, "redraw_at_evaluation": True},
    ("lra", "local_block"): {"seen_fill": True},
    ("lra", "bigbird"): {"seen_fill": True},
    ("lra", "longformer"): {"self_in_window": True},
}


@pytest.mark.parametrize(("protocol", "attn"), PUBLISHED_OPTIONS)
def test_what_published_code_does_in_a_mechanism_is_on_at_the_full_scale_alone(protocol, attn):
    options = PUBLISHED_OPTIONS[protocol, attn]
    for task in TASKS:
        full, *small = (
            run(task=task, attn=attn, protocol=protocol, scale=scale) for scale in ("full", "mini", "smoke")
        )
        assert {name: full["attn"][name] for name in options} == options
        for made in small:
            own = {name: made["attn"][name] for name in options}
            neutral = {name: NEUTRAL[f"attn.{name}"] for name in options}
            # Records of scale=mini have had it so since before there was the option to redraw at evaluation.
            assert own == ({**neutral, "redraw": False} if (protocol, attn) == ("lra", "performer") else neutral)


def test_the_default_at_mini_is_what_it_was_before_there_were_options():
    made = run(task="listops", attn="skeinformer", scale="mini")
    assert made["optimizer"] == {
        "schedule": "one_cycle", "learning_rate": 1e-3, "warmup_steps": 400, "weight_decay": 0.0,
        "adam_betas": [0.9, 0.999], "adam_eps": 1e-6, "cycle_momentum": True, "clip_norm": None,
    }  # fmt: skip
    assert made["model"] == {
        "dim": 64, "depth": 2, "num_heads": 2, "head_dim": 32, "mlp_dim": 128, "dropout": 0.1, "attention_dropout": 0.1,
        "embedding_std": 0.02, "positions": "learned", "num_positions": None, "pooling": "mean",
        "padding_in_mean": "none", "pair_features": "nli", "head_depth": 2, "real_valued": None,
        "block": {"norm": "layer", "place": "pre", "mlp": True}, "match_params": None,
        "reducer": {"kind": "none", "retention": 0.8}, "stem": {"kind": "none", "width": 3, "place": "embedding"},
    }  # fmt: skip


@pytest.mark.parametrize("task", choices("task"))
def test_what_depends_on_the_padding_has_always_as_much(task):
    for protocol in choices("protocol"):
        made = run(task=task, protocol=protocol)
        assert made["model.padding_in_mean"] != "rows" or made["data.padding"] == "max"
        Batching(**made["data"])
        for attn in ("local_block", "bigbird"):
            seen_fill = stacked(task=task, attn=attn, protocol=protocol).attn.get("seen_fill")
            assert not seen_fill or made["data.padding"] == "max"
        assert (made["data.padded_length"] or made.task.max_len) <= made.max_len


def test_the_controlled_protocol_gives_every_backbone_the_same():
    for task in choices("task"):
        alike = [{**run(task=task, attn=attn, protocol="controlled").cfg, "attn": None} for attn in ("softmax", "yoso")]
        assert alike[0] == alike[1]
    assert not [name for name in choices("protocol_attn") if name.startswith("controlled_")]


NEW = """# @package _global_
protocol: {name: new, version: 1, tested: best}

tasks:
  listops: &sequence
    {steps: 7, batch_size: 8, learning_rate: 1.0e-2, warmup_steps: 2, eval_every: 3, dim: 24, brackets: true}
  text: {<<: *sequence, max_length: 300, validation: test}
  retrieval: {<<: *sequence, dim: 40}
  image: {<<: *sequence, batch_size: 16}
  pathfinder: &pathfinder {<<: *sequence, steps: 9}
  pathx: *pathfinder

model: {dim: "${row.dim}"}
trainer: {steps: "${row.steps}", batch_size: "${row.batch_size}", eval_every: "${row.eval_every}"}
optimizer: {learning_rate: "${row.learning_rate}", warmup_steps: "${row.warmup_steps}"}
"""


def test_a_protocol_is_one_file_and_no_edit_of_a_task(tmp_path):
    (conf := tmp_path / "conf" / "protocol").mkdir(parents=True)
    (conf / "new.yaml").write_text(NEW)

    def compose_new(task: str, scale: str) -> Any:
        names = [f"task={task}", "protocol=new", "attn=vmean", f"scale={scale}"]
        cfg = composed(f"hydra.searchpath=[file://{conf.parent}]", *names)
        build_and_classify(cfg, tmp_path)
        return OmegaConf.create(resolved(cfg))

    made = {task: compose_new(task, "full") for task in TASKS}
    assert {task: cfg.trainer.steps for task, cfg in made.items()} == {
        "listops": 7, "text": 7, "retrieval": 7, "image": 7, "pathfinder": 9, "pathx": 9,
    }  # fmt: skip
    assert [made[task].model.dim for task in ("listops", "retrieval")] == [24, 40]
    assert made["listops"].task.brackets is True
    assert (made["text"].task.max_length, made["text"].task.validation) == (300, "test")
    for task in TASKS:
        smoke, known = compose_new(task, "smoke"), run(task=task, scale="smoke")
        assert smoke.trainer == known["trainer"]
        assert smoke.task == known["task"]
        assert smoke.model.dim == made[task].model.dim


# Every file of protocol_attn with the tasks in turn; the rest, and the full size, are slow.
IN_TURN = [
    (task, name.partition("_")[2], name.partition("_")[0])
    for place, name in enumerate(choices("protocol_attn"))
    for task in (TASKS[place % 5], TASKS[(place + 3) % 5])
]


@pytest.mark.parametrize(("task", "attn", "protocol"), IN_TURN)
def test_a_backbone_changed_by_a_protocol_builds(task, attn, protocol, tmp_path):
    build_and_classify(stacked(task=task, attn=attn, protocol=protocol, scale="smoke"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["smoke", "full"])
@pytest.mark.parametrize("protocol", choices("protocol"))
@pytest.mark.parametrize("attn", choices("attn"))
@pytest.mark.parametrize("task", TASKS)
def test_every_combination_builds(task, attn, protocol, scale, tmp_path):
    if (task, attn, scale) == ("pathx", "synthesizer_random", "full"):
        pytest.skip("4 GB of learned weights")
    build_and_classify(stacked(task=task, attn=attn, protocol=protocol, scale=scale), tmp_path)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("protocol", "attn"),
    [("s4", "s4d"), ("s4", "s4d_dfout"), ("s4", "s4"), ("s4", "lru"), ("s4", "softmax"), ("s5", "s5")],
)
def test_a_state_space_protocol_builds_its_full_size_around_any_mechanism(task, protocol, attn):
    made = run(task=task, attn=attn, protocol=protocol)
    make_trainer(made.cfg)
    with torch.device("meta"):  # without memory
        model = make_model(made.cfg, made.task)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert (model.encoder.real_valued is None) == (task in TASKS[:3])


def test_a_padded_length_without_effect_is_refused():
    made = copy.deepcopy(run(task="listops", protocol="controlled").cfg)
    make_trainer(made)
    made["data"]["padded_length"] = 4096
    with pytest.raises(InputError, match="data.padded_length=4096 pads nothing with data.padding=batch"):
        make_trainer(made)
    make_trainer({**made, "data": {**made["data"], "padding": "max"}})
    make_trainer({**made, "model": {**made["model"], "padding_in_mean": "zeros"}})
