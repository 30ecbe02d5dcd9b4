"""Where raw rows come from: parquet files, the Hugging Face hub at a commit, TensorFlow Datasets without TensorFlow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from lra.errors import InputError, MissingDataError, check_choice

SourceName = Literal["auto", "parquet", "hub", "tfds"]
RawPart = Literal["train", "test"]
RAW_PARTS: tuple[RawPart, RawPart] = ("train", "test")
Columns = dict[str, list[Any]]


def raw_folder(data_dir: str | Path | None, name: str) -> Path | None:
    """Return the folder of a task's raw files: `data_dir`, else `$LRA_DATA/<name>` if it exists, else None.

    Raises:
        InputError: `data_dir` is no folder, or the folder cannot be read.
    """
    root = os.environ.get("LRA_DATA")
    if data_dir is None and not root:
        return None
    folder = Path(root or "", name) if data_dir is None else Path(data_dir)
    folder = folder.expanduser()
    try:
        os.scandir(folder).close()
    except OSError as error:
        if data_dir is None and isinstance(error, FileNotFoundError | NotADirectoryError):
            return None
        setting = f"LRA_DATA={root}" if data_dir is None else f"task.data_dir={data_dir}"
        raise InputError(
            f"Cannot read the folder {folder} ({error.strerror}), from {setting}. Name another."
        ) from error
    return folder


def fingerprint(paths: Iterable[Path]) -> dict[str, Any]:
    """Return size in bytes and SHA-256 of each file, by its name.

    Raises:
        InputError: one of them cannot be read.
    """
    files: dict[str, Any] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                files[path.name] = {"bytes": file.tell(), "sha256": digest}
        except OSError as error:
            raise unreadable(path, error) from error
    return files


def unreadable(path: Path, error: Exception) -> InputError:
    """Make the error for a file that is missing, forbidden or damaged."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        reason += f"; {path.parent} holds {', '.join(sorted(p.name for p in path.parent.iterdir())[:8]) or 'nothing'}"
    return InputError(
        f"Cannot read {path} ({reason}). Check the file, copy or download it again, or choose another folder with "
        "task.data_dir=."
    )


def read_parquet(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Columns:
    """Read columns of a parquet file; text and images come as bytes.

    Raises:
        InputError: the file cannot be read or is damaged, lacks a column, has no rows, or a value is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if absent := [name for name in columns if name not in names]:
                raise InputError(
                    f"{path} has no column {', '.join(absent)}: expected {', '.join(columns)}, found "
                    f"{', '.join(names)}. Use the data set's own files, or rename the columns."
                )
            table = file.read([*columns, *(name for name in optional if name in names)])
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    return _as_lists(table, str(path))


def _as_lists(table: Any, where: str) -> Columns:
    """Turn an Arrow table into lists; texts stay bytes, so that an error of decoding one can name its row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(table):
        raise InputError(f"{where} has no rows. Copy or download it again.")
    lists: Columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_struct(column.type):  # an image: {bytes, path}
            column = pc.struct_field(column, "bytes")
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        if column.null_count:
            row = next(i for i, valid in enumerate(column.is_valid().to_pylist()) if not valid)
            raise InputError(f"{where}, row {row}: no {name}, as in {column.null_count} rows. Download the file again.")
        lists[name] = column.to_pylist()
    return lists


# Sources of rows


class Source(Protocol):
    """Where rows come from; `name` goes into the record."""

    name: str

    def where(self, part: RawPart) -> str:
        """Name a part in messages."""

    def specification(self) -> dict[str, Any]:
        """Say what decides the rows: a revision, or the fingerprint of files under `files`."""

    def read(self, part: RawPart, columns: Sequence[str], optional: Sequence[str] = ()) -> Columns:
        """Return the rows of a part, column by column."""


@dataclass(frozen=True)
class Parquet:
    """A folder with `train.parquet` and `test.parquet`."""

    folder: Path
    name = "parquet"

    def where(self, part: RawPart) -> str:
        """Name the file."""
        return str(self._path(part))

    def specification(self) -> dict[str, Any]:
        """Return the fingerprint of both files."""
        return {"files": fingerprint(self._path(part) for part in RAW_PARTS)}

    def read(self, part: RawPart, columns: Sequence[str], optional: Sequence[str] = ()) -> Columns:
        """Read one file."""
        return read_parquet(self._path(part), columns, optional)

    def _path(self, part: RawPart) -> Path:
        return self.folder / f"{part}.parquet"


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub at one commit."""

    repository: str
    revision: str
    folder_name: str
    name = "hub"

    def where(self, part: RawPart) -> str:
        """Name data set, commit and split."""
        return f"{part} of {self.repository} at revision {self.revision} on the Hugging Face hub"

    def specification(self) -> dict[str, Any]:
        """Return the commit."""
        return {"repository": self.repository, "revision": self.revision}

    def read(self, part: RawPart, columns: Sequence[str], optional: Sequence[str] = ()) -> Columns:
        """Download, unless `datasets` has it in its own cache."""
        import datasets

        where = self.where(part)
        try:
            rows = datasets.load_dataset(self.repository, revision=self.revision, split=part)
        # The exceptions of datasets, huggingface_hub and their network libraries have no common base.
        except Exception as error:
            raise MissingDataError(
                f"Cannot get {where} ({type(error).__name__}: {error}). Check the network; or put train.parquet and "
                f"test.parquet with the columns {', '.join(columns)} into a folder and name it with task.data_dir=, "
                f"or its parent, if the folder is called {self.folder_name}, with the environment variable LRA_DATA."
            ) from error
        if absent := [name for name in columns if name not in rows.column_names]:
            raise InputError(f"{where} has no column {', '.join(absent)}, only {', '.join(rows.column_names)}")
        names = [*columns, *(name for name in optional if name in rows.column_names)]
        return _as_lists(rows.select_columns(names).with_format("arrow")[:], where)


@dataclass(frozen=True)
class Tfds:
    """A data set of TensorFlow Datasets, prepared as array_record (or parquet), read without TensorFlow.

    Args:
        dataset: its name there.
        data_dir: TensorFlow Datasets' folder; None for its default.
        features: the data set's names of our columns, where they differ.
    """

    dataset: str
    data_dir: str | Path | None
    features: Mapping[str, str]
    name = "tfds"

    def where(self, part: RawPart) -> str:
        """Name data set and split."""
        return f"{part} of {self.dataset} in TensorFlow Datasets"

    def specification(self) -> dict[str, Any]:
        """Return the version and the fingerprint of the prepared files."""
        info = self._builder().info
        files = [Path(path) for part in RAW_PARTS for path in info.splits[part].filepaths]
        return {"dataset": info.full_name, "files": fingerprint(files)}

    def read(self, part: RawPart, columns: Sequence[str], optional: Sequence[str] = ()) -> Columns:
        """Read one split in its stored order."""
        builder = self._builder()
        features = {column: self.features.get(column, column) for column in (*columns, *optional)}
        present = builder.info.features
        names = {column: name for column, name in features.items() if name in present or column in columns}
        try:
            rows = list(builder.as_data_source(part))
            return {column: [row[name] for row in rows] for column, name in names.items()}
        except (OSError, ValueError, LookupError, ImportError, NotImplementedError) as error:
            raise self._failure(error) from error

    def _builder(self) -> Any:
        try:
            import tensorflow_datasets as tfds

            builder = tfds.builder(self.dataset, data_dir=self.data_dir)
            builder.as_data_source("test")
        except ImportError as error:
            if "tensorflow_datasets" not in str(error):
                raise self._failure(error) from error
            raise InputError(
                "task.source=tfds needs the package tensorflow-datasets, with array_record. Run "
                "pip install 'tensorflow-datasets>=4.9.10' array_record, or leave task.source out."
            ) from error
        # Its exceptions for data that are missing or half prepared have no common base.
        except Exception as error:
            raise self._failure(error) from error
        return builder

    def _failure(self, error: Exception) -> InputError:
        folder = self.data_dir or "its default folder"
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return InputError(
            f"TensorFlow Datasets cannot read {self.dataset} in {folder} ({reason}). It must have been prepared there: "
            f"tfds.builder({self.dataset!r}, file_format='array_record').download_and_prepare(); tfrecord files cannot "
            "be read without TensorFlow. Or leave task.source out."
        )


def choose_source(
    source: str, data_dir: str | Path | None, *, hub: Hub, tfds: tuple[str, Mapping[str, str]]
) -> Source:  # fmt: skip
    """Return the source that a task's `source` and `data_dir` name: by default a folder if there is one, else the hub.

    Raises:
        InputError: they contradict each other.
    """
    check_choice("task.source", source, ("auto", "parquet", "hub", "tfds"))
    if source == "tfds":
        return Tfds(tfds[0], data_dir, tfds[1])
    if source == "hub":
        if data_dir is not None:
            raise InputError(
                f"task.source=hub downloads, but task.data_dir={data_dir} is given. Leave one of them out."
            )
        return hub
    folder = raw_folder(data_dir, hub.folder_name)
    if folder:
        return Parquet(folder)
    if source == "parquet":
        raise InputError(
            f"task.source=parquet needs a folder of train.parquet and test.parquet. Name it with task.data_dir=, or "
            f"its parent, if the folder is called {hub.folder_name}, with the environment variable LRA_DATA."
        )
    return hub
