"""Records on disk: reading those of `runs/` and of `measured/`, collecting runs into `measured/`, importing others'.

`measured/records.jsonl` has one record a line, so that a commit shows which runs came and which changed. Curves and
predictions are many numbers that nobody reads as text: they are in parquet beside it, compressed, the same bytes for
the same content.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lra.configuration import CONFIGS
from lra.errors import InputError
from lra.files import write_atomically, writing
from lra.records.arrays import Packed
from lra.records.folder import RunFolder
from lra.records.reading import files_beneath, leaving_out, read_lines, refuse_to_rewrite, warn
from lra.records.record import RECORD_NAME, RunRecord
from lra.records.retest_record import RETESTS_NAME, Retest, read_retests, write_retests

log = logging.getLogger(__name__)

MEASURED = Path("measured", "records.jsonl")
RETESTS = MEASURED.with_name(RETESTS_NAME)


@dataclass
class Reading:
    """What a folder holds.

    Attributes:
        records: by key.
        folders: of those runs that have one, by key.
        refused: a sentence for each record that is left out, with its name.
    """

    records: dict[str, RunRecord] = field(default_factory=dict)
    folders: dict[str, RunFolder] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def add(self, record: RunRecord, source: str, folder: RunFolder | None = None) -> None:
        """Take a record in, unless another one has its key."""
        present = self.records.setdefault(record.key, record)
        if present == record:
            if folder is not None:
                self.folders.setdefault(record.key, folder)
        else:
            self.refused.append(
                f"{source} has the key {record.key} of another record, of {present.date}, which is kept. To have the "
                "new one instead, remove the old one first."
            )

    def report(self) -> None:
        """Name in the log what was left out, and count it."""
        for reason in self.refused:
            warn(reason)
        if self.refused:
            log.warning("%d left out, %d read.", len(self.refused), len(self.records))


def load_records(results_dir: Path) -> list[RunRecord]:
    """Read the records of `runs/` and those collected in `measured/`, each key once.

    Of two with one key the finished one counts, and of two finished ones the one in the run's own folder. A record that
    cannot be read is named in a warning and left out.

    Raises:
        InputError: there is no such folder.
    """
    _check(results_dir)
    own, measured = _read_runs(results_dir), _read_lines(results_dir / MEASURED)
    own.refused += measured.refused
    own.report()
    finished = {key: record for key, record in own.records.items() if record.is_final}
    return list({**own.records, **measured.records, **finished}.values())


def load_measured(results_dir: Path) -> list[RunRecord]:
    """Read the collected records, in the order of their file; [] where none were collected."""
    reading = _read_lines(results_dir / MEASURED)
    reading.report()
    return list(reading.records.values())


def load_packed(results_dir: Path, records: Iterable[RunRecord]) -> Packed:
    """Read curves and predictions: those collected in `measured/`, and those in the folders of these runs."""
    packed = Packed.load((results_dir / MEASURED).parent)
    for run in records:
        packed.add_run(run, RunFolder.of(results_dir, run))
    return packed


def load_retests(results_dir: Path, *, collected_alone: bool = False) -> list[Retest]:
    """Read what runs were tested on again, each test once: those collected in `measured/`, and those in run folders.

    A line that cannot be read is named in a warning and left out.
    """
    own = [] if collected_alone else _own_retests(results_dir)
    retests, refused = read_retests([results_dir / RETESTS, *own])
    for reason in refused:
        warn(reason)
    return list(retests.values())


def unfinished(results_dir: Path) -> list[dict[str, Any]]:
    """Return the full configurations of runs that began and left no record: they still run, or were killed."""
    configs = []
    for folder in RunFolder.all(results_dir):
        if not folder.record.exists():
            with leaving_out(folder.config):
                configs.append(folder.read_config())
    return configs


def collect(results_dir: Path) -> tuple[Path, int, int]:
    """Merge the final records of `runs/` into `measured/`, with curves, predictions and retests; what is there stays.

    Returns:
        The file of records, how many it now holds, and how many were refused.

    Raises:
        InputError: there is no such folder, or it cannot be written.
    """
    _check(results_dir)
    return _merge(results_dir, _read_runs(results_dir), Packed(), _own_retests(results_dir))


def import_records(results_dir: Path, source: Path) -> tuple[Path, int, int]:
    """Merge somebody else's records into `measured/`: every `record.json` and `records.jsonl` at or under `source`.

    A record is refused if its schema is another, if its key is not the hash of its configuration, or if a record that
    is there already has its key and other content.

    Returns:
        As `collect`.

    Raises:
        InputError: there is no such folder, it holds no record, or `results_dir` cannot be written.
    """
    _check(results_dir)
    if not source.is_dir():
        raise InputError(f"There is no folder {source.resolve()} to import from. Name one with from=FOLDER.")
    imported, packed = Reading(), Packed()
    for path in files_beneath(source, RECORD_NAME, MEASURED.name):
        reading = _read_lines(path) if path.name == MEASURED.name else _read_folders([RunFolder(path.parent)])
        imported.refused += reading.refused
        if path.name == MEASURED.name:
            packed.merge(Packed.load(path.parent, imported.refused.append))
        for key, record in reading.records.items():
            if complaint := record.contradiction:
                imported.refused.append(f"{path}, key {key}: {complaint}")
            else:
                imported.add(record, f"{path}", reading.folders.get(key))
    if not imported.records and not imported.refused:
        raise InputError(
            f"{source.resolve()} holds neither a {RECORD_NAME} nor a {MEASURED.name}. Name another folder."
        )
    return _merge(results_dir, imported, packed, files_beneath(source, RETESTS_NAME))


def _merge(results_dir: Path, new: Reading, packed: Packed, retests: Sequence[Path]) -> tuple[Path, int, int]:
    path = results_dir / MEASURED
    all_records, known_retests = read_to_rewrite(results_dir)
    for key, record in new.records.items():
        if record.is_final:
            all_records.add(record, f"{new.folders.get(key, 'A new record')}", new.folders.get(key))
    all_retests, refused = read_retests([results_dir / RETESTS, *retests])
    all_records.refused += new.refused + refused
    all_records.report()
    all_packed = load_to_rewrite(path.parent)
    all_packed.merge(packed)
    for key, folder in all_records.folders.items():
        all_packed.add_run(all_records.records[key], folder)
    # A new retest is collected only if its run's record is.
    belonging = [test for test in all_retests.values() if test.key in known_retests or test.run in all_records.records]
    write_measured(results_dir, all_records.records.values(), all_packed, belonging)
    return path, len(all_records.records), len(all_records.refused)


def read_to_rewrite(results_dir: Path) -> tuple[Reading, dict[str, Retest]]:
    """Read the collected records and retests, both by key, before their files are written anew.

    Raises:
        InputError: a line cannot be read, and would be lost.
    """
    records, (retests, damaged) = _read_lines(results_dir / MEASURED), read_retests([results_dir / RETESTS])
    refuse_to_rewrite([*records.refused, *damaged])
    return records, retests


def load_to_rewrite(measured: Path) -> Packed:
    """Read the collected curves and predictions before their files are written anew.

    Raises:
        InputError: a file cannot be read, and would be lost.
    """
    damaged: list[str] = []
    packed = Packed.load(measured, damaged.append)
    refuse_to_rewrite(damaged)
    return packed


def write_measured(results_dir: Path, records: Iterable[RunRecord], packed: Packed, retests: Sequence[Retest]) -> None:
    """Write `measured/` anew, each file whole or not at all; the records come last.

    Raises:
        InputError: it cannot be written.
    """
    path, ordered = results_dir / MEASURED, sorted(records, key=_order)
    with writing(path.parent, "Choose another folder with results_dir=."):
        packed.save(path.parent, ordered)
        if retests:
            write_retests(results_dir / RETESTS, retests)
        write_atomically(path, "".join(json.dumps(record.as_dict()) + "\n" for record in ordered))


def _own_retests(results_dir: Path) -> list[Path]:
    return [folder.retests for folder in RunFolder.all(results_dir) if folder.retests.exists()]


def _order(record: RunRecord) -> tuple[str, str, str, str, int, str]:
    return record.scale, record.protocol, record.task, record.attn, record.seed, record.key


def _check(results_dir: Path) -> None:
    if not results_dir.is_dir():
        raise InputError(f"There is no results folder {results_dir.resolve()}. Name another with results_dir=.")


def _read_runs(results_dir: Path) -> Reading:
    folders = [folder for folder in RunFolder.all(results_dir) if folder.record.exists()]
    return _read_folders(folders, lambda folder, record: folder.path == RunFolder.of(results_dir, record).path)


def _read_folders(
    folders: Iterable[RunFolder], owns: Callable[[RunFolder, RunRecord], bool] = lambda folder, record: True
) -> Reading:
    reading = Reading()
    for folder in folders:
        with leaving_out(folder.record, reading.refused.append):
            record = RunRecord.read(folder.record)
            if not owns(folder, record):
                raise ValueError(f"it is the record of another run, {record.task} {record.attn} {record.key}")
            reading.add(record, f"{folder.record}", folder)
    return reading


def _read_lines(path: Path) -> Reading:
    reading = Reading()
    for name, record in read_lines(path, RunRecord.parse, reading.refused.append):
        reading.add(record, f"{name},")
    return reading


FILTERS = ("task", "attn", "protocol", "scale", "device")


def select(records: Sequence[RunRecord], options: Mapping[str, str]) -> list[RunRecord]:
    """Return the records with the names that the options give; "" is any name.

    Raises:
        InputError: no configuration and no record has such a name.
    """
    for name in FILTERS:
        choices = {path.stem for path in (CONFIGS / name).glob("*.yaml")} | {getattr(run, name) for run in records}
        if options[name] and options[name] not in choices:
            raise InputError(f"There is no {name}={options[name]}. Choose from {', '.join(sorted(choices))}.")
    return [run for run in records if all(options[name] in ("", getattr(run, name)) for name in FILTERS)]
