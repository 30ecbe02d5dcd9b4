"""Train one backbone on one Long Range Arena task: python run.py task=listops attn=skeinformer scale=mini.

Every key of `configs/` can be set on the command line, `-m` sweeps over comma-separated values, and `--help` lists the
choices. Running the same command again finds the finished record and trains nothing.
"""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from lra.errors import InputError
from lra.runner import resolve_device, run
from lra.summary import summarize
from lra.trainer import Trainer
from models.attention import Attention
from models.encoder import Classifier


def train(cfg: DictConfig, task_name: str, attn_name: str) -> float | None:
    """Build what the configuration names and run it; return the validation accuracy, for Hydra's sweepers."""
    task = instantiate(cfg.task)(cache_dir=cfg.cache_dir)
    trainer = Trainer(**cfg.trainer)
    resolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    # What determines the numbers. Of the two tables only the chosen row does, and it has been resolved into the rest.
    config = {
        **{name: resolved[name] for name in ("protocol", "scale", "seed", "model", "trainer")},
        "task": {**resolved["task"], "name": task_name, "version": task.version},
        "attn": {
            **resolved["attn"],
            "name": attn_name,
            "version": cast(type[Attention], get_class(cfg.attn._target_)).version,
        },
    }
    del config["task"]["data_dir"]  # a path; the data themselves are in the key by their checksums
    record, folder = run(
        config,
        task=task,
        build_model=partial(
            Classifier,
            instantiate(cfg.attn),
            vocab_size=task.vocab_size,
            max_len=task.max_len,
            num_classes=task.num_classes,
            num_inputs=task.num_inputs,
            **resolved["model"],
        ),
        trainer=trainer,
        device=resolve_device(cfg.device),
        results_dir=Path(cfg.results_dir),
        wandb=resolved["wandb"],
    )
    print(summarize(record, folder))
    return record.val_accuracy


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Run one job; a mistake of the user's ends in one line instead of a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a terminated run leaves its record too
    choices = HydraConfig.get().runtime.choices
    try:
        return train(cfg, choices["task"], choices["attn"])
    except InputError as error:
        raise CompactHydraException(str(error)) from error


if __name__ == "__main__":
    main()
