"""Train one backbone on one Long Range Arena task: python run.py task=listops attn=skeinformer scale=mini.

Every key of `configs/` can be set on the command line, `-m` sweeps over comma-separated values, and `--help` lists the
choices. Running the same command again finds the finished record and trains nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lra.arguments import repeating
from lra.configuration import check_choices, explain_unknown_keys, is_sweep, results_dirs_of, told
from lra.errors import InputError, MissingDataError
from lra.machine.distributed import leads
from lra.machine.environment import now
from lra.machine.stopping import StoppedError
from lra.machine.terminal import secure_output
from lra.records.missing_data import forget_missing, note_missing, noted_since
from lra.runs.factory import check_model, make_model, make_task, mechanism_of
from lra.runs.matching import matched
from lra.runs.pretraining import make_pretraining, staged
from lra.runs.run import run_configured
from lra.runs.schema import check_names, resolve
from lra.runs.summary import describe_sweep, summarize

log = logging.getLogger(__name__)

BEGAN = now()  # when the command began, which may be a sweep of many jobs


def train(resolved: Mapping[str, Any], task_name: str, attn_name: str, words: Sequence[str]) -> float | None:
    """Build what the configuration names, run it, and print what came of it.

    Args:
        resolved: the configuration.
        task_name, attn_name: its choices.
        words: those of the command line that it was composed from.

    Returns:
        The validation accuracy, for Hydra's sweepers.
    """
    version = mechanism_of(resolved["attn"]).version
    task = make_task(resolved)
    resolved = staged(resolved)
    check_model(resolved, task)
    resolved = matched(resolved, task)
    attn = {**resolved["attn"], "name": attn_name, "version": version}
    command = repeating("run.py", words)
    pretraining = make_pretraining(resolved, task_name, task, attn)
    record, folder = run_configured(
        resolved, task_name, task, attn, lambda: make_model(resolved, task), command, pretraining
    )
    if leads():
        print(summarize(record, folder))
    return record.val_accuracy


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Do one job, and tell a mistake of the user's in a sentence."""
    secure_output()  # in the processes of a sweep, too
    try:
        return do_job(cfg)
    except InputError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # Hydra says which job it was, after the others
            raise
        print(error, file=sys.stderr)
        sys.exit(1)


def do_job(cfg: DictConfig) -> float | None:
    """Do one job; a sweep goes on without a task that has no data."""
    job = HydraConfig.get()
    choices, in_sweep = job.runtime.choices, job.mode == RunMode.MULTIRUN
    resolved = resolve(cfg)
    check_names(resolved, choices)
    setting = (Path(resolved["results_dir"]), choices["task"], resolved["protocol"]["name"], resolved["scale"])
    if in_sweep and noted_since(BEGAN, *setting):  # an earlier job of this sweep has tried to get the same data
        return None
    try:
        accuracy = train(resolved, choices["task"], choices["attn"], job.overrides.task)
    except MissingDataError as error:
        if not in_sweep:
            raise
        note_missing(*setting, reason=str(error))
        log.warning("No data for %s, the sweep goes on without: %s", choices["task"], error)
        return None
    forget_missing(*setting)
    return accuracy


def do(words: Sequence[str]) -> int:
    """Do what a command line says; return the exit code. A mistake of the user's is told without a traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on, for this function to tell
    secure_output()
    try:
        check_choices(words)
        main()
    except StoppedError as stop:
        print(f"{stop}. The same command goes on from there.", file=sys.stderr)
        return 130
    except Exception as error:
        if not (mistake := told(error)):
            raise
        explanation = "" if isinstance(error, InputError) else explain_unknown_keys(words)
        print(explanation or mistake, file=sys.stderr)
        return 1
    finally:
        if is_sweep(words):
            for results_dir in results_dirs_of(words):
                if summary := describe_sweep(results_dir, BEGAN):
                    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(do(sys.argv[1:]))
