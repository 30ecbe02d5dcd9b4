"""Queries, keys and values to approximate attention on: Gaussian ones, peaked ones, and those of a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor

from lra.benchmarks.mechanisms import HEAD_DIM, HEADS
from lra.configuration import compose_config, to_plain
from lra.errors import InputError, MissingDataError
from lra.records.folder import RunFolder
from lra.runs.factory import make_classifier
from lra.tasks import Task
from lra.training import storage
from lra.training.batching import Batching
from models.attention import Attention
from models.attention.softmax import SoftmaxAttention
from models.ops.exact_weights import weights_of

QKV = tuple[Tensor, Tensor, Tensor]
Source = Callable[[int, int], QKV]  # from a length and the number of a trial, to (B, H, L, D) each

PEAK = 4.0  # standard deviation of the logits of peaked inputs
LONGEST = 4096  # bytes of a review that the captured model reads
BATCH, WARMUP, LEARNING_RATE = 8, 50, 1e-3  # of its training


def gaussian(n: int, trial: int) -> QKV:
    """Draw standard normal queries, keys and values: logits of standard deviation 1."""
    generator = torch.Generator().manual_seed(trial)
    q, k, v = (torch.randn(1, HEADS, n, HEAD_DIM, generator=generator) for _ in range(3))
    return q, k, v


def peaked(n: int, trial: int) -> QKV:
    """Draw the same with larger queries, so that logits have standard deviation PEAK."""
    q, k, v = gaussian(n, trial)
    return PEAK * q, k, v


def entropy(q: Tensor, k: Tensor) -> float:
    """Return the mean entropy of exact attention's rows, in nats."""
    mask = torch.ones(q.shape[0], q.shape[2], dtype=torch.bool)
    rows = [torch.special.entr(weights).sum(-1) for _, weights in weights_of(q, k, mask)]
    return float(torch.cat(rows, -1).mean())


def text_task() -> Task | None:
    """Prepare Text, or return None where its raw data are not at hand."""
    cfg = compose_config("task=text", "protocol=skeinformer", "task.validation=split", f"task.max_length={LONGEST}")
    task: Task = instantiate(cfg.task)(cache_dir=cfg.cache_dir)
    try:
        task.prepare()
    except MissingDataError:
        return None
    return task


class Captured:
    """What the attention of a small softmax classifier is given, on reviews of the test split.

    A sequence is the beginning of a review with at least n bytes; layers are the batch.
    """

    def __init__(self, task: Task) -> None:
        torch.manual_seed(0)
        cfg = compose_config("task=text", "scale=mini")
        settings = {**to_plain(cfg.model), "num_positions": None}
        self.task = task
        sizes = {"vocab_size": task.vocab_size, "max_len": LONGEST, "num_classes": 2, "num_inputs": 1}
        self.model = make_classifier(SoftmaxAttention, settings, **sizes)

    @classmethod
    def of_run(cls, task: Task, folder: Path) -> Captured:
        """Take the weights of a run's folder: of a softmax model on Text, of these sizes."""
        run = RunFolder(folder)
        try:
            config, state = run.read_config(), storage.load(run.weights, torch.device("cpu"))
        except (OSError, ValueError) as error:
            names = f"{run.config.name} and {run.weights.name}"
            raise InputError(f"weights={folder} must be a run's folder, with {names}: {error}") from error
        attn, name = (config[key]["name"] for key in ("attn", "task"))
        if (attn, name) != ("softmax", "text"):
            raise InputError(
                f"weights={folder} must be a run of attn=softmax on task=text. It is one of {attn} on {name}."
            )
        made = cls(task)
        places = made.model.encoder.position
        stored = state["encoder.position.weight"]
        if isinstance(places, torch.nn.Embedding) and len(stored) < LONGEST:
            # A model of shorter sequences has fewer positions: the rest keep their initial ones.
            state["encoder.position.weight"] = torch.cat([stored, places.weight.detach()[len(stored) :]])
        made.model.load_state_dict(state)
        return made

    def train(self, steps: int) -> Iterator[int]:
        """Take optimiser steps on batches of about equal length; yield their numbers."""
        split = self.task.split("train")
        batching = Batching(padding="batch", bucket_batches=32, mask_zero=False)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
        self.model.train()
        for step, index in enumerate(islice(batching.training(split, BATCH, seed=0), steps)):
            batch = batching.gather(split, index, LONGEST)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(self.model(batch.tokens, batch.mask), batch.labels).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            yield step

    @torch.no_grad()
    def __call__(self, n: int, trial: int) -> QKV:
        """Return q, k, v (layers, H, n, D) of one review."""
        split = self.task.split("test")
        long = np.flatnonzero(np.diff(split.offsets) >= n)
        # A prime stride, since reviews are in order of their label.
        start = split.offsets[long[trial * 7919 % len(long)]]
        tokens = torch.from_numpy(np.array(split.tokens[start : start + n]))[None, None]
        layers: list[QKV] = []
        hooks = [
            module.register_forward_pre_hook(lambda _, given: layers.append(given[:3]))
            for module in self.model.modules()
            if isinstance(module, Attention)
        ]
        self.model.eval()
        self.model(tokens, torch.ones_like(tokens, dtype=torch.bool))
        for hook in hooks:
            hook.remove()
        q, k, v = (torch.cat(heads).contiguous() for heads in zip(*layers, strict=True))
        return q, k, v
