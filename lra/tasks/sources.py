"""Where raw rows come from: parquet files, the Hugging Face hub at a commit, TensorFlow Datasets without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from lra.errors import InputError, MissingDataError, check_choice
from lra.tasks.columns import Columns, Kinds, as_lists, chosen, read_parquet
from lra.tasks.raw_files import Layout, find_folder, fingerprint

SourceName = Literal["auto", "parquet", "hub", "tfds"]
RawPart = Literal["train", "test"]
RAW_PARTS: tuple[RawPart, RawPart] = ("train", "test")


class Source(Protocol):
    """Where rows come from; `name` goes into the record."""

    name: str

    @property
    def remark(self) -> str:
        """Say in a sentence why rows are taken from here and not from files; may be empty."""

    def place(self) -> str:
        """Say where the rows are, after the source's name."""

    def where(self, part: RawPart) -> str:
        """Name a part in messages."""

    def specification(self) -> dict[str, Any]:
        """Say what decides the rows: a revision, or the fingerprint of files under `files`."""

    def read(self, part: RawPart, kinds: Kinds, optional: Kinds | None = None) -> Columns:
        """Return the rows of a part, column by column; `kinds` says what each column must hold."""


@dataclass(frozen=True)
class Parquet:
    """A folder with `train.parquet` and `test.parquet`."""

    folder: Path
    name = "parquet"
    remark = ""

    def place(self) -> str:
        """Name the folder."""
        return f"in {self.folder}"

    def where(self, part: RawPart) -> str:
        """Name the file."""
        return str(self._path(part))

    def specification(self) -> dict[str, Any]:
        """Return the fingerprint of both files."""
        return {"files": fingerprint(self._path(part) for part in RAW_PARTS)}

    def read(self, part: RawPart, kinds: Kinds, optional: Kinds | None = None) -> Columns:
        """Read one file."""
        return read_parquet(self._path(part), kinds, optional)

    def _path(self, part: RawPart) -> Path:
        return self.folder / f"{part}.parquet"


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub at one commit.

    Args:
        repository: its name there.
        revision: the commit.
        folder_name: of a folder of its files, which is taken instead.
        remark: where such a folder was looked for.
    """

    repository: str
    revision: str
    folder_name: str
    remark: str = ""
    name = "hub"

    def place(self) -> str:
        """Name data set and commit."""
        return f"({self.repository} at revision {self.revision})"

    def where(self, part: RawPart) -> str:
        """Name data set, commit and split."""
        return f"{part} of {self.repository} at revision {self.revision} on the Hugging Face hub"

    def specification(self) -> dict[str, Any]:
        """Return the commit."""
        return {"repository": self.repository, "revision": self.revision}

    def read(self, part: RawPart, kinds: Kinds, optional: Kinds | None = None) -> Columns:
        """Download, unless `datasets` has it in its own cache."""
        import datasets

        where = self.where(part)
        try:
            rows = datasets.load_dataset(self.repository, revision=self.revision, split=part)
        # The exceptions of datasets, huggingface_hub and their network libraries have no common base.
        except Exception as error:
            raise MissingDataError(
                f"Cannot get {where} ({type(error).__name__}: {error}). Check the network; or put train.parquet and "
                f"test.parquet with the columns {', '.join(kinds)} into a folder and name it with task.data_dir=, or "
                f"its parent, if it is called {self.folder_name}, with the environment variable LRA_DATA. {self.remark}"
            ) from error
        wanted = chosen(kinds, optional, rows.column_names, where)
        return as_lists(rows.select_columns(list(wanted)).with_format("arrow")[:], wanted, where)


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
    remark = ""

    def place(self) -> str:
        """Name data set and folder."""
        return f"({self.dataset} in {self.data_dir or 'the default folder of TensorFlow Datasets'})"

    def where(self, part: RawPart) -> str:
        """Name data set and split."""
        return f"{part} of {self.dataset} in TensorFlow Datasets"

    def specification(self) -> dict[str, Any]:
        """Return the version and the fingerprint of the prepared files."""
        info = self._builder().info
        files = [Path(path) for part in RAW_PARTS for path in info.splits[part].filepaths]
        return {"dataset": info.full_name, "files": fingerprint(files)}

    def read(self, part: RawPart, kinds: Kinds, optional: Kinds | None = None) -> Columns:
        """Read one split in its stored order."""
        builder = self._builder()
        features = {column: self.features.get(column, column) for column in (*kinds, *(optional or {}))}
        present = builder.info.features
        names = {column: name for column, name in features.items() if name in present or column in kinds}
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
    found = find_folder(data_dir, Layout((hub.folder_name,), _holds_parquet))
    if found.path:
        return Parquet(found.path)
    if source == "parquet":
        raise InputError(
            "task.source=parquet needs a folder of train.parquet and test.parquet. Name it with task.data_dir=, or its "
            f"parent, if it is called {hub.folder_name}, with the environment variable LRA_DATA. {found.remark}"
        )
    return replace(hub, remark=found.remark)


def _holds_parquet(folder: Path) -> bool:
    return any((folder / f"{part}.parquet").exists() for part in RAW_PARTS)
