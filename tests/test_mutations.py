"""Whatever a key is set to, run.py trains, or says in a sentence what is wrong and ends; it never shows a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from lra.files import ROOT
from tests.helpers.configurations import choices, composed
from tests.helpers.mutations import TINY, mutations

MEAN = ("attn=vmean", *TINY)
ODD_WORDS = [
    [*words.split(), *MEAN]  # a flag must stand in front
    for words in (
        "hydra=3", "hydra=null", "hydra.run=3", "hydra.run.dir=null", "hydra.sweep=abc", "hydra.job=[]", "~hydra",
        "hydra.job_logging=null", "hydra/launcher=nowhere", "hydra/launcher=null", "hydra/sweeper=[a,b]",
        "hydra.searchpath=3", "hydra.searchpath=[file:///nowhere]", "hydra.mode=SOMETIMES", "hydra.output_subdir=3",
        "-m seed=0,abc", "-m task=listops,null", "-m protocol=lra,", "-m attn=glob(nothing)", "-m seed=range(0,a)",
        "-m experiment=controlled,lra_table1", "experiment=nowhere", "experiment=null", "experiment=3", "seed=0,1",
        "-m", "-m seed=", "-m optimizer=1,2", "-m model.depth=1,x", "-m budget=choice(0,1)", "-m seed=interval(0,1)",
        "seed", "=", "seed==3", "--seed=3", "attn=(", "seed=$", "+seed=3", "++seed=3", "+attn=softmax",
        "attn@a=softmax", "+a.b.c=3", "++trainer.steps.x=3", "trainer.steps.x=3", "trainer.=3", ".seed=3", "~nothing",
        "~trainer.steps=3", "seed=a:b", "seed=1e", "protocol_attn=skeinformer_vmean", "protocol_attn=null",
        "row.steps=3", "size=3", "task_name=text", "task_name=null", "protocol.name=lra", "scale=mini", "budget=0",
        "budget=null", "+experiment=controlled",
    )
]  # fmt: skip


def of_the_configuration() -> list[list[str]]:
    words = ("attn=skeinformer", *TINY)
    return list(mutations(composed(*words), words, 4))


def of_the_mechanisms() -> list[list[str]]:
    """One for each of the mechanisms' own keys, another one for each mechanism that has it."""
    return [
        mutated
        for number, attn in enumerate(choices("attn"))
        for mutated in mutations(composed(f"attn={attn}"), (f"attn={attn}", *TINY), 1, first=7 * number)
        if mutated[-1].startswith("attn.") and "_target_" not in mutated[-1]
    ]


def of_the_tasks() -> list[list[str]]:
    """For each of the tasks' own keys what none of them takes, so that no data are looked for."""
    return [
        [f"task={task}", "scale=smoke", "attn=vmean", "wandb.mode=disabled", f"task.{key}={value}"]
        for task in choices("task")
        for number, key in enumerate(key for key in composed(f"task={task}").task if not key.startswith("_"))
        for value in (("[1]", "{a:1}", "nan"), ("-1", "[]", "1e400"))[number % 2]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "commands", [of_the_configuration, of_the_mechanisms, of_the_tasks, lambda: ODD_WORDS],
    ids=["configuration", "mechanisms", "tasks", "odd words"],
)  # fmt: skip
def test_a_wrong_value_is_told_in_a_sentence(commands, tmp_path):
    made = commands()
    (tmp_path / "commands.json").write_text(json.dumps(made))
    environment = {name: value for name, value in os.environ.items() if name != "LRA_DATA"}
    subprocess.run(
        [sys.executable, "-m", "tests.helpers.mutations", tmp_path / "commands.json", tmp_path / "outcomes.jsonl"],
        cwd=ROOT, env={**environment, "LRA_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}, check=True,
    )  # fmt: skip
    outcomes = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert len(outcomes) == len(made)
    wrong = [(" ".join(outcome["words"][-1:]), problem) for outcome in outcomes if (problem := problem_of(outcome))]
    assert not wrong
    assert any(outcome["code"] == 1 for outcome in outcomes)


def problem_of(outcome: dict[str, Any]) -> str:
    """What a user could not accept of a command; "" for nothing."""
    shown = outcome["out"] + outcome["err"]
    if "Traceback" in shown:
        return "a traceback: " + shown[-300:]
    if outcome["code"] not in (0, 1, 2):
        return f"ended with {outcome['code']} after {outcome['seconds']:.0f} s: " + shown[-300:]
    if outcome["code"] != 0 and not outcome["err"].strip():
        return "nothing is said"
    if outcome["code"] != 0 and outcome["left"] and outcome["words"][0] != "-m":  # a sweep has jobs that are done
        return f"leaves {outcome['left']}"
    return ""
