"""A few short runs against losses that were written down once: a move of code that changes a number is seen.

The numbers are of commit 48d884f. A change of them that is meant raises a `version`, and replaces them here.
"""

from __future__ import annotations

import json

import pytest

from lra.runs.schema import resolve
from run import train
from tests.helpers.configurations import composed

# Of five steps on ListOps at scale=smoke, two layers of width 64, seed 0, one thread: their mean training loss, and the
# validation loss after.
LOSSES = {
    ("skeinformer", "softmax"): (2.2862387180328367, 2.2955999755859375),
    ("skeinformer", "softmax_materialised"): (2.289051866531372, 2.308347473144531),
    ("skeinformer", "skeinformer"): (2.291477632522583, 2.304605255126953),
    ("skeinformer", "performer"): (2.32419753074646, 2.3117742919921875),
    ("skeinformer", "reformer"): (2.3426167964935303, 2.3012873840332033),
    ("skeinformer", "nystromformer"): (2.2862303256988525, 2.297091522216797),
    ("nystromformer", "linformer"): (2.3486151695251465, 2.324823913574219),
    ("lra", "softmax"): (2.355479288101196, 2.3723886108398435),
}
TOLERANCE = 1e-4  # relative: another processor adds up in another order


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("protocol", "attn"), LOSSES)
def test_the_losses_of_a_short_run_are_those_written_down(protocol, attn, cache, tmp_path):
    words = [
        f"attn={attn}", f"protocol={protocol}", "scale=smoke", "model.dim=64", "model.depth=2", "trainer.steps=5",
        "trainer.eval_every=5", "device=cpu", "wandb.mode=disabled",
    ]  # fmt: skip
    train(resolve(composed(*words, f"results_dir={tmp_path}", f"cache_dir={cache}")), "listops", attn, words)
    [metrics] = tmp_path.rglob("metrics.jsonl")
    [point] = map(json.loads, metrics.read_text().splitlines())
    assert (point["train_loss"], point["val_loss"]) == pytest.approx(LOSSES[protocol, attn], rel=TOLERANCE)
