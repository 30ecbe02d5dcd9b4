"""The configurations in `configs/`, from Python, and what a command line says about them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lra.errors import InputError
from lra.files import ROOT
from lra.suggestions import leaves_of, meant_choice
from lra.values import unknown_key

CONFIGS = ROOT / "configs"
# The groups of which a run has one choice each.
CHOICES = ("task", "attn", "protocol", "scale", "pretrain")
# The tables in the files of tasks and protocols, and the rows of them that the run reads.
TABLES = ("tasks", "row", "sizes", "size", "masking")

# Hydra makes the folder of a sweep itself, from the configuration.
OmegaConf.register_new_resolver("expanduser", lambda path: str(Path(str(path)).expanduser()), replace=True)


def compose_config(*overrides: str) -> DictConfig:
    """Compose the shipped configuration.

    Raises:
        InputError: a word cannot be read, or names a choice or a key that does not exist.
    """
    check_choices(overrides)
    try:
        return _compose(*overrides)
    except Exception as error:
        if not (mistake := told(error)):
            raise
        raise InputError(explain_unknown_keys(overrides) or mistake) from error


def _compose(*overrides: str) -> DictConfig:
    if GlobalHydra.instance().is_initialized():  # within a job of run.py, whose configurations are the same
        return compose("config", overrides=list(overrides))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def told(error: BaseException) -> str:
    """Say what a mistake of the user's is, without a traceback; "" for an error that is none.

    Hydra and OmegaConf raise their own errors for most mistakes in a configuration, and Python's for some.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and ".multirun" in str(error.filename):  # the folder of a sweep, which Hydra makes
        return f"Cannot make {error.filename} ({error.strerror}). Choose another folder with results_dir=."
    is_of_hydra = _raised_in(error) in ("hydra", "omegaconf")
    if not is_of_hydra and not isinstance(error, HydraException | OmegaConfBaseException):
        return ""
    if choice := _unknown_choice(error):
        return choice
    reason = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(reason, OmegaConfBaseException):
        key = f"{reason.full_key} cannot be read: " if reason.full_key else ""
        return key + str(reason).partition("\n")[0]
    return str(error).strip()


def _unknown_choice(error: BaseException) -> str:
    """Say that a choice does not exist, which ones do, and which one it may have been; "" for another error."""
    missing = error if isinstance(error, MissingConfigException) else error.__cause__
    if not isinstance(missing, MissingConfigException) or not missing.options or not missing.missing_cfg_file:
        return ""
    group, _, choice = str(missing.missing_cfg_file).rpartition("/")
    options = sorted(missing.options)
    meant = meant_choice(group, choice, options)
    hint = f" Did you mean {group}={meant}?" if meant else ""
    return f"{group}={choice} is no choice.{hint} There are: {', '.join(options)}."


def _raised_in(error: BaseException) -> str:
    """Name the top-level package of the innermost function that an error came from."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] if frames else ""


def to_plain(node: DictConfig) -> dict[str, Any]:
    """Turn a node of the configuration into plain values.

    Raises:
        InputError: a value is missing, or refers to another that does not exist.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise InputError(told(error)) from error


def check_choices(words: Sequence[str]) -> None:
    """Refuse what a command line makes of the groups of which a run has one choice each.

    Raises:
        InputError: such a group is removed, or is given a list or nothing; or there are several experiments.
    """
    for override in parse(words):
        group, value = override.key_or_group, override.value()
        if group == "experiment" and (override.is_sweep_override() or isinstance(value, list)):
            raise InputError(
                f"experiment takes one choice, since each is a sweep of its own. Got {override.input_line}. Run one "
                f"after the other. There are: {', '.join(options_of(group))}."
            )
        if group not in CHOICES or override.package is not None:
            continue
        chosen = value.list if isinstance(value, ChoiceSweep) else [value]
        is_choice = override.is_sweep_override() and not isinstance(value, ChoiceSweep)  # a glob, of what there is
        if override.type == OverrideType.DEL or not (is_choice or all(map(_is_name, chosen))):
            raise InputError(
                f"{group} takes one choice, and every run has one. Got {override.input_line}. For a run of each of "
                f"several, sweep: -m {group}=first,second. There are: {', '.join(options_of(group))}."
            )


def _is_name(choice: Any) -> bool:
    return isinstance(choice, str | QuotedString) and choice != ""


def options_of(group: str) -> list[str]:
    """Name the choices of a group: the files in its folder."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def backbones() -> list[str]:
    """Name every backbone there is."""
    return options_of("attn")


def is_sweep(words: Sequence[str]) -> bool:
    """Say whether run.py does several jobs with these words."""
    has_experiment = any(override.key_or_group == "experiment" for override in parse(words))
    return has_experiment or bool({"-m", "--multirun"} & {*words})


def results_dirs_of(words: Sequence[str]) -> list[Path]:
    """Return the results folders of run.py with these words: one, but where they are swept over."""
    changes = [override for override in parse(words) if override.key_or_group == "results_dir"]
    value = changes[-1].value() if changes else _compose().results_dir
    folders = value.list if isinstance(value, ChoiceSweep) else [value]
    return [Path(str(folder.text if isinstance(folder, QuotedString) else folder)).expanduser() for folder in folders]


def parse(words: Sequence[str]) -> list[Override]:
    """Read the `key=value` of a command line as Hydra does; flags, and what Hydra cannot read, are left out."""
    parser = OverridesParser.create()
    overrides = []
    for word in words:
        with suppress(HydraException):
            overrides.append(parser.parse_override(word))
    return overrides


def explain_unknown_keys(words: Sequence[str]) -> str:
    """Name the keys there are, where Hydra only says that one is unknown.

    Args:
        words: of a command line.

    Returns:
        A line for each unknown key, with the keys that its node has; "" if all keys are known.
    """
    changes = [override for override in parse(words) if override.type == OverrideType.CHANGE]
    groups = [
        str(change.input_line)
        for change in changes
        if change.key_or_group == "hydra.searchpath" or (is_group(change) and not change.is_sweep_override())
    ]
    try:
        cfg = _compose(*groups)
    except Exception as error:  # an unknown choice, for example, for which Hydra itself names the others
        if not told(error):
            raise
        return ""
    keys = [change.key_or_group for change in changes if not is_group(change)]
    explanations = (_explain_unknown_key(cfg, key) for key in keys if not key.startswith("hydra"))
    return "\n".join(filter(None, explanations))


def is_group(override: Override) -> bool:
    """Say whether an override is of a group, and not of a key."""
    return (CONFIGS / override.key_or_group).is_dir()


def _explain_unknown_key(cfg: DictConfig, key: str) -> str:
    """Name the keys of the innermost node that a key goes through; "" if it is one of them."""
    path, _, name = key.rpartition(".")
    while path and not isinstance(OmegaConf.select(cfg, path), DictConfig):
        path, _, name = path.rpartition(".")
    node = OmegaConf.select(cfg, path) if path else cfg
    names = [str(child) for child in node if not str(child).startswith("_")]
    if name in names:
        return ""
    values = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    return unknown_key(key, path, names, list(leaves_of(values, without=TABLES)))
