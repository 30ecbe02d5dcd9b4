"""Retrieval: does one paper cite the other? The bytes of two papers; two classes.

Pairs of the ACL Anthology Network (Radev et al. 2013) as in Long Range Arena (Tay et al. 2021, arXiv:2011.04006): the
first 10,000 bytes of each text, id = byte + 1, cut to `max_length`, padding 0; the model sees the two one by one.

The released `new_aan_pairs.*.tsv` hold each text as Python prints bytes, `b'...'`. LRA and what followed it feed that
print as it is, with its `\\n` and `\\xe2` spelt out; `text="decoded"` undoes it. A folder with `papers.parquet` and
`pairs.*.tsv` is another, smaller set of the same kind: its source is `aan-mini`, and its numbers must not be compared
with published ones.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError, check_choice, check_integer
from lra.tasks import PARTS, Part, Split, archive
from lra.tasks.cached import CachedTask
from lra.tasks.checks import check_rows, check_text
from lra.tasks.columns import read_parquet
from lra.tasks.examples import byte_ids, hash_key, limit, pack
from lra.tasks.lengths import check_agreement, check_length
from lra.tasks.raw_files import Layout, find_folder, fingerprint
from lra.tasks.tsv import read_rows

ROWS: dict[Part, int] = {"train": 147_086, "val": 18_090, "test": 17_437}
FILES: dict[Part, str] = {"train": "train", "val": "eval", "test": "test"}
RELEASED_BYTES = 10_000  # LRA cuts every text to this before anything else
_COLUMN_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_ ]{0,20}")
LABELS = {b"0.0": 0, b"1.0": 1, b"0": 0, b"1": 1}


class Pair(NamedTuple):
    """A row: file and line, label, the ids of the papers, and their texts."""

    where: str
    label: int
    ids: tuple[bytes, bytes]
    texts: tuple[bytes, bytes]


class Retrieval(CachedTask):
    """The task.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder of the released files, or of `papers.parquet` and `pairs.{train,eval,test}.tsv`, or one that
            has such a folder as `aan` or, as the release does, `tsv_data`. None for `LRA_DATA`'s, else the released
            files are downloaded.
        text: "raw" for the released texts as they are, "decoded" for what they print; no effect on the other set.
        max_length: bytes kept of a text.
        num_train: at most so many training pairs, chosen by the hash of their ids; None for all.
        num_val: the same for validation.
        num_test: the same for test.
        length: None, or the length that `at_length` made `max_length` for.

    Raises:
        InputError: an argument has another value.
    """

    name = "retrieval"
    num_classes = 2
    num_inputs = 2
    vocab_size = 257  # as published, though no byte of UTF-8 has the ids 255 and 256

    def __init__(
        self,
        *,
        cache_dir: str | Path | None,
        data_dir: str | Path | None = None,
        text: Literal["raw", "decoded"] = "raw",
        max_length: int = 4000,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(cache_dir=cache_dir, limits={"train": num_train, "val": num_val, "test": num_test})
        check_choice("task.text", text, ("raw", "decoded"))
        check_integer("task.max_length", max_length, 1, RELEASED_BYTES)
        check_agreement(length, max_length)
        self.folder, self.remark = find_folder(data_dir, Layout(("aan", "tsv_data"), _holds_pairs))
        self.text = text
        self.max_len = max_length

    @classmethod
    def at_length(cls, length: int) -> dict[str, Any]:
        """Cut each of the two texts at this length."""
        check_length(length, RELEASED_BYTES, ", to which the texts were cut before their release")
        return {"max_length": length, "length": length}

    def place(self) -> str:
        """Say where the files are."""
        return f"in {self.folder}"

    def _difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Return as `length` the bytes that the model reads of the longer text of each test pair."""
        return {"length": np.diff(self.split("test").offsets).reshape(-1, self.num_inputs).max(1)}

    def _specification(self) -> dict[str, Any]:
        if self.folder is None:
            names = [f"new_aan_pairs.{name}.tsv" for name in FILES.values()]
            self.folder = archive.released("tsv_data", names, cache_dir=self.cache_dir)
        mini = self._is_mini()
        if mini and self._released("train").exists():
            raise InputError(
                f"{self.folder} holds both {self._path('papers').name} and {self._released('train').name}, of two "
                "sets. Name a folder of the one that is meant with task.data_dir=."
            )
        paths = [self._path(part) for part in PARTS]
        origin = archive.origin(self.folder)
        return {
            "task": self.name,
            "version": self.version,
            "source": "aan-mini" if mini else "mirror" if origin.get("mirror") else "released",
            "variant": f"{'plain' if mini else self.text} {self.max_len}",
            "limits": self.limits,
            "files": fingerprint([*paths, self._path("papers")] if mini else paths),
        }

    def _is_mini(self) -> bool:
        assert self.folder is not None
        return (self.folder / "papers.parquet").is_file()

    def _path(self, part: Part | Literal["papers"]) -> Path:
        assert self.folder is not None
        if part == "papers":
            return self.folder / "papers.parquet"
        return self.folder / f"pairs.{FILES[part]}.tsv" if self._is_mini() else self._released(part)

    def _released(self, part: Part) -> Path:
        assert self.folder is not None
        return self.folder / f"new_aan_pairs.{FILES[part]}.tsv"

    def _build(self) -> Iterator[tuple[Part, Split]]:
        papers = self._papers() if self._is_mini() else None
        seen: dict[tuple[bytes, bytes], str] = {}
        for part in PARTS:
            # The file is read twice, so that memory holds only the numbers of the chosen rows and their tokens.
            labels, keys = [], []
            for pair in self._pairs(part, papers):
                if papers is not None:
                    _check_new(pair, seen)
                labels.append(pair.label)
                keys.append(hash_key(b"\t".join(pair.ids)))
            if papers is None:
                check_rows(len(labels), ROWS[part], str(self._path(part)))
            elif not labels:
                raise InputError(f"{self._path(part)} has no rows. Copy it again.")
            all_labels = np.array(labels, np.int64)
            is_kept = limit(np.array(keys, np.uint64), all_labels, part, self.limits[part])
            yield part, pack(self._sequences(part, papers, is_kept), all_labels[is_kept])

    def _sequences(self, part: Part, papers: dict[bytes, bytes] | None, is_kept: np.ndarray) -> Iterator[bytes]:
        for keep, pair in zip(is_kept, self._pairs(part, papers), strict=True):
            if keep:
                for text in pair.texts:
                    yield byte_ids(self._read_text(text, pair.where) if papers is None else text)[: self.max_len]

    def _pairs(self, part: Part, papers: dict[bytes, bytes] | None) -> Iterator[Pair]:
        """Read a file; the texts of released pairs are not decoded yet."""
        path = self._path(part)
        columns = ("label", "id", "id", "text", "text") if papers is None else ("label", "id", "id")
        for row in read_rows(path):
            where = f"{path}, line {row.number}"
            if row.number == 1 and _is_header(row.fields, papers):
                continue
            if len(row.fields) != len(columns):
                raise InputError(
                    f"{where}: expected {', '.join(columns)}, divided by tabs; found {len(row.fields)} fields, "
                    f"the last {row.fields[-1][:60]!r}. It is another file or is cut short: get it again."
                )
            label, *fields = row.fields
            if label not in LABELS:
                raise InputError(f"{where}: expected a label of 0.0 or 1.0, found {label[:60]!r}. Get the file again.")
            ids = (fields[0], fields[1])
            if papers is not None:
                self._check_papers(ids, papers, where)
            if not row.is_ended and _may_be_cut(fields, papers):
                raise InputError(
                    f"{where}: the line has no end and may be cut short, in {fields[-1][-60:]!r}. End it, or get the "
                    "file again."
                )
            texts = (fields[2], fields[3]) if papers is None else (papers[ids[0]], papers[ids[1]])
            yield Pair(where, LABELS[label], ids, texts)

    def _check_papers(self, ids: tuple[bytes, bytes], papers: dict[bytes, bytes], where: str) -> None:
        if unknown := [name for name in ids if name not in papers]:
            raise InputError(
                f"{where}: {self._path('papers')} has no paper {unknown[0].decode(errors='replace')!r}. The files must "
                "be of one set: copy both again."
            )

    def _papers(self) -> dict[bytes, bytes]:
        """Return the beginnings of all papers by their ids.

        Raises:
            InputError: a text is no text, or an id has two of them.
        """
        path = self._path("papers")
        columns = read_parquet(path, {"id": "id", "text": "text"})
        rows: dict[bytes, int] = {}
        for row, (name, text) in enumerate(zip(columns["id"], columns["text"], strict=True)):
            check_text(text, f"{path}, row {row}")
            first = rows.setdefault(name, row)
            if columns["text"][first] != text:
                raise InputError(
                    f"{path}: rows {first} and {row} have the same id {name.decode(errors='replace')!r} and different "
                    "texts. Keep the right one."
                )
        return {name: columns["text"][row][: self.max_len] for name, row in rows.items()}

    def _read_text(self, text: bytes, where: str) -> bytes:
        """Return the bytes of a released text."""
        printed = check_text(text, where)
        if printed.startswith(("\"b'", '"b""')):
            raise InputError(
                f"{where}: the text was put into quotes, as spreadsheets and pandas do, and is not as published: "
                f"{printed[:60]!r}. Use the released files, or write the texts without quoting."
            )
        if self.text == "raw":
            return text
        try:
            decoded = ast.literal_eval(printed)
        except (ValueError, SyntaxError):
            decoded = None
        if not isinstance(decoded, bytes):
            raise InputError(
                f"{where}: expected a text as Python prints bytes, b'...', found {printed[:60]!r}. Use task.text=raw, "
                "or the released files."
            )
        check_text(decoded, where)
        return decoded


def _holds_pairs(folder: Path) -> bool:
    names = ("papers.parquet", *(f"new_aan_pairs.{name}.tsv" for name in FILES.values()))
    return any((folder / name).exists() for name in names)


def _is_header(fields: list[bytes], papers: dict[bytes, bytes] | None) -> bool:
    """Say whether a first line names the columns: words, of which none is a label or a paper's id."""
    return all(
        _COLUMN_NAME.fullmatch(field) and field not in LABELS and field not in (papers or {}) for field in fields
    )


def _may_be_cut(fields: list[bytes], papers: dict[bytes, bytes] | None) -> bool:
    """Say whether a last line without an end may be less than it was: its last text or its last id may go on."""
    last = fields[-1]
    if papers is None:
        return last[-1:] not in (b"'", b'"')
    return any(name != last and name.startswith(last) for name in papers)


def _check_new(pair: Pair, seen: dict[tuple[bytes, bytes], str]) -> None:
    """Raise InputError for a pair that stands twice in the smaller set's files, which have each once.

    Of the released files that is not known, and what was published stays as it is.
    """
    earlier = seen.setdefault(pair.ids, pair.where)
    if earlier != pair.where:
        names = " and ".join(name.decode(errors="replace") for name in pair.ids)
        raise InputError(
            f"{pair.where}: the pair of {names} stands in {earlier} too. Each pair must stand once in the three files: "
            "twice it would count double, or be trained on and tested. Remove one."
        )
