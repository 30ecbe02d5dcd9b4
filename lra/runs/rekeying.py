"""Renews the keys of a results folder: in records, curves, predictions, retests, checkpoints and names of folders.

A key is renewed once the rule that makes it has changed (`lra/records/identity.py`). Nothing is lost if this is
interrupted: what bears the old key is written last, so that the next call sees it and does the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import Timeout

from lra.errors import InputError
from lra.records.collection import MEASURED, load_to_rewrite, read_to_rewrite, write_measured
from lra.records.folder import RunFolder
from lra.records.identity import fingerprint, run_group, run_key
from lra.records.reading import leaving_out, refuse_to_rewrite
from lra.records.record import RunRecord
from lra.records.retest_record import read_retests, write_retests
from lra.training.checkpoint import give_key


def rekey(results_dir: Path) -> dict[str, str]:
    """Renew all keys of a results folder, in `measured/` and in `runs/`.

    Returns:
        The new key of each run that had another, by the old one.

    Raises:
        InputError: two runs would have one key, a key does not belong to its configuration, or a record cannot be read
            (nothing was changed then); or a run is under way, or a file of its folder cannot be read or written.
    """
    reading, retests = read_to_rewrite(results_dir)
    collected = [(record.key, record.config) for record in reading.records.values()]
    folders = {folder: _config_of(folder) for folder in RunFolder.all(results_dir)}
    renewed = _renewed(collected)
    from_folders = _renewed((folder.path.name, config) for folder, config in folders.items())
    for folder, config in folders.items():
        if folder.path.name in from_folders:
            _renew_folder(folder, config)
    if renewed:
        packed = load_to_rewrite((results_dir / MEASURED).parent)
        packed.curves = {renewed.get(key, key): points for key, points in packed.curves.items()}
        packed.predictions = {
            (renewed.get(key, key), name): classes for (key, name), classes in packed.predictions.items()
        }
        records = [_with_new_key(record) for record in reading.records.values()]
        renewed_retests = [dataclasses.replace(test, run=renewed.get(test.run, test.run)) for test in retests.values()]
        write_measured(results_dir, records, packed, renewed_retests)
    return {**renewed, **from_folders}


def _renewed(runs: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return the new key of each run that has another, by the old one."""
    old_keys: dict[str, str] = {}
    for old_key, config in runs:
        key = run_key(config)
        if old_key not in (fingerprint(config), key):  # the first rule hashed the configuration as it stands
            raise InputError(
                f"The key {old_key} does not belong to its configuration, which hashes to {key}: it was altered. "
                "Remove the record or the folder of this key first."
            )
        earlier_key = old_keys.setdefault(key, old_key)
        if earlier_key != old_key:
            raise InputError(
                f"The runs {earlier_key} and {old_key} would both have the key {key}. Remove one of the two first."
            )
    return {old_key: key for key, old_key in old_keys.items() if key != old_key}


def _with_new_key(record: RunRecord) -> RunRecord:
    return dataclasses.replace(record, key=run_key(record.config), group=run_group(record.config))


def _config_of(folder: RunFolder) -> dict[str, Any]:
    """Return the configuration that a run's folder holds.

    Raises:
        InputError: it cannot be read.
    """
    damaged: list[str] = []
    config: dict[str, Any] = {}
    with leaving_out(folder, damaged.append):
        config = RunRecord.read(folder.record).config if folder.record.exists() else folder.read_config()
    refuse_to_rewrite(damaged)
    return config


def _renew_folder(folder: RunFolder, config: dict[str, Any]) -> None:
    """Renew the key in all files of a run's folder, and last the name of the folder.

    Raises:
        InputError: the run is under way, its retests cannot be read, or the folder cannot be written.
    """
    key = run_key(config)
    try:
        with folder.lock().acquire(timeout=0):
            retests, damaged = read_retests([folder.retests])
            refuse_to_rewrite(damaged)
            if retests:
                write_retests(folder.retests, [dataclasses.replace(test, run=key) for test in retests.values()])
            give_key(folder.path, key)
            if folder.record.exists():
                _with_new_key(RunRecord.read(folder.record)).write(folder.path)
            folder.path.rename(folder.path.with_name(key))
    except Timeout:
        raise InputError(f"The run in {folder} is under way. Wait for it, and run this again.") from None
    except (OSError, RuntimeError) as error:
        raise InputError(f"{folder} cannot be renewed: {error}. Make it writable, and run this again.") from error
