"""Every key of the configuration: its type, its range or its choices. A run is held to it before anything is made.

The keys of a task and of a mechanism are the arguments of their classes, whose annotations describe them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, Strict

from lra.configuration import to_plain, told
from lra.errors import InputError
from lra.values import Count, Node, NotNegative, Positive, Share, Text, Whole, check_node

TABLES = ("tasks", "row", "sizes", "size", "masking")
Folder = Text | None


class Protocol(Node):
    """Whose training set-up it is."""

    name: Text
    version: Count
    tested: Literal["best", "last"]


class RealValued(Node):
    """How tokens that are numbers are standardised."""

    mean: float
    std: Positive


class Block(Node):
    """What stands around a mixer."""

    norm: Literal["layer", "batch", "scale"]
    place: Literal["pre", "post"]
    mlp: bool | Literal["glu"]


class Reducer(Node):
    """What shortens the sequence from layer to layer."""

    kind: Literal["none", "k_centre_r"]
    retention: Annotated[float, Field(gt=0, le=1)]


class Model(Node):
    """The encoder and the head."""

    dim: Count
    depth: Count
    num_heads: Count
    head_dim: Count
    mlp_dim: Count
    match_params: Count | Text | None
    dropout: Share
    attention_dropout: Share
    embedding_std: NotNegative
    positions: Literal["learned", "sinusoidal", "none"]
    num_positions: Count | None
    pooling: Literal["mean", "cls"]
    padding_in_mean: Literal["none", "zeros", "rows"]
    pair_features: Literal["nli", "concat"]
    head_depth: Count
    block: Block
    reducer: Reducer
    real_valued: RealValued | None


class Trainer(Node):
    """How to train, and how often to save."""

    steps: Count
    batch_size: Count
    micro_batch: Count | Literal["auto"] | None
    compile: bool | Literal["auto"]
    precision: Literal["fp32", "bf16", "fp16"]
    deterministic: bool
    checkpoint_seconds: NotNegative
    profile: bool
    eval_every: Count
    patience: Count | None
    eval_batch_size: Count


class Optimizer(Node):
    """How weights are updated."""

    schedule: Literal["one_cycle", "inverse_sqrt", "cosine", "cosine_to_zero"]
    learning_rate: NotNegative
    warmup_steps: Whole
    weight_decay: NotNegative
    adam_betas: Annotated[tuple[Share, Share], Strict(False)]  # a list, in yaml
    adam_eps: NotNegative
    cycle_momentum: bool
    clip_norm: Positive | None


class Data(Node):
    """How examples become batches."""

    padding: Literal["batch", "max"]
    padded_length: Count | None
    bucket_batches: Count
    mask_zero: bool


class Pretrain(Node):
    """What the encoder learns before the classifier does."""

    kind: Literal["none", "masked", "causal"]
    rate: Annotated[float, Field(gt=0, lt=1)] | None
    number_loss: Literal["l1", "cross_entropy"] | None
    share: Share | None
    steps: Count | None
    batch_size: Count | None
    learning_rate: Positive | None
    eval_every: Count | None


class Wandb(Node):
    """Where the run is mirrored."""

    mode: Literal["online", "offline", "disabled"]
    project: Text
    entity: Text | None


class Configuration(Node):
    """The whole, as configs/config.yaml has it."""

    task_name: Text
    task: dict[str, Any]
    attn: dict[str, Any]
    protocol: Protocol
    scale: Text
    budget: Count
    seed: Whole
    device: Literal["auto", "cpu", "cuda"]
    results_dir: Text
    cache_dir: Folder
    model: Model
    trainer: Trainer
    optimizer: Optimizer
    data: Data
    pretrain: Pretrain
    wandb: Wandb
    # The tables in the files of tasks and protocols, and the rows that are read of them.
    tasks: dict[str, Any]
    sizes: dict[str, Any]
    row: dict[str, Any]
    size: dict[str, Any]
    masking: dict[str, Any]


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Turn a composed configuration into plain values, each of which its key can take.

    Raises:
        InputError: a key is missing or unknown, or has another type or an impossible value; a line for each.
    """
    for name in TABLES:  # first, since other keys are read from them
        _check_table(cfg, name)
    resolved = to_plain(cfg)
    check_node(Configuration, resolved)
    folders = {key: str(Path(resolved[key]).expanduser()) for key in ("results_dir", "cache_dir") if resolved[key]}
    return {**resolved, **folders}


def check_names(resolved: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Hold the names that a configuration gives to itself, and that records have, to the files that were chosen.

    Args:
        resolved: the configuration.
        chosen: the choice of each group.

    Raises:
        InputError: a name is not that of the file.
    """
    named = {"task_name": "task", "protocol.name": "protocol", "scale": "scale"}
    names = [resolved["task_name"], resolved["protocol"]["name"], resolved["scale"]]
    for (key, group), name in zip(named.items(), names, strict=True):
        if name != chosen[group]:
            raise InputError(
                f"{key} must be {chosen[group]}, as in {group}={chosen[group]}. Got {name!r}. Choose another {group}, "
                "or correct its file."
            )


def _check_table(cfg: DictConfig, name: str) -> None:
    try:
        table = OmegaConf.select(cfg, name, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(told(error)) from error
    if not isinstance(table, DictConfig):
        raise InputError(f"{name} must be a mapping. Got {table!r}.")
