"""The largest batch that fits, for every task and method at the published size: the "bz" of arXiv 2112.05359, Table 2.

Each case has a process of its own, whose memory is limited: `python -m lra.benchmarks.max_batch TASK BACKBONE ..`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import torch
from hydra.utils import instantiate

from lra.benchmarks import options as read
from lra.benchmarks.rendering import table
from lra.benchmarks.timing import Progress, Row
from lra.configuration import backbones, compose_config, to_plain
from lra.files import ROOT
from lra.machine.memory import is_out_of_memory, limit_memory
from lra.runs.factory import make_classifier
from lra.tasks import Task
from lra.training.micro_batch import largest_micro_batch

TASKS = ("text", "listops", "retrieval", "pathfinder", "image")
METHODS = "softmax_materialised,softmax,vmean,skeinformer,nystromformer,linformer,performer,informer,bigbird,reformer"
OPTIONS = {
    "tasks": "all", "attn": METHODS, "memory_gib": "4", "device": "cpu", "protocol": "skeinformer", "budget": "256",
}  # fmt: skip


def measure(options: Mapping[str, str]) -> Iterator[Row]:
    """Read the options; return a row for each task and method."""
    cases = [
        (task, name)
        for task in read.chosen(options, "tasks", TASKS)
        for name in read.chosen(options, "attn", backbones())
    ]
    given = [
        str(read.amount(options, "memory_gib")),
        options["device"],
        options["protocol"],
        str(read.count(options, "budget")),
    ]
    return _rows(cases, given)


def _rows(cases: Sequence[tuple[str, str]], given: Sequence[str]) -> Iterator[Row]:
    progress = Progress("max_batch", len(cases))
    for task, name in cases:
        progress.say(f"{task}, {name}")
        done = subprocess.run(
            [sys.executable, "-m", "lra.benchmarks.max_batch", task, name, *given],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        progress.done += 1
        about = {
            "task": task,
            "backbone": name,
            "memory_gib": float(given[0]),
            "protocol": given[2],
            "budget": int(given[3]),
        }
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"killed by signal {-done.returncode}"])[-1]
            yield {**about, "status": f"failed: {last}"}
        else:
            yield {**about, **json.loads(done.stdout)}


def largest(task: str, name: str, memory_gib: float, device: torch.device, protocol: str, budget: int) -> Row:
    """Find the largest batch of full-length examples of one task."""
    cfg = compose_config(f"task={task}", f"attn={name}", f"protocol={protocol}", f"budget={budget}")
    made: Task = instantiate(cfg.task)(cache_dir=None)  # asked for its shape alone, so its data need not be there
    n = cfg.data.padded_length or made.max_len
    limit_memory(memory_gib * 2**30, device)
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
        found = largest_micro_batch(attempt, wanted, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"n": n, "wanted": wanted, "largest": 0, "status": "out of memory"}
    return {"n": n, "wanted": wanted, "largest": found, "status": "ok"}


def render(rows: Sequence[Row]) -> str:
    """Lay out a line for each method, a column for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    cells = {
        (row["backbone"], row["task"]): str(row["largest"]) if row["status"] == "ok" else row["status"] for row in rows
    }
    names = list(dict.fromkeys(row["backbone"] for row in rows))
    wanted = {row["task"]: row["wanted"] for row in rows if "wanted" in row}
    lines = [[name, *(cells.get((name, task), "") for task in tasks)] for name in names]
    lines.append(["(the protocol's batch)", *(str(wanted.get(task, "")) for task in tasks)])
    memory = rows[0]["memory_gib"] if rows else 0
    title = f"Largest batch, by doubling, of full-length examples in {memory:g} GiB beyond an empty process"
    return f"{title}\n{table(('backbone', *tasks), lines)}"


if __name__ == "__main__":
    task_name, backbone, memory, device_name, protocol_name, budget_text = sys.argv[1:]
    case = largest(task_name, backbone, float(memory), torch.device(device_name), protocol_name, int(budget_text))
    print(json.dumps(case))
