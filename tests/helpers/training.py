"""A trainer, a model and what is compared of a curve, for tests that train."""

from __future__ import annotations

import dataclasses

import torch

from lra.runs.factory import make_classifier
from lra.training.batching import Batching
from lra.training.optimizer import Optimization
from lra.training.trainer import Trainer
from models.attention.softmax import SoftmaxAttention
from models.classifier import Classifier
from tests.helpers.toy import ToyTask

CPU = torch.device("cpu")


TRAINER = Trainer(
    steps=40, batch_size=32, micro_batch=None, compile=False, precision="fp32", deterministic=False, eval_every=10,
    patience=None, eval_batch_size=50,
    optimization=Optimization(
        learning_rate=1e-2, warmup_steps=4, weight_decay=0.0, adam_eps=1e-8, cycle_momentum=False, clip_norm=None
    ),
    batching=Batching(padding="batch", bucket_batches=1, mask_zero=False),
)  # fmt: skip


def changed(**changes) -> Trainer:
    """Return the trainer with other fields, its own or those of its optimisation."""
    of_optimization = {name: changes.pop(name) for name in list(changes) if hasattr(TRAINER.optimization, name)}
    optimization = dataclasses.replace(TRAINER.optimization, **of_optimization)
    return dataclasses.replace(TRAINER, optimization=optimization, **changes)


def model_for(task: ToyTask, attention=SoftmaxAttention, dropout: float = 0.0, **more) -> Classifier:
    torch.manual_seed(0)
    model = {
        "dim": 16, "depth": 1, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": dropout,
        "attention_dropout": dropout, **more,
    }  # fmt: skip
    return make_classifier(
        attention, model, vocab_size=task.vocab_size, max_len=task.max_len, num_classes=task.num_classes,
        num_inputs=task.num_inputs,
    )  # fmt: skip


def numbers(curve: list[dict]) -> list[dict]:
    return [{name: value for name, value in point.items() if not name.endswith("seconds")} for point in curve]
