"""ListOps: the generator against its twin and LRA's statistics, the notation, the released files, the floors."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from lra.benchmarks import listops_by_recursion as twin
from lra.errors import InputError
from lra.tasks import PARTS, Split, cache
from lra.tasks.listops import generator
from lra.tasks.listops.grammar import CLOSE, MIN, VOCABULARY, Grammar, decode, encode, evaluate
from lra.tasks.listops.task import ListOps

FULL = Grammar(max_depth=10, max_args=10, operator_probability=0.25, min_length=500, max_length=2000, data_seed=0)
SMALL = Grammar(max_depth=4, max_args=5, operator_probability=0.25, min_length=15, max_length=60, data_seed=7)
SMALL_OPTIONS = {**SMALL._asdict(), "num_train": 300, "num_val": 100, "num_test": 100}


def sequences(split):
    return [split.tokens[a:b] for a, b in pairwise(split.offsets)]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """20,000 trees of the full grammar."""
    options = {"num_train": 10_000, "num_val": 500, "num_test": 9_500}
    task = ListOps(cache_dir=tmp_path_factory.mktemp("cache"), **options)
    task.prepare()
    return task


# The generator


@pytest.mark.parametrize(
    ("grammar", "num_candidates"),
    [
        (FULL, 1500),
        (SMALL, 2000),
        (SMALL._replace(data_seed=2**31 - 1), 500),
        (FULL._replace(operator_probability=1.0, max_depth=3, max_args=3, min_length=0), 300),
        (FULL._replace(operator_probability=0.0, min_length=0), 100),
        (FULL._replace(max_depth=1, min_length=0), 100),
        (SMALL._replace(max_args=2, max_depth=10, min_length=0, max_length=25), 500),
    ],
)
def test_the_compiled_generator_draws_what_plain_recursion_draws(grammar, num_candidates):
    trees = [twin.draw(grammar, candidate) for candidate in range(num_candidates)]
    kept = [tree for tree in trees if grammar.min_length < len(twin.words(tree)) < grammar.max_length]
    assert kept
    split = generator.draw(grammar, 0, num_candidates)
    assert [decode(tokens) for tokens in sequences(split)] == [" ".join(twin.words(tree)) for tree in kept]
    assert split.labels.tolist() == [twin.value(tree) for tree in kept]


def test_neither_threads_nor_blocks_nor_the_process_show_in_the_bytes(monkeypatch):
    # A change of the generator that changes these bytes must raise `ListOps.version`.
    pinned = "1478cd9842f8578bd91fe566aaa6b36690a907f2766f9dae3c53ad2b0864792d"
    assert cache.checksum(generator.generate(SMALL, 5000, num_threads=1)) == pinned
    assert cache.checksum(generator.generate(SMALL, 5000, num_threads=3)) == pinned
    one = generator.draw(SMALL, 0, 3000)
    two = [generator.draw(SMALL, 0, 1001), generator.draw(SMALL, 1001, 3000)]
    assert np.array_equal(one.tokens, np.concatenate([block.tokens for block in two]))
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from lra.tasks import cache; from lra.tasks.listops import generator as g\n"
        "from lra.tasks.listops.grammar import Grammar\n"
        f"print(cache.checksum(g.generate({SMALL!r}, 5000)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == pinned


def test_seeds_give_different_trees():
    first, second = (generator.draw(SMALL._replace(data_seed=seed), 0, 2000) for seed in (0, 1))
    assert not {bytes(s) for s in sequences(first)} & {bytes(s) for s in sequences(second)}


def test_duplicates_are_dropped_and_every_tree_is_found():
    grammar = Grammar(max_depth=2, max_args=2, operator_probability=0.5, min_length=0, max_length=100, data_seed=0)
    every_tree = 10 + 4 * 10 * 10
    split = generator.generate(grammar, every_tree)
    assert len({bytes(s) for s in sequences(split)}) == every_tree
    assert np.array_equal(split.labels, generator.evaluate_all(split.tokens, split.offsets))


def test_a_search_without_end_is_given_up(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"Only 0 different trees .* Widen min_length"):
        ListOps(cache_dir=tmp_path, max_depth=3, min_length=120).prepare()
    assert not list(tmp_path.rglob("*.arrow"))
    monkeypatch.setattr(generator, "_PATIENCE", 2**19)
    exhausted = Grammar(max_depth=2, max_args=2, operator_probability=0.5, min_length=0, max_length=100, data_seed=0)
    with pytest.raises(InputError, match="Only 410 different trees"):
        generator.generate(exhausted, 411)


def test_statistics_are_those_of_the_published_generator():
    """Against 69,000 trees of LRA's own generator; every tolerance is five standard errors of the two samples."""
    blocks = [generator.draw(FULL, first, first + 8000) for first in range(0, 240_000, 8000)]
    labels = np.concatenate([block.labels for block in blocks])
    lengths = np.concatenate([np.diff(block.offsets) for block in blocks])
    roots = np.concatenate([block.tokens[block.offsets[:-1]] for block in blocks])

    def tolerance(share, size, published_size):
        return 5 * np.sqrt(share * (1 - share) * (1 / size + 1 / published_size))

    size = len(labels)
    assert size / 240_000 == pytest.approx(0.083, abs=tolerance(0.083, 240_000, 69_000 / 0.083))
    frequencies = np.bincount(labels, minlength=10) / size
    assert frequencies[9] == pytest.approx(0.170, abs=tolerance(0.17, size, 69_000))
    assert frequencies[0] == pytest.approx(0.168, abs=tolerance(0.168, size, 69_000))
    margin = tolerance(0.09, size, 69_000)
    assert np.all((frequencies[1:9] > 0.071 - margin) & (frequencies[1:9] < 0.092 + margin))
    assert np.bincount(roots - MIN, minlength=4) / size == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / size))
    standard_error = lengths.std() * np.sqrt(1 / size + 1 / 69_000)
    assert lengths.mean() == pytest.approx(1036, abs=5 * standard_error)
    # Of a quantile: sqrt(q (1 - q)) / density, the density read off the sample.
    for quantile, published in ((0.05, 538), (0.5, 953), (0.95, 1802)):
        low, high = np.quantile(lengths, [quantile - 0.02, quantile + 0.02])
        margin = tolerance(quantile, size, 69_000) * (high - low) / 0.04
        assert np.quantile(lengths, quantile) == pytest.approx(published, abs=margin)
    assert np.mean(lengths > 1024) == pytest.approx(0.44, abs=tolerance(0.44, size, 69_000) + 0.005)  # "about"


def test_the_floors_are_those_of_the_published_generator(full):
    """Within five standard errors of the 9,500 test examples."""
    floors = full.floors()
    assert list(floors) == ["majority", "root_operator"]
    for name, published in (("majority", 0.170), ("root_operator", 0.364)):
        assert floors[name] == pytest.approx(published, abs=5 * np.sqrt(published * (1 - published) / 9_500))


def test_the_splits_are_sound(full):
    seen = set()
    for part, size in (("train", 10_000), ("val", 500), ("test", 9_500)):
        split = full.split(part)
        assert len(split.labels) == size == full.describe()["sizes"][part]
        assert split.tokens.min() == 1
        assert split.tokens.max() == CLOSE
        lengths = np.diff(split.offsets)
        assert 500 < lengths.min() <= lengths.max() < 2000 == full.max_len
        assert np.sum(split.tokens == CLOSE) == np.sum((split.tokens >= MIN) & (split.tokens < CLOSE))
        seen |= {bytes(s) for s in sequences(split)}
    assert len(seen) == 20_000


def test_targets_are_the_values_of_the_released_notation(full):
    split = full.split("val")
    for tokens, label in zip(sequences(split), split.labels, strict=True):
        tree = twin.parse(decode(tokens))
        source = twin.source(tree)
        assert evaluate(source) == twin.value(tree) == label
        assert np.array_equal(encode(source), tokens)


# The notation


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("7", 7),
        ("( ( ( [MAX 2 ) 9 ) ] )", 9),
        ("[MIN 4 3 8 ]", 3),
        ("[MED 1 2 ]", 1),
        ("[MED 9 1 4 8 ]", 6),
        ("[MED 0 9 ]", 4),
        ("[MED 5 1 3 ]", 3),
        ("[SM 9 9 9 ]", 7),
        ("( ( ( ( [SM 5 ) ( ( ( [MED 2 ) 7 ) ] ) ) 6 ) ] )", 5),
        ("[MAX [MIN 5 6 ] [SM 5 5 ] [MED 3 8 ] ]", 5),
    ],
)
def test_evaluate(source, value):
    assert evaluate(source) == value
    tokens = encode(source)
    assert generator.evaluate_all(tokens, np.array([0, len(tokens)])).tolist() == [value]
    assert decode(tokens) == " ".join(source.replace("(", "").replace(")", "").split())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "found 0"),
        ("1 2", "found 2"),
        ("]", "closes nothing"),
        ("[MAX ]", r"\[MAX without arguments"),
        ("[MAX 1 2", r"\[MAX is never closed"),
        ("[MAX 1 2 ] ]", "closes nothing"),
        ("[MAX 1 2 ] 3", "found 2"),
    ],
)
def test_malformed_expressions(source, message):
    with pytest.raises(InputError, match=message):
        evaluate(source)
    # After a sound expression, so that nothing of it may serve the malformed one.
    tokens = np.concatenate([encode("[MAX 1 2 ]"), encode(source)])
    assert generator.evaluate_all(tokens, np.array([0, 4, len(tokens)])).tolist() == [2, -1]


def test_wrong_tokens():
    with pytest.raises(InputError, match=r"unknown token 'MAX'.*\[MAX"):
        encode("( ( ( MAX 1 ) 2 ) ] )")
    with pytest.raises(InputError, match="unknown token '12'"):
        evaluate("[MAX 12 3 ]")
    with pytest.raises(InputError, match="2 opening and 1 closing"):
        evaluate("( ( [MAX 1 ) ]")
    for wrong in (0, 16):
        with pytest.raises(InputError, match=f"{wrong} is not the id"):
            decode([1, wrong])
        assert generator.evaluate_all(np.array([wrong], np.uint8), np.array([0, 1])).tolist() == [-1]


def test_the_vocabulary_is_fixed():
    assert encode("0 1 2 3 4 5 6 7 8 9 [MIN [MAX [MED [SM ]").tolist() == list(range(1, 16))
    assert ListOps.vocab_size == len(VOCABULARY) == 16


# The task


def test_without_brackets_the_lengths_are_those_before(tmp_path):
    kept = ListOps(cache_dir=tmp_path, **SMALL_OPTIONS)
    dropped = ListOps(cache_dir=tmp_path, brackets=False, **SMALL_OPTIONS)
    assert kept.prepare() != dropped.prepare()
    assert (kept.describe()["variant"], dropped.describe()["variant"]) == ("brackets", "no_brackets")
    for part in PARTS:
        assert kept.split(part).labels.tolist() == dropped.split(part).labels.tolist()
        pairs = zip(sequences(kept.split(part)), sequences(dropped.split(part)), strict=True)
        assert all(np.array_equal(tokens[tokens != CLOSE], fewer) for tokens, fewer in pairs)
    assert kept.floors() == dropped.floors()


def test_describe_says_all_and_names_no_path(tmp_path):
    task = ListOps(cache_dir=tmp_path, **SMALL_OPTIONS)
    described = task.describe()
    assert str(tmp_path) not in json.dumps(described)
    assert described["source"] == "generated"
    assert described["sizes"] == {"train": 300, "val": 100, "test": 100}
    assert described["generator"] == {**SMALL._asdict(), "num_examples": described["sizes"]}
    assert described["sha256"] == {part: cache.checksum(task.split(part)) for part in PARTS}
    other = ListOps(cache_dir=tmp_path, **{**SMALL_OPTIONS, "data_seed": 8})
    assert other.prepare() != task.prepare()
    assert other.describe()["sha256"] != described["sha256"]


def test_another_version_is_another_entry(tmp_path, monkeypatch):
    task = ListOps(cache_dir=tmp_path, **SMALL_OPTIONS)
    before = task.prepare()
    monkeypatch.setattr(ListOps, "version", ListOps.version + 1)
    assert task.prepare() != before
    assert task.describe()["version"] == ListOps.version


def test_floors_by_hand(tmp_path, monkeypatch):
    def split(rows):
        tokens = [encode(source) for source, _ in rows]
        offsets = np.cumsum([0, *map(len, tokens)])
        return Split(np.concatenate(tokens), offsets, np.array([label for _, label in rows]))

    minimum, maximum, digit = "[MIN 1 2 ]", "[MAX 1 2 ]", "3"
    splits = {
        "train": split([(minimum, 5), (minimum, 5), (minimum, 4), (maximum, 4), (maximum, 2)]),  # 4 and 5, 2 and 4 tie
        "test": split([(minimum, 5), (minimum, 4), (maximum, 2), (maximum, 4), (digit, 4)]),
    }
    task = ListOps(cache_dir=tmp_path)
    monkeypatch.setattr(task, "split", splits.get)
    assert task.floors() == {"majority": pytest.approx(3 / 5), "root_operator": pytest.approx(3 / 5)}
    splits["test"] = split([(minimum, 5), (minimum, 5), (maximum, 4), (digit, 5)])
    assert task.floors() == {"majority": pytest.approx(1 / 4), "root_operator": pytest.approx(2 / 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_depth": 0}, "max_depth must be an integer, at least 1. Got 0."),
        ({"max_args": 1}, "max_args must be"),
        ({"operator_probability": 1.5}, "operator_probability must be a number from 0 to 1"),
        ({"operator_probability": float("nan")}, "operator_probability must be a number from 0 to 1"),
        ({"min_length": -1}, "min_length must be"),
        ({"max_length": 501}, "max_length must be an integer, at least 502. Got 501."),
        ({"max_length": 600.5}, "max_length must be an integer"),
        ({"num_val": 0}, "num_val must be"),
        ({"data_seed": -1}, "data_seed must be"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ListOps(cache_dir=tmp_path, **options)


# The released files


@pytest.fixture
def released(tmp_path):
    """A folder of the three files, and the trees in them."""
    folder = tmp_path / "listops"
    folder.mkdir()
    trees = [twin.draw(SMALL, candidate) for candidate in range(60)]
    parts = {"train": trees[:40], "val": trees[40:50], "test": trees[50:]}
    for part, part_trees in parts.items():
        rows = [f"{twin.source(tree)}\t{twin.value(tree)}\n" for tree in part_trees]
        (folder / f"basic_{part}.tsv").write_text("Source\tTarget\n" + "".join(rows))
    return folder, parts


def test_released_files_are_read(released, tmp_path):
    folder, parts = released
    task = ListOps(cache_dir=tmp_path / "cache", data_dir=str(folder))
    for part, trees in parts.items():
        assert [decode(s) for s in sequences(task.split(part))] == [" ".join(twin.words(tree)) for tree in trees]
        assert task.split(part).labels.tolist() == [twin.value(tree) for tree in trees]
    described = task.describe()
    assert described["source"] == "released"
    assert described["sizes"] == {"train": 40, "val": 10, "test": 10}
    assert "generator" not in described
    assert str(tmp_path) not in json.dumps(described)


def test_columns_line_ends_and_spaces_may_differ(released, tmp_path):
    folder, _ = released
    text = "Id\tTarget\tSource\r\na\t9\t( ( ([MAX 2 )  9) ] )\r\nb\t3\t3\r\n"
    text = text.replace("([", "( [").replace("9)", "9 )")
    (folder / "basic_test.tsv").write_bytes(text.encode())
    split = ListOps(cache_dir=tmp_path / "cache", data_dir=folder).split("test")
    assert [decode(s) for s in sequences(split)] == ["[MAX 2 9 ]", "3"]
    assert split.labels.tolist() == [9, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content + b"\n",
        lambda content: content + b"\r\n\r\n",
        lambda content: content[:-1],
        lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")[:-2],
        lambda content: b"".join(b"%d\t%s\n" % (i, line) for i, line in enumerate(content.splitlines())),  # an index
    ],
)
def test_what_editors_and_spreadsheets_do_to_a_file_changes_no_example(released, tmp_path, change):
    folder, _ = released
    before = ListOps(cache_dir=tmp_path / "cache", data_dir=folder).describe()
    for path in folder.iterdir():
        path.write_bytes(change(path.read_bytes()))
    assert ListOps(cache_dir=tmp_path / "cache", data_dir=folder).describe() == before


def test_changed_files_are_another_entry(released, tmp_path):
    folder, _ = released
    task = ListOps(cache_dir=tmp_path / "cache", data_dir=folder)
    before = task.prepare()
    (folder / "basic_test.tsv").write_text("Source\tTarget\n4\t4\n")
    task = ListOps(cache_dir=tmp_path / "cache", data_dir=folder)
    assert task.prepare() != before
    assert task.describe()["sizes"]["test"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"Cannot read .*basic_val\.tsv .*basic_train\.tsv, basic_val\.tsv, basic_test\.tsv"),
        ("", r"basic_val\.tsv: no column Source"),
        ("Source\tTarget\n", r"basic_val\.tsv has no rows"),
        ("Source\tLabel\n3\t3\n", r"basic_val\.tsv: no column Target .*Label"),
        ("Text\tTarget\n3\t3\n", r"basic_val\.tsv: no column Source"),
        ("Source\tTarget\n3\t3\n4\n", r"line 3: expected a Source and a Target"),
        ("Source\tTarget\n3\t3\n( ( ( [MAX 2 ) 9 ) ] )\t2\n", r"line 3: the target is 2, .*\[MAX 2.* is 9"),
        ("Source\tTarget\n3\t10\n", r"line 2: expected a target of 0 to 9, found '10'"),
        ("Source\tTarget\n3\t-1\n", r"line 2: expected a target of 0 to 9, found '-1'"),
        ("Source\tTarget\n3\tx\n", r"line 2: expected a target of 0 to 9, found 'x'"),
        ("Source\tTarget\n[MAX 12 ]\t2\n", r"line 2: unknown token '12'"),
        ("Source\tTarget\n[TOP 1 2 ]\t2\n", r"line 2: unknown token '\[TOP'"),
        ("Source\tTarget\na 1 2 ]\t1\n", r"line 2: unknown token 'a'"),
        ("Source\tTarget\n[MAX 1 2\t2\n", r"line 2: \[MAX is never closed"),
        ("Source\tTarget\n3\t3\n\n4\t4\n", r"line 3: the line is blank"),
        ("Source,Target\n3,3\n", r"no column Source in the first line, found 'Source,Target'"),
        (b"Source\tTarget\n[MAX 1\xff 2 ]\t2\n", r"line 2: unknown token '1\ufffd'"),
        (b"Source\tTarget\n3\t3\n[MAX \xff 2 ]\t2\n", r"line 3: unknown token '\ufffd'"),
        ("S\0o\0u\0r\0c\0e\0", r"basic_val\.tsv has zero bytes: it is no text in UTF-8"),
        ("\ufeff\n", r"basic_val\.tsv: no column Source"),
        ("Source\tTarget\n[MAX " + "1 " * 1998 + "]\t1\n", r"line 2: 2000 tokens .*fewer than 2000"),
    ],
)
def test_wrong_released_files(released, tmp_path, text, message):
    folder, _ = released
    path = folder / "basic_val.tsv"
    path.unlink() if text is None else path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=message) as error:
        ListOps(cache_dir=tmp_path / "cache", data_dir=folder).prepare()
    assert len(str(error.value)) < 600
    assert not list((tmp_path / "cache").rglob("manifest.json"))
