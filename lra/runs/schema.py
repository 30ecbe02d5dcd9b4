"""Every key of the configuration: its type, its range or its choices. A run is held to it before anything is made.

The keys of a task and of a mechanism are the arguments of their classes, whose annotations describe them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, Strict

from lra.configuration import TABLES, compose_config, is_group, parse, to_plain, told
from lra.errors import InputError
from lra.values import (
    Count,
    Node,
    NotNegative,
    Positive,
    Share,
    Text,
    Whole,
    check_node,
    described_leaves,
    model_in,
    unknown_key,
)

ROWS = ("row.", "size.")
FROM_ROWS = ("${row.", "${size.")
Folder = Text | None
Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
POSITIONS: tuple[str, ...] = get_args(Positions)


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


class Stem(Node):
    """What makes local features in front of the mixers."""

    kind: Literal["none", "conv"]
    width: Count
    place: Literal["embedding", "blocks", "both"]


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
    positions: Positions
    num_positions: Count | None
    pooling: Literal["mean", "max", "cls"]
    padding_in_mean: Literal["none", "zeros", "rows"]
    pair_features: Literal["nli", "concat", "cosine"]
    head_depth: Count
    block: Block
    reducer: Reducer
    stem: Stem
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
    force: bool
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
    if resolved["task"].get("length") is not None:
        from lra.runs.factory import task_class  # imports torch, which takes seconds

        resolved = to_plain(_at_length(cfg, task_class(resolved["task"]).at_length(resolved["task"]["length"])))
    folders = {key: str(Path(resolved[key]).expanduser()) for key in ("results_dir", "cache_dir") if resolved[key]}
    return {**resolved, **folders}


def _at_length(cfg: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    """Return a configuration with the settings of a length, and for it what a protocol's padding is for its own.

    Only what a row of the scale or of the protocol decides is changed: what is there as a value was typed.
    """
    changed, written = deepcopy(cfg), cast(dict[str, Any], OmegaConf.to_container(cfg))
    values = {f"task.{name}": value for name, value in settings.items()}
    for path, value in {**values, "data.padded_length": None, "model.num_positions": None}.items():
        node, _, name = path.rpartition(".")
        if str(written[node][name]).startswith(FROM_ROWS):
            OmegaConf.update(changed, path, value)
    return changed


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


def check_added(words: Sequence[str]) -> None:
    """Refuse the keys that a command line adds, with + or ++, and nothing reads; of a sweep, before its first job.

    What is added to a task or to a mechanism may be an argument of its class, which is held to it later.

    Raises:
        InputError: a key is unknown; a line for each.
    """
    added = [override for override in parse(words) if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD)]
    keys = [override.key_or_group for override in added if override.package is None and not is_group(override)]
    if sentences := list(filter(None, map(_unknown, keys))):
        raise InputError("\n".join(sentences))


def _unknown(key: str) -> str:
    """Say that a key is not described; "" if it is, or is one of Hydra's."""
    node: Any = None if key.partition(".")[0] == "hydra" else Configuration
    path: list[str] = []
    for step in key.split("."):
        fields = getattr(node, "model_fields", None)
        if fields is None:
            return ""
        if step not in fields:
            return unknown_key(key, ".".join(path), list(fields), list(described_leaves(Configuration)))
        node = model_in(fields[step].annotation)
        path.append(step)
    return ""


def check_tables(words: Sequence[str], in_sweep: bool = False) -> None:
    """Refuse what a command line sets in a table where the run does not read it.

    Args:
        words: of the command line.
        in_sweep: whether other jobs of the same words may read what this one does not; a new key is read by none.

    Raises:
        InputError: a word changes nothing, or not what the tables' rows are.
    """
    overrides = [override for override in parse(words) if override.key_or_group.partition(".")[0] in TABLES]
    for override in overrides:
        if override.key_or_group.startswith(ROWS):
            raise InputError(
                f"{override.input_line} is no setting: this row is read from the tables in the files. Set the key "
                "itself, such as trainer.steps= or task.num_train=."
            )
        if in_sweep and override.type == OverrideType.CHANGE:
            continue
        others = [word for word in words if word != override.input_line]
        if _without_tables(words) == _without_tables(others):
            raise InputError(
                f"{override.input_line} changes nothing in this run, which does not read it. Set the key itself, such "
                "as trainer.steps= or task.num_train=."
            )


def _without_tables(words: Sequence[str]) -> dict[str, Any]:
    return {name: node for name, node in resolve(compose_config(*words)).items() if name not in TABLES}


def long_warmup(resolved: Mapping[str, Any]) -> str:
    """Say where fewer steps than the tables' were set and the warm-up that is theirs takes half of them; "" elsewhere.

    The warm-up does not follow by itself: results with such settings are keyed by both numbers.
    """
    table = {**resolved["row"], **resolved["size"]}
    steps, warmup = resolved["trainer"]["steps"], resolved["optimizer"]["warmup_steps"]
    if warmup != table.get("warmup_steps") or steps >= table.get("steps", 0) or 2 * warmup < steps:
        return ""
    share = warmup / table["steps"]
    return (
        f"The warm-up takes optimizer.warmup_steps={warmup} of trainer.steps={steps}; it is that of {table['steps']}. "
        f"The same share would be optimizer.warmup_steps={round(share * steps)}."
    )


def _check_table(cfg: DictConfig, name: str) -> None:
    try:
        table = OmegaConf.select(cfg, name, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(told(error)) from error
    if not isinstance(table, DictConfig):
        raise InputError(f"{name} must be a mapping. Got {table!r}.")
