"""Text: is a film review positive? Its bytes, one by one; two classes.

Maas et al. 2011, Large Movie Review Dataset v1.0, read byte by byte as in Long Range Arena (Tay et al. 2021,
arXiv:2011.04006): id = byte + 1, cut to `max_length`, padding 0. Nothing else is done to a text; `<br />` stays. The
lengths in use, all called "LRA Text", are 1000 (LRA's base configuration), 1024, 4000 and 4096. `symbols="characters"`
is the form of S4 (Gu et al. 2021, arXiv:2111.00396): characters and a final `<eos>`.

LRA has no validation set: it validates on test. Here a tenth of train is set apart; `validation="test"` does as LRA,
and `describe()` says so. 123 test texts are in train as well, as published. Examples are in the order of their hashes,
so every source gives the same arrays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lra.errors import check_choice, check_integer
from lra.tasks import Part, Split
from lra.tasks.cached import CachedTask
from lra.tasks.checks import check_labels, check_rows, check_text
from lra.tasks.examples import byte_ids, choose, hash_key, limit, pack
from lra.tasks.lengths import check_agreement, check_length
from lra.tasks.sources import Hub, RawPart, SourceName, choose_source

HUB = Hub("stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", folder_name="imdb")
ROWS: dict[RawPart, int] = {"train": 25_000, "test": 25_000}
NAMES = {"neg": 0, "pos": 1, "negative": 0, "positive": 1}
VALIDATION_SHARE = 10  # one example in ten
LONGEST_REVIEW = 13_704  # bytes

# S4's vocabulary: the characters that occur at least 15 times in the train texts, each text cut to 4,095 characters; in
# the order of their code points.
CHARACTERS = (
    "\t !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
    "\x84\x85\x91\x96\x97\xa1\xa3\xa8\xab\xb4\xbb\xbd\xe0\xe1\xe2\xe3\xe4\xe5\xe7\xe8\xe9\xea\xeb\xed\xef\xf1\xf3\xf4"
    "\xf6\xfa\xfc\u2013\u2019\u201c\u201d"
)
UNKNOWN, END, FIRST_CHARACTER = 1, 2, 3


class Text(CachedTask):
    """The task.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder of `train.parquet` and `test.parquet` with the columns `text` and `label`, or one that has it
            as `imdb`; with `source="tfds"`, TensorFlow Datasets' folder. None for `LRA_DATA`'s, else the hub.
        source: "auto", "parquet", "hub" or "tfds".
        symbols: "bytes" or "characters".
        max_length: symbols kept of a text, `<eos>` included.
        validation: "split" for a tenth of train, chosen by the texts' hashes; "test" for the test split.
        num_train: at most so many training examples, chosen by hash; None for all.
        num_val: the same for validation.
        num_test: the same for test.
        length: None, or the length that `at_length` made `max_length` for.

    Raises:
        InputError: an argument has another value.
    """

    name = "text"
    num_classes = 2

    def __init__(
        self,
        *,
        cache_dir: str | Path | None,
        data_dir: str | Path | None = None,
        source: SourceName = "auto",
        symbols: Literal["bytes", "characters"] = "bytes",
        max_length: int = 4000,
        validation: Literal["split", "test"] = "split",
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(cache_dir=cache_dir, limits={"train": num_train, "val": num_val, "test": num_test})
        check_choice("task.symbols", symbols, ("bytes", "characters"))
        check_choice("task.validation", validation, ("split", "test"))
        check_integer("task.max_length", max_length, 2)
        self.source = choose_source(source, data_dir, hub=HUB, tfds=("imdb_reviews", {}))
        self.remark = self.source.remark
        self.symbols = symbols
        self.validation = validation
        check_agreement(length, max_length)
        self.length = length
        self.max_len = max_length
        # 257 as published, though no byte of UTF-8 has the ids 255 and 256.
        self.vocab_size = 257 if symbols == "bytes" else FIRST_CHARACTER + len(CHARACTERS)

    @classmethod
    def at_length(cls, length: int) -> dict[str, Any]:
        """Cut reviews at this length; none is made longer than it is."""
        check_length(length, LONGEST_REVIEW, ", the longest review")
        return {"max_length": length, "length": length}

    def place(self) -> str:
        """Say where the reviews are."""
        return self.source.place()

    def _difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Return as `length` the symbols that the model reads of each test text."""
        return {"length": np.diff(self.split("test").offsets)}

    def summary(self, name: str) -> str:
        """Say in one line what was prepared, and how many reviews are as long as `length`."""
        if self.length is None:
            return super().summary(name)
        full = np.mean(np.diff(self.split("test").offsets) == self.max_len)
        return (
            f"{super().summary(name)} {100 * full:.1f} % of the test reviews have {self.max_len:,} {self.symbols} or "
            "more; the others are shorter, and stay so."
        )

    def _specification(self) -> dict[str, Any]:
        remark = ", validation is test" if self.validation == "test" else ""
        return {
            "task": self.name,
            "version": self.version,
            "source": self.source.name,
            "variant": f"{self.symbols} {self.max_len}{remark}",
            "validation": self.validation,
            "limits": self.limits,
            **self.source.specification(),
        }

    def _build(self) -> Iterator[tuple[Part, Split]]:
        train, test = self._read("train"), self._read("test")
        if self.validation == "test":
            val = test
        else:
            held_out = choose(train.keys, train.labels, len(train.labels) // VALIDATION_SHARE)
            train, val = train.take(~held_out), train.take(held_out)
        parts: dict[Part, _Rows] = {"train": train, "val": val, "test": test}
        for part, rows in parts.items():
            limited = rows.take(limit(rows.keys, rows.labels, part, self.limits[part]))
            texts = tqdm(limited.texts, desc=f"encoding {part}", unit="text", delay=2, leave=False)
            yield part, pack(map(self._encode, texts), limited.labels)

    def _read(self, part: RawPart) -> _Rows:
        where = self.source.where(part)
        columns = self.source.read(part, {"text": "text", "label": "label"})
        texts = [check_text(text, f"{where}, row {row}") for row, text in enumerate(columns["text"])]
        labels = check_labels(columns["label"], self.num_classes, where, NAMES)
        check_rows(len(texts), ROWS[part], where)
        keys = np.array([hash_key(text) for text in columns["text"]], np.uint64)
        order = np.lexsort((labels, keys))
        return _Rows(texts, keys, labels).take(order)

    def _encode(self, text: str) -> bytes:
        if self.symbols == "bytes":
            return byte_ids(text[: self.max_len].encode()[: self.max_len])
        return encode_characters(text, self.max_len)


class _Rows(NamedTuple):
    texts: list[str]
    keys: NDArray[np.uint64]
    labels: NDArray[np.int64]

    def take(self, index: NDArray[Any]) -> _Rows:
        """Select by a mask or by row numbers."""
        rows = np.arange(len(self.texts))[index]
        return _Rows([self.texts[row] for row in rows], self.keys[rows], self.labels[rows])


def encode_characters(text: str, max_length: int) -> bytes:
    """Return the ids of a text's first `max_length - 1` characters and of `<eos>`."""
    return (text[: max_length - 1].translate(_CHARACTER_IDS) + chr(END)).encode("latin-1")


_CHARACTER_IDS = defaultdict(
    lambda: chr(UNKNOWN), {ord(character): chr(i) for i, character in enumerate(CHARACTERS, FIRST_CHARACTER)}
)
