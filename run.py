"""Train one backbone on one Long Range Arena task: python run.py task=listops attn=skeinformer scale=mini.

Every key of `configs/` can be set on the command line, `-m` sweeps over comma-separated values, and `--help` lists the
choices. Running the same command again finds the finished record and trains nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from lra.arguments import repeating
from lra.configuration import explain_unknown_keys, is_sweep, results_dir_of, to_plain
from lra.errors import InputError, MissingDataError
from lra.machine.distributed import leads
from lra.machine.environment import now
from lra.machine.stopping import StoppedError
from lra.machine.terminal import secure_output
from lra.records.missing_data import forget_missing, note_missing, noted_since
from lra.runs.factory import make_model, make_task, mechanism_of
from lra.runs.run import run_configured
from lra.runs.summary import describe_sweep, summarize

log = logging.getLogger(__name__)

BEGAN = now()  # when the command began, which may be a sweep of many jobs


def train(cfg: DictConfig, task_name: str, attn_name: str, words: Sequence[str]) -> float | None:
    """Build what the configuration names, run it, and print what came of it.

    Args:
        cfg: the composed configuration.
        task_name, attn_name: its choices.
        words: those of the command line that it was composed from.

    Returns:
        The validation accuracy, for Hydra's sweepers.
    """
    resolved = to_plain(cfg)
    task = make_task(resolved)
    version = mechanism_of(resolved["attn"]).version
    attn = {**resolved["attn"], "name": attn_name, "version": version}
    command = repeating("run.py", words)
    record, folder = run_configured(resolved, task_name, task, attn, lambda: make_model(resolved, task), command)
    if leads():
        print(summarize(record, folder))
    return record.val_accuracy


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Do one job. A mistake of the user's ends in one line; a sweep goes on without a task that has no data."""
    secure_output()  # in the processes of a sweep, too
    job = HydraConfig.get()
    choices, in_sweep = job.runtime.choices, job.mode == RunMode.MULTIRUN
    setting = (Path(cfg.results_dir), choices["task"], cfg.protocol.name, cfg.scale)
    if in_sweep and noted_since(BEGAN, *setting):  # an earlier job of this sweep has tried to get the same data
        return None
    try:
        accuracy = train(cfg, choices["task"], choices["attn"], job.overrides.task)
    except MissingDataError as error:
        if not in_sweep:
            raise CompactHydraException(str(error)) from error
        note_missing(*setting, reason=str(error))
        log.warning("No data for %s, the sweep goes on without: %s", choices["task"], error)
        return None
    except InputError as error:
        raise CompactHydraException(str(error)) from error
    forget_missing(*setting)
    return accuracy


if __name__ == "__main__":
    secure_output()
    try:
        main()
    except StoppedError as stop:
        print(f"{stop}. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code and (explanation := explain_unknown_keys(sys.argv[1:])):
            print(explanation, file=sys.stderr)
        raise
    finally:
        if is_sweep(sys.argv[1:]):
            print(describe_sweep(results_dir_of(sys.argv[1:]), BEGAN))
