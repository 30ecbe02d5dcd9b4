"""The target `max_batch`: the largest batch that fits, for every task and method at the published size.

It is the "bz" of arXiv 2112.05359, Table 2. Each case has a process of its own, whose memory is limited:
`python -m lra.benchmarks.max_batch SETTINGS`, the settings as JSON; it prints its row as a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from hydra.utils import instantiate

from lra.benchmarks import options as read
from lra.benchmarks.timing import Progress
from lra.configuration import backbones, compose_config, to_plain
from lra.files import ROOT
from lra.machine.memory import is_out_of_memory, limit_memory
from lra.records.benchmark_rows import OK, BatchRow, BenchmarkRow, format_row, parse_row
from lra.reports.report import terminal
from lra.runs.factory import make_classifier
from lra.tasks import Task
from lra.training.micro_batch import largest_micro_batch

TASKS = ("text", "listops", "retrieval", "pathfinder", "image")
METHODS = "softmax_materialised,softmax,vmean,skeinformer,nystromformer,linformer,performer,informer,bigbird,reformer"
OPTIONS = {
    "tasks": "all", "attn": METHODS, "memory_gib": "4", "device": "cpu", "protocol": "skeinformer", "budget": "256",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a case is of, and the memory that it may take."""

    task: str
    backbone: str
    memory_gib: float
    protocol: str
    budget: int


def measure(options: Mapping[str, str]) -> Iterator[BatchRow]:
    """Read the options; return a row for each task and method."""
    tasks, names = read.chosen(options, "tasks", TASKS), read.chosen(options, "attn", backbones())
    memory_gib, budget = read.amount(options, "memory_gib"), read.count(options, "budget")
    cases = [Settings(task, name, memory_gib, options["protocol"], budget) for task in tasks for name in names]
    return _rows(cases, options["device"])


def _rows(cases: Sequence[Settings], device: str) -> Iterator[BatchRow]:
    progress = Progress("max_batch", len(cases))
    for case in cases:
        progress.say(f"{case.task}, {case.backbone}")
        done = subprocess.run(
            [sys.executable, "-m", "lra.benchmarks.max_batch", json.dumps(asdict(case)), device],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        progress.done += 1
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"killed by signal {-done.returncode}"])[-1]
            yield BatchRow(status=f"failed: {last}", **asdict(case))
        else:
            row = parse_row("max_batch", done.stdout)
            assert isinstance(row, BatchRow)
            yield row


def largest(case: Settings, device: torch.device) -> BatchRow:
    """Find the largest batch of full-length examples of one task."""
    cfg = compose_config(
        f"task={case.task}", f"attn={case.backbone}", f"protocol={case.protocol}", f"budget={case.budget}"
    )
    made: Task = instantiate(cfg.task)(cache_dir=None)  # asked for its shape alone, so its data need not be there
    n = cfg.data.padded_length or made.max_len
    limit_memory(case.memory_gib * 2**30, device)
    model = make_classifier(
        instantiate(cfg.attn), to_plain(cfg.model), vocab_size=made.vocab_size, max_len=n,
        num_classes=made.num_classes, num_inputs=made.num_inputs,
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())

    def attempt(batch: int) -> None:
        shape = (batch, made.num_inputs, n)
        tokens = torch.randint(1, min(made.vocab_size, 256), shape, dtype=torch.uint8, device=device)
        optimizer.zero_grad(set_to_none=True)
        model(tokens, tokens > 0).logsumexp(-1).sum().backward()
        optimizer.step()

    wanted = cfg.trainer.batch_size
    try:
        size, status = largest_micro_batch(attempt, wanted, device), OK
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size, status = 0, "out of memory"
    return BatchRow(status=status, **asdict(case), n=n, wanted=wanted, largest=size)


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out a line for each method, a column for each task."""
    cases = [row for row in rows if isinstance(row, BatchRow)]
    tasks = list(dict.fromkeys(row.task for row in cases))
    cells = {(row.backbone, row.task): str(row.largest) if row.status == OK else row.status for row in cases}
    wanted = {row.task: row.wanted for row in cases if row.wanted is not None}
    lines = [
        [name, *(cells.get((name, task), "") for task in tasks)]
        for name in dict.fromkeys(row.backbone for row in cases)
    ]
    lines.append(["(the protocol's batch)", *(str(wanted.get(task, "")) for task in tasks)])
    memory = cases[0].memory_gib if cases else 0
    title = f"Largest batch, by doubling, of full-length examples in {memory:g} GiB beyond an empty process"
    return f"{title}\n{terminal(('backbone', *tasks), lines)}"


if __name__ == "__main__":
    print(format_row(largest(Settings(**json.loads(sys.argv[1])), torch.device(sys.argv[2]))))
