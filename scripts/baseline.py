"""Train the baseline of a task: python scripts/baseline.py task=image scale=mini [key=value ...].

A small convolutional network on pixel tasks, a bag of hashed n-grams on the others. They are not attention mechanisms,
so tables list them last: what they reach needs no attention, and what they fail at may not be learnable from the data
at all. Keys are those of `configs/`, as on run.py's command line.
"""

from __future__ import annotations

import logging
import sys

from torch import nn

from lra.arguments import help_if_asked, repeating
from lra.configuration import compose_config
from lra.errors import InputError
from lra.machine.terminal import secure_output
from lra.records.record import BASELINE
from lra.runs.factory import make_task
from lra.runs.run import run_configured
from lra.runs.schema import resolve
from lra.runs.summary import summarize
from models.baselines.cnn import SmallCNN
from models.baselines.ngrams import NgramClassifier

# Both learn in a few hundred steps at this rate; the protocol's is made for its Transformer.
SETTINGS = ["optimizer.learning_rate=3e-3", "optimizer.weight_decay=1e-2", "optimizer.cycle_momentum=false"]


def main(arguments: list[str]) -> None:
    """Train one baseline and leave its record."""
    if wrong := [word for word in arguments if "=" not in word]:
        raise InputError(f"Unknown argument {wrong[0]!r}: expected key=value, for example task=image.")
    resolved = resolve(compose_config(*SETTINGS, *arguments))
    if resolved["pretrain"]["kind"] != "none":
        raise InputError(f"A baseline is not pre-trained. Leave out pretrain={resolved['pretrain']['kind']}.")
    task = make_task(resolved)
    name, kind = ("ngrams", NgramClassifier) if task.image_side is None else ("cnn", SmallCNN)

    def build() -> nn.Module:
        if task.image_side is None:
            return NgramClassifier(num_inputs=task.num_inputs, num_classes=task.num_classes)
        return SmallCNN(side=task.image_side, num_classes=task.num_classes)

    target = f"{kind.__module__}.{kind.__name__}"  # says whose source it is, and is no part of the key
    baseline = {"name": f"{BASELINE}{name}", "version": kind.version, "_target_": target}
    command = repeating("scripts/baseline.py", arguments)
    record, folder = run_configured(resolved, resolved["task_name"], task, baseline, build, command)
    print(summarize(record, folder))


if __name__ == "__main__":
    secure_output()
    help_if_asked(__doc__)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
