"""Train the baseline of a task: python scripts/baseline.py task=image scale=mini [key=value ...].

A small convolutional network on pixel tasks, a bag of hashed n-grams on the others. They are no attention mechanisms,
so they stand beneath the tables: what they reach needs no attention, and what they fail at may not be learnable from
the data at all. Keys are those of `configs/`, as on run.py's command line.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from lra.arguments import help_if_asked
from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.machine.devices import claimed_device
from lra.records.identity import identify
from lra.records.record import BASELINE
from lra.runs.factory import make_trainer
from lra.runs.run import run
from lra.runs.summary import summarize
from lra.tasks import Task
from models.baselines.cnn import SmallCNN
from models.baselines.ngrams import NgramClassifier

# Both learn in a few hundred steps at this rate, whatever rate the protocol has for its Transformer.
SETTINGS = ["optimizer.learning_rate=3e-3", "optimizer.weight_decay=1e-2", "optimizer.cycle_momentum=false"]


def main(arguments: list[str]) -> None:
    """Train one baseline and leave its record."""
    if wrong := [word for word in arguments if "=" not in word]:
        raise InputError(f"Unknown argument {wrong[0]!r}: expected key=value, for example task=image.")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("config", overrides=[*SETTINGS, *arguments])
    task_name = next((word.split("=", 1)[1] for word in arguments if word.startswith("task=")), "listops")
    task: Task = instantiate(cfg.task)(cache_dir=cfg.cache_dir)
    resolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    kind, version = ("ngrams", NgramClassifier.version) if task.image_side is None else ("cnn", SmallCNN.version)

    def build() -> nn.Module:
        if task.image_side is None:
            return NgramClassifier(num_inputs=task.num_inputs, num_classes=task.num_classes)
        return SmallCNN(side=task.image_side, num_classes=task.num_classes)

    with claimed_device(cfg.device) as device:
        record, folder = run(
            identify(resolved, task_name, task, {"name": f"{BASELINE}{kind}", "version": version}),
            task=task,
            build_model=build,
            trainer=make_trainer(resolved),
            device=device,
            results_dir=Path(cfg.results_dir),
            checkpoint_seconds=cfg.trainer.checkpoint_seconds,
            profile=cfg.trainer.profile,
            command=" ".join(["python scripts/baseline.py", *arguments]),
            wandb=resolved["wandb"],
        )
    print(summarize(record, folder))


if __name__ == "__main__":
    help_if_asked(__doc__)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        main(sys.argv[1:])
    except (InputError, HydraException, OmegaConfBaseException) as error:
        sys.exit(str(error))
