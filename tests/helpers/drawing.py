"""A run whose processes each leave what they draw in their first step: python -m tests.helpers.drawing FOLDER."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from lra.runs.run import Job, run
from tests.helpers.toy import ToyTask
from tests.helpers.training import TRAINER


class Drawing(nn.Module):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.path = path

    def forward(self, tokens, mask):
        if self.training and not self.path.exists():
            self.path.write_text(json.dumps(torch.rand(4).tolist()))
        return self.bias.expand(len(tokens), 3)


def main(folder: Path) -> None:
    names = {name: {"name": name, "version": 1} for name in ("task", "attn", "protocol")}
    run(
        Job(
            config={**names, "scale": "smoke", "seed": 0},
            task=ToyTask(),
            build_model=lambda: Drawing(folder / f"{os.environ['RANK']}.json"),
            trainer=dataclasses.replace(TRAINER, steps=1, eval_every=1, optimization=OPTIMIZATION),
            device=torch.device("cpu"),
            results_dir=folder,
            checkpoint_seconds=600,
            profile=False,
            command="",
            wandb={"mode": "disabled", "project": "", "entity": None},
        )
    )


OPTIMIZATION = dataclasses.replace(TRAINER.optimization, warmup_steps=0)

if __name__ == "__main__":
    main(Path(sys.argv[1]))
