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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from lra.errors import InputError, check_choice, check_integer
from lra.tasks import PARTS, Part, Split, archive
from lra.tasks.cached import CachedTask
from lra.tasks.checks import check_rows, check_text
from lra.tasks.examples import byte_ids, hash_key, limit, pack
from lra.tasks.sources import fingerprint, raw_folder, read_parquet, unreadable

ROWS: dict[Part, int] = {"train": 147_086, "val": 18_090, "test": 17_437}
FILES: dict[Part, str] = {"train": "train", "val": "eval", "test": "test"}
RELEASED_BYTES = 10_000  # LRA cuts every text to this before anything else
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
        data_dir: folder of the released files, or of `papers.parquet` and `pairs.{train,eval,test}.tsv`. None for
            `$LRA_DATA/aan` if there is one, else the released files are downloaded.
        text: "raw" for the released texts as they are, "decoded" for what they print; no effect on the other set.
        max_length: bytes kept of a text.
        num_train: at most so many training pairs, chosen by the hash of their ids; None for all.
        num_val: the same for validation.
        num_test: the same for test.

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
    ) -> None:
        super().__init__(cache_dir=cache_dir, limits={"train": num_train, "val": num_val, "test": num_test})
        check_choice("task.text", text, ("raw", "decoded"))
        check_integer("task.max_length", max_length, 1, RELEASED_BYTES)
        self.folder = raw_folder(data_dir, "aan")
        self.text = text
        self.max_len = max_length

    def _specification(self) -> dict[str, Any]:
        if self.folder is None:
            names = [f"new_aan_pairs.{name}.tsv" for name in FILES.values()]
            self.folder = archive.released("tsv_data", names, cache_dir=self.cache_dir)
        mini = self._is_mini()
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
        return self.folder / f"{'pairs' if self._is_mini() else 'new_aan_pairs'}.{FILES[part]}.tsv"

    def _build(self) -> Iterator[tuple[Part, Split]]:
        papers = self._papers() if self._is_mini() else None
        for part in PARTS:
            # The file is read twice, so that memory holds only the numbers of the chosen rows and their tokens.
            labels, keys = [], []
            for pair in self._pairs(part, papers):
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
        pairs = tqdm(self._pairs(part, papers), f"encoding {part}", len(is_kept), unit="pair", delay=2, leave=False)
        for keep, pair in zip(is_kept, pairs, strict=True):
            if keep:
                for text in pair.texts:
                    yield byte_ids(self._read_text(text, pair.where) if papers is None else text)[: self.max_len]

    def _pairs(self, part: Part, papers: dict[bytes, bytes] | None) -> Iterator[Pair]:
        """Read a file; the texts of released pairs are not decoded yet."""
        path = self._path(part)
        columns = ("label", "id", "id", "text", "text") if papers is None else ("label", "id", "id")
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    where = f"{path}, line {number}"
                    label, *fields = line.rstrip(b"\r\n").split(b"\t")
                    # The number of released rows is checked; a cut last line of the other set shows only here.
                    cut = papers is not None and not line.endswith(b"\n")
                    if cut or len(fields) != len(columns) - 1:
                        raise InputError(
                            f"{where}: expected {', '.join(columns)}, divided by tabs, and a line's end; found "
                            f"{len(fields) + 1} fields in {line[:60]!r}. It is another file or is cut short: get it "
                            "again."
                        )
                    if label not in LABELS:
                        raise InputError(
                            f"{where}: expected a label of 0.0 or 1.0, found {label[:60]!r}. Get the file again."
                        )
                    ids = (fields[0], fields[1])
                    if papers is None:
                        texts = (fields[2], fields[3])
                    elif unknown := [name for name in ids if name not in papers]:
                        raise InputError(
                            f"{where}: {self._path('papers')} has no paper {unknown[0]!r}. Copy both again."
                        )
                    else:
                        texts = (papers[ids[0]], papers[ids[1]])
                    yield Pair(where, LABELS[label], ids, texts)
        except OSError as error:
            raise unreadable(path, error) from error

    def _papers(self) -> dict[bytes, bytes]:
        """Return the beginnings of all papers by their ids."""
        path = self._path("papers")
        columns = read_parquet(path, ("id", "text"))
        for row, text in enumerate(columns["text"]):
            check_text(text, f"{path}, row {row}")
        return {name: text[: self.max_len] for name, text in zip(columns["id"], columns["text"], strict=True)}

    def _read_text(self, text: bytes, where: str) -> bytes:
        """Return the bytes of a released text."""
        printed = check_text(text, where)
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
