"""Retrieval: the released files with their printed bytes, the smaller set of the same kind, and wrong files."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lra.errors import InputError
from lra.files import ROOT
from lra.tasks import PARTS, archive, retrieval
from lra.tasks.retrieval import Retrieval

AAN = ROOT.parent / "shared" / "data" / "aan"
needs_aan = pytest.mark.skipif(not AAN.is_dir(), reason=f"no data in {AAN}")

SIZES = {"train": 30, "val": 6, "test": 8}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", SIZES)
    monkeypatch.delenv("LRA_DATA", raising=False)


def paper(number: int) -> bytes:
    """Text with quotes, a tab, a line's end and letters that are not ASCII, as papers have them."""
    return f'"Paper" {number}\tdoesn\'t\nna\u00efve \u2013 end'.encode()


def row(i: int) -> list[bytes]:
    return [b"%.1f" % (i % 2), b"P%02d" % i, b"Q%02d" % i, str(paper(i)).encode(), str(paper(100 + i)).encode()]


def write_released(folder: Path, rows=None) -> Path:
    """Write the released layout; `rows` takes the place of the training rows."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for part, name in (("train", "train"), ("val", "eval"), ("test", "test")):
        made = [row(i) for i in range(first, first + SIZES[part])]
        made = rows if rows is not None and part == "train" else made
        (folder / f"new_aan_pairs.{name}.tsv").write_bytes(b"".join(b"\t".join(fields) + b"\n" for fields in made))
        first += SIZES[part]
    return folder


def write_mini(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"A{i:02d}-1" for i in range(20)]
    table = pa.table({"id": names, "text": [paper(i).decode() for i in range(20)]})
    pq.write_table(table, folder / "papers.parquet")
    first = 0
    for part, name in (("train", "train"), ("val", "eval"), ("test", "test")):
        rows = range(first, first + SIZES[part])
        pairs = [(i % 2, names[i % 20], names[(7 * i + 3 + i // 20) % 20]) for i in rows]
        first += SIZES[part]
        (folder / f"pairs.{name}.tsv").write_text("".join(f"{label}.0\t{a}\t{b}\n" for label, a, b in pairs))
    return folder


def made(tmp_path: Path, **options) -> Retrieval:
    task = Retrieval(cache_dir=tmp_path / "cache", **{"data_dir": tmp_path / "aan", **options})
    task.prepare()
    return task


def texts(split) -> list[bytes]:
    return [bytes(split.tokens[a:b] - 1) for a, b in pairwise(split.offsets)]


def test_raw_texts_keep_their_prefix_quotes_and_escapes(tmp_path):
    write_released(tmp_path / "aan")
    task = made(tmp_path)
    assert (task.vocab_size, task.max_len, task.num_inputs, task.num_classes) == (257, 4000, 2, 2)
    assert task.describe()["sizes"] == SIZES
    assert (task.describe()["source"], task.describe()["variant"]) == ("released", "raw 4000")
    train = task.split("train")
    assert texts(train) == [field for i in range(30) for field in row(i)[3:]]
    assert texts(train)[0].startswith(b"b'\"Paper\" 0\\tdoesn\\'t\\nna\\xc3")
    assert train.labels.tolist() == [i % 2 for i in range(30)]
    assert task.floors() == {"majority": 0.5}


def test_decoded_texts_are_what_was_printed(tmp_path):
    write_released(tmp_path / "aan")
    task = made(tmp_path, text="decoded")
    assert task.describe()["variant"] == "decoded 4000"
    assert texts(task.split("test")) == [text for i in range(36, 44) for text in (paper(i), paper(100 + i))]


def test_texts_are_cut_to_the_length(tmp_path):
    write_released(tmp_path / "aan")
    task = made(tmp_path, max_length=9)
    assert {len(text) for text in texts(task.split("val"))} == {9}


def test_limits_take_both_classes_and_whole_pairs_in_every_order(tmp_path):
    write_released(tmp_path / "aan")
    write_released(tmp_path / "two" / "aan", [row(i) for i in reversed(range(30))])
    options = {"num_train": 10, "num_val": 2, "num_test": 4}
    one, two = made(tmp_path, **options), made(tmp_path / "two", **options)
    assert one.describe()["sizes"] == {"train": 10, "val": 2, "test": 4}
    assert np.bincount(one.split("train").labels).tolist() == [5, 5]
    pairs, others = (
        {(a, b) for a, b in zip(t[::2], t[1::2], strict=True)}
        for t in map(texts, (one.split("train"), two.split("train")))
    )
    assert len(pairs) == 10
    assert pairs == others <= {tuple(row(i)[3:]) for i in range(30)}


def test_the_smaller_set_never_passes_for_the_released_one(tmp_path):
    write_mini(tmp_path / "aan")
    task = made(tmp_path)
    assert (task.describe()["source"], task.describe()["variant"]) == ("aan-mini", "plain 4000")
    assert texts(task.split("train"))[:4] == [paper(0), paper(3), paper(1), paper(10)]
    assert task.describe()["sizes"] == SIZES


def test_a_folder_of_both_sets_is_neither(tmp_path):
    write_released(write_mini(tmp_path / "aan"))
    with pytest.raises(InputError, match="aan holds both papers.parquet and new_aan_pairs.train.tsv, of two sets"):
        made(tmp_path)


@needs_aan
def test_the_smaller_set_itself(tmp_path):
    task = made(tmp_path, data_dir=AAN, max_length=100)
    assert task.describe()["sizes"] == {"train": 16_540, "val": 2_067, "test": 2_069}
    assert [int(task.split(part).labels.sum()) for part in PARTS] == [8_270, 1_051, 1_017]


def test_without_files_they_are_downloaded(tmp_path, monkeypatch):
    def released(folder, names, *, cache_dir):
        assert (folder, cache_dir) == ("tsv_data", tmp_path / "cache")
        assert names == [f"new_aan_pairs.{name}.tsv" for name in ("train", "eval", "test")]
        return write_released(tmp_path / "downloaded")

    monkeypatch.setattr(archive, "released", released)
    assert made(tmp_path, data_dir=None).describe()["source"] == "released"
    (tmp_path / "downloaded" / archive.ORIGIN).write_text('{"origin": "http://elsewhere/", "mirror": true}')
    assert made(tmp_path, data_dir=None).describe()["source"] == "mirror"


# Bad input


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(i) for i in range(29)], "new_aan_pairs.train.tsv has 29 rows, expected 30"),
        ([row(0), row(1)[:4]], "new_aan_pairs.train.tsv, line 2: expected label, id, id, text, text.* 4 fields"),
        ([[b"label", *row(0)[1:]]], "line 1: expected a label of 0.0 or 1.0, found b'label'"),
        ([[*row(0)[:4], b""]] * 30, "line 1: the text is empty"),
        ([[*row(0)[:4], b'"b\'say ""so""\'"']] * 30, "line 1: the text was put into quotes, as spreadsheets and"),
        ([[*row(0)[:4], b'"b""don\'t"""']] * 30, "line 1: the text was put into quotes, as spreadsheets and pandas"),
        ([[*row(0)[:4], b"caf\xe9"]] * 30, "line 1: the text is not UTF-8 .byte 0xe9 at 3"),
    ],
)
def test_a_wrong_released_file_is_named_and_nothing_is_left(tmp_path, rows, message):
    write_released(tmp_path / "aan", rows)
    with pytest.raises(InputError, match=message):
        made(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize("field", [b"plain", b"'text'", b"b'open", b"__import__('os')"])
def test_only_printed_bytes_can_be_decoded(tmp_path, field):
    write_released(tmp_path / "aan", [[*row(0)[:4], field]] * 30)
    with pytest.raises(InputError, match="line 1: expected a text as Python prints bytes.*task.text=raw"):
        made(tmp_path, text="decoded")


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-num_bytes])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: cut(f / "pairs.test.tsv", 2), "pairs.test.tsv, line 8: .*has no paper 'A[0-9]+-'"),
        (lambda f: cut(f / "pairs.test.tsv", 9), "pairs.test.tsv, line 8: expected label, id, id.*is cut short"),
        (lambda f: (f / "pairs.test.tsv").write_bytes(b""), "pairs.test.tsv has no rows"),
        (
            lambda f: (f / "pairs.eval.tsv").write_bytes(b"1.0\tA00-1\tX\n"),
            "line 1: .*papers.parquet has no paper 'X'",
        ),
        (lambda f: (f / "pairs.eval.tsv").unlink(), "Cannot read .*pairs.eval.tsv .*holds pairs.test.tsv, pairs.train"),
        (lambda f: cut(f / "papers.parquet", 30), "Cannot read .*papers.parquet"),
        (lambda f: (f / "papers.parquet").unlink(), "Cannot read .*new_aan_pairs.train.tsv .*holds pairs"),
    ],
)
def test_a_wrong_file_of_the_smaller_set_is_named(tmp_path, spoil, message):
    spoil(write_mini(tmp_path / "aan"))
    with pytest.raises(InputError, match=message):
        made(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


# As people have them


FORMS = {
    "a byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "a blank last line": lambda content: content + b"\n",
    "blank last lines": lambda content: content + b"\r\n \n\n",
    "no end of the last line": lambda content: content[:-1],
    "a header": lambda content: b"\t".join(HEADER[: content.split(b"\n")[0].count(b"\t") + 1]) + b"\n" + content,
}
HEADER = [b"label", b"id1", b"id2", b"text 1", b"text 2"]


@pytest.mark.parametrize("write", [write_released, write_mini])
@pytest.mark.parametrize("form", FORMS)
def test_what_editors_and_spreadsheets_do_to_a_file_changes_no_pair(tmp_path, write, form):
    write(tmp_path / "aan")
    before = made(tmp_path).describe()
    for path in (tmp_path / "aan").glob("*.tsv"):
        path.write_bytes(FORMS[form](path.read_bytes()))
    assert made(tmp_path).describe() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1.0\tA00-1\tA01-1\n\n0.0\tA01-1\tA02-1\n", "pairs.test.tsv, line 2: the line is blank. Remove it"),
        (b"label,id1,id2\n", "line 1: expected label, id, id, divided by tabs; found 1 fields"),
        (b"tail\tA00-1\tA01-1\n", "line 1: expected a label of 0.0 or 1.0, found b'tail'"),
        ("1.0\tA00-1\n".encode("utf-16-le"), "pairs.test.tsv has zero bytes: it is no text in UTF-8"),
        (b"1.0\tA00-1\tA01-1\n1.0\tA00-1\tA0", "line 2: .*papers.parquet has no paper 'A0'"),
    ],
)
def test_what_is_no_pair_is_named(tmp_path, content, message):
    write_mini(tmp_path / "aan")
    (tmp_path / "aan" / "pairs.test.tsv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        made(tmp_path)


def test_a_last_line_that_may_be_cut_is_named(tmp_path):
    """Where the end is missing, a part of a name may be another name, and a part of a text a text."""
    folder = write_mini(tmp_path / "aan")
    table = pq.read_table(folder / "papers.parquet")
    more = pa.table({"id": ["A13-10"], "text": ["long"]})
    pq.write_table(pa.concat_tables([table, more]), folder / "papers.parquet")
    (folder / "pairs.test.tsv").write_bytes(b"1.0\tA00-1\tA13-10")
    assert made(tmp_path).describe()["sizes"]["test"] == 1
    (folder / "pairs.test.tsv").write_bytes(b"1.0\tA00-1\tA13-1")
    with pytest.raises(InputError, match="line 1: the line has no end and may be cut short, in b'A13-1'"):
        made(tmp_path)
    write_released(tmp_path / "released")
    cut(tmp_path / "released" / "new_aan_pairs.test.tsv", 3)
    with pytest.raises(InputError, match="new_aan_pairs.test.tsv, line 8: the line has no end and may be cut short"):
        made(tmp_path, data_dir=tmp_path / "released")


def rewrite_papers(folder: Path, ids, texts) -> None:
    pq.write_table(pa.table({"id": ids, "text": texts}), folder / "papers.parquet")


def test_an_id_has_one_text(tmp_path):
    folder = write_mini(tmp_path / "aan")
    before = made(tmp_path).describe()
    columns = pq.read_table(folder / "papers.parquet").to_pydict()
    ids, texts = columns["id"], columns["text"]
    rewrite_papers(folder, [*ids, ids[4]], [*texts, texts[4]])  # twice the same says nothing else
    assert made(tmp_path).describe() == before
    rewrite_papers(folder, [*ids, ids[4]], [*texts, "another"])
    with pytest.raises(InputError, match="papers.parquet: rows 4 and 20 have the same id 'A04-1' and different texts"):
        made(tmp_path)
    # Also where they differ only beyond what is kept.
    rewrite_papers(folder, [*ids, ids[4]], [*texts, texts[4] + "!"])
    with pytest.raises(InputError, match="rows 4 and 20"):
        made(tmp_path, max_length=5)


def test_ids_may_be_numbers(tmp_path):
    folder = write_mini(tmp_path / "aan")
    before = made(tmp_path).describe()
    texts = pq.read_table(folder / "papers.parquet")["text"].to_pylist()
    rewrite_papers(folder, list(range(20)), texts)
    for path in folder.glob("*.tsv"):
        path.write_text(re.sub(r"A(\d+)-1", lambda match: str(int(match[1])), path.read_text()))
    assert made(tmp_path).describe() == before


@pytest.mark.parametrize(
    ("part", "line", "message"),
    [
        ("train", 3, "pairs.train.tsv, line 31: the pair of A02-1 and A17-1 stands in .*pairs.train.tsv, line 3 too"),
        ("test", 5, "pairs.test.tsv, line 9: the pair of A04-1 and A11-1 stands in .*pairs.train.tsv, line 5 too"),
    ],
)
@pytest.mark.parametrize("label", ["0.0", "1.0"])
def test_a_pair_of_the_smaller_set_stands_once(tmp_path, part, line, message, label):
    """Twice it would count double, contradict itself, or be trained on and tested."""
    folder = write_mini(tmp_path / "aan")
    pair = (folder / "pairs.train.tsv").read_text().splitlines()[line - 1].partition("\t")[2]
    with (folder / f"pairs.{part}.tsv").open("a") as file:
        file.write(f"{label}\t{pair}\n")
    with pytest.raises(InputError, match=message):
        made(tmp_path)


def test_what_was_published_twice_stays(tmp_path):
    write_released(tmp_path / "aan", [row(i // 2) for i in range(30)])
    assert made(tmp_path).describe()["sizes"] == SIZES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "plain"}, "task.text must be one of raw, decoded"),
        ({"max_length": 10_001}, "task.max_length must be an integer, at most 10000"),
        ({"num_val": 7}, "task.num_val=7, but the val split has 6"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, options, message):
    write_released(tmp_path / "aan")
    with pytest.raises(InputError, match=message):
        made(tmp_path, **options)
