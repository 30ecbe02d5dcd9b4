"""Train one backbone on one Long Range Arena task: python run.py task=listops attn=skeinformer scale=mini.

Every key of `configs/` can be set on the command line, `-m` sweeps over comma-separated values, and `--help` lists the
choices. Running the same command again finds the finished record and trains nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lra.errors import InputError, MissingDataError
from lra.machine.devices import claimed_device
from lra.machine.distributed import leads
from lra.machine.environment import now
from lra.machine.stopping import StoppedError
from lra.records.identity import identify
from lra.records.missing_data import forget_missing, note_missing
from lra.runs.factory import make_model, make_trainer, mechanism_of
from lra.runs.run import run
from lra.runs.summary import summarize
from lra.sweeps import describe_sweep

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent.resolve() / "configs"
# Where things are on this machine is no part of what repeats a run.
PLACES = ("results_dir=", "cache_dir=", "task.data_dir=")
# Tasks of this sweep that were found to have no data: each further job would wait for the same sources again.
without_data: set[tuple[str, ...]] = set()


def train(cfg: DictConfig, task_name: str, attn_name: str, words: Sequence[str]) -> float | None:
    """Build what the configuration names, in the end by some words of a command, and run it.

    Returns:
        The validation accuracy, for Hydra's sweepers.
    """
    task = instantiate(cfg.task)(cache_dir=cfg.cache_dir)
    resolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    version = mechanism_of(resolved["attn"]).version

    with claimed_device(cfg.device) as device:
        record, folder = run(
            identify(resolved, task_name, task, {**resolved["attn"], "name": attn_name, "version": version}),
            task=task,
            build_model=lambda: make_model(resolved, task),
            trainer=make_trainer(resolved),
            device=device,
            results_dir=Path(cfg.results_dir),
            checkpoint_seconds=cfg.trainer.checkpoint_seconds,
            profile=cfg.trainer.profile,
            command=" ".join(["python run.py", *(word for word in words if not word.startswith(PLACES))]),
            wandb=resolved["wandb"],
        )
    if leads():
        print(summarize(record, folder))
    return record.val_accuracy


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Run one job; a mistake of the user's ends in one line instead of a traceback."""
    hydra_cfg = HydraConfig.get()
    choices = hydra_cfg.runtime.choices
    what = (choices["task"], cfg.protocol.name, cfg.scale)
    if what in without_data:
        return None
    try:
        accuracy = train(cfg, choices["task"], choices["attn"], hydra_cfg.overrides.task)
    except MissingDataError as error:
        if hydra_cfg.mode != RunMode.MULTIRUN:
            raise CompactHydraException(str(error)) from error
        without_data.add(what)
        note_missing(Path(cfg.results_dir), *what, reason=str(error))
        log.warning("No data for %s, the sweep goes on without: %s", choices["task"], error)
        return None
    except InputError as error:
        raise CompactHydraException(str(error)) from error
    forget_missing(Path(cfg.results_dir), *what)
    return accuracy


def explain_unknown_keys(arguments: list[str]) -> str:
    """Name the keys there are, where Hydra only says that one is unknown; "" if all are known."""
    overrides = [word.partition("=")[::2] for word in arguments if "=" in word and word[0].isalpha()]
    groups = [f"{key}={value}" for key, value in overrides if (CONFIGS / key).is_dir() and "," not in value]
    GlobalHydra.instance().clear()
    lines = []
    with suppress(HydraException), initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("config", overrides=groups)
        for key, _ in overrides:
            parent, _, name = key.rpartition(".")
            while parent and not isinstance(OmegaConf.select(cfg, parent), DictConfig):
                parent, _, name = parent.rpartition(".")
            node = OmegaConf.select(cfg, parent) if parent else cfg
            if not (CONFIGS / key).is_dir() and not key.startswith("hydra") and isinstance(node, DictConfig):
                known = [str(other) for other in node if not str(other).startswith("_")]
                if name not in known:
                    close = get_close_matches(name, known, n=1)
                    hint = f" Did you mean {close[0]}?" if close else ""
                    listed = ", ".join(known) or "none"
                    lines.append(f"{key} is no key.{hint} Keys of {parent or 'the top level'}: {listed}.")
    return "\n".join(lines)


def is_sweep(arguments: list[str]) -> bool:
    """Say whether Hydra will run several jobs."""
    return bool({"-m", "--multirun"} & {*arguments}) or any(word.startswith("experiment=") for word in arguments)


if __name__ == "__main__":
    began = now()
    try:
        main()
    except StoppedError as stop:
        print(f"{stop}. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code and (explanation := explain_unknown_keys(sys.argv[1:])):
            print(explanation, file=sys.stderr)
        raise
    finally:
        if is_sweep(sys.argv[1:]):
            folder = [word.removeprefix("results_dir=") for word in sys.argv if word.startswith("results_dir=")]
            print(describe_sweep(Path(*(folder or ["results"])), began))
