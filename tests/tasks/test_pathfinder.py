"""Pathfinder: shapes against Pillow, the generator against its twin and published figures, folders, splits, errors."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from lra.errors import InputError
from lra.tasks import PARTS, cache
from lra.tasks.pathfinder import generator, store
from lra.tasks.pathfinder.raster import draw_marker, draw_paddle
from lra.tasks.pathfinder.stimulus import CONTOUR_LENGTHS, RESOLUTIONS, shapes, stimulus
from lra.tasks.pathfinder.task import DIFFICULTIES, Pathfinder
from tests.twins import pathfinder as twin

SMALL = {"resolution": 16, "difficulty": "easy", "num_train": 300, "num_val": 100, "num_test": 100}

# The shapes


def pillow_reduce(fine, size):
    return np.asarray(Image.fromarray(fine).resize((size, size), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_a_paddle_is_what_pillow_draws(resolution):
    s = stimulus(resolution, "hard")
    for margin in s.margins:
        half = s.paddle_length + -(-s.line_width // 2) + margin
        y, x = np.ogrid[-2 * margin : 2 * margin + 1, -2 * margin : 2 * margin + 1]
        disc = np.argwhere(x**2 + y**2 <= (2 * margin) ** 2) - 2 * margin
        for end_y, end_x in sorted({tuple(end) for end in shapes(s, margin).line_ends.tolist()}):
            canvas = Image.new("L", (4 * half + 1, 4 * half + 1))
            ends = [(2 * half, 2 * half), (2 * half + end_x, 2 * half + end_y)]
            ImageDraw.Draw(canvas).line(ends, fill=255, width=s.line_width)
            fine = np.asarray(canvas)
            grown = np.max([np.roll(fine, shift, (0, 1)) for shift in disc], axis=0)
            line, mask = draw_paddle((end_y, end_x), s.line_width, margin, half)
            assert np.array_equal(line, pillow_reduce(fine, 2 * half + 1))
            assert np.array_equal(mask, pillow_reduce(grown, 2 * half + 1))


@pytest.mark.parametrize("radius", [1.5, 2.5, 3, 5])
def test_a_marker_is_what_pillow_draws(radius):
    size, centre = 41, 20
    y, x = np.ogrid[: 2 * size, : 2 * size]
    fine = np.where((x - 2 * centre) ** 2 + (y - 2 * centre) ** 2 <= (2 * radius) ** 2, 255, 0).astype(np.uint8)
    assert np.array_equal(twin.put(size, draw_marker(radius), (centre, centre)), pillow_reduce(fine, size))


def test_parameters_are_those_of_lra():
    lengths = [[stimulus(r, d).contour_length for d in DIFFICULTIES] for r in RESOLUTIONS]
    assert lengths == [[3, 4, 7], *[[6, 9, 14]] * 4]
    # Four for 14, and so 20 // 4, 22 // 4, 35 // 4 and 30 // 4 distractors.
    assert [stimulus(r, "hard").distractor_length for r in RESOLUTIONS[1:]] == [4, 4, 4, 4]
    assert [stimulus(r, "hard").num_distractors for r in RESOLUTIONS[1:]] == [5, 5, 8, 7]
    for resolution, difficulty in ((16, "easy"), (256, "hard")):  # where a paddle may lie is asserted on the way
        assert shapes(stimulus(resolution, difficulty), stimulus(resolution, difficulty).margins[0])


# The generator


@pytest.mark.parametrize(
    ("resolution", "difficulty", "num_images"),
    [(16, "easy", 6), (16, "intermediate", 2), (32, "easy", 3), (64, "easy", 1), (128, "easy", 2)],
)
def test_the_compiled_generator_draws_what_whole_squares_draw(resolution, difficulty, num_images):
    images, labels = generator.draw(resolution, difficulty, 3, 0, num_images)
    kind = resolution * 3 + list(CONTOUR_LENGTHS).index(difficulty)
    for number in range(num_images):
        image, label = twin.draw(stimulus(resolution, difficulty), twin.Stream(3, kind, number))
        assert np.array_equal(images[number].reshape(image.shape), image)
        assert labels[number] == label


def test_neither_threads_nor_blocks_show_in_the_bytes(tmp_path, monkeypatch):
    # A change of the generator that changes these bytes must raise `Pathfinder.version`.
    pinned = "a393682f0f55d14d9deeae1a6c1506e732252e85c1f8ff3648bc99ac77f48cf4"
    monkeypatch.setattr(store, "_BLOCK_BYTES", 20 * 32**2)
    one, two = (
        store.Store(tmp_path / str(threads), 32, "easy", 7, 150).fill(num_threads=threads) for threads in (1, 2)
    )
    for images, labels in (one, two):
        assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == pinned
    alone, labels = generator.draw(32, "easy", 7, 61, 93)
    assert np.array_equal(alone, one[0][61:93])
    assert np.array_equal(labels, one[1][61:93])


def test_seeds_difficulties_and_resolutions_have_streams_of_their_own():
    seeds = {
        generator.stream_seed(seed, resolution, difficulty)
        for seed in range(20)
        for resolution in RESOLUTIONS
        for difficulty in DIFFICULTIES
    }
    assert len(seeds) == 20 * len(RESOLUTIONS) * len(DIFFICULTIES)
    images = [generator.draw(16, "easy", seed, 0, 100)[0] for seed in (0, 1)]
    assert len(np.unique(np.concatenate(images), axis=0)) == 200


@pytest.mark.parametrize(("resolution", "difficulty"), [(16, "easy"), (32, "easy"), (32, "hard"), (128, "easy")])
def test_the_label_says_whether_the_marked_ends_are_on_one_contour(resolution, difficulty):
    labels, ambiguous = [], 0
    for number in range(40):
        g = generator.geometry(resolution, difficulty, 0, number)
        labels.append(g.label)
        (begun, ended), (first, last) = g.marked, g.markers
        assert np.array_equal(first, g.contours[begun, 0, 0])
        assert np.array_equal(last, g.contours[ended, -1, 1])
        assert (begun == ended) == bool(g.label)
        assert not np.array_equal(first, g.contours[1 - begun, 0, 0])
        ambiguous += np.array_equal(last, g.contours[1 - ended, -1, 1])
        # Each contour is one: from paddle to paddle the gap is twice the margin, up to rounding to pixels.
        gaps = np.linalg.norm(g.contours[:, 1:, 0] - g.contours[:, :-1, 1], axis=-1)
        assert gaps.max() <= 2 * g.margin + 3
        # And it is in the image: at the middle of every paddle there is light.
        middles = np.rint(g.contours.mean(2)).astype(int).reshape(-1, 2)
        assert all(g.image[y - 1 : y + 2, x - 1 : x + 2].max() > 20 for y, x in middles)
        assert all(g.image[y, x] > 80 for y, x in g.markers)
    assert 0 < sum(labels) < 40
    assert ambiguous <= 2
    assert labels == generator.draw(resolution, difficulty, 0, 0, 40)[1].tolist()


@pytest.mark.parametrize(
    ("resolution", "num_images", "published", "rounding"), [(32, 600, 0.65, 0.01), (128, 60, 0.87, 0.01)]
)
def test_zero_pixels_are_as_many_as_in_published_images(resolution, num_images, published, rounding):
    """Within five standard errors of the sample and the last place of the published figure."""
    images, _ = generator.draw(resolution, "hard", 0, 0, num_images)
    shares = (images == 0).mean(1)
    assert shares.mean() == pytest.approx(published, abs=5 * shares.std() / np.sqrt(num_images) + rounding)
    assert np.all(images.min(1) == 0)
    assert np.all(images.max(1) == 255)


def test_labels_are_fair_and_no_pixel_gives_them_away():
    images, labels = generator.draw(16, "easy", 0, 0, 6000)
    assert labels.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(6000))
    total = images.sum(1, dtype=np.int64)
    assert np.corrcoef(total, labels)[0, 1] == pytest.approx(0, abs=5 / np.sqrt(6000))


# The task, generated


def test_generated_data(tmp_path):
    task = Pathfinder(cache_dir=tmp_path, **SMALL)
    described = task.describe()
    assert (described["source"], described["variant"]) == ("generated", "16-easy-canonical")
    assert (described["resolution"], described["difficulty"]) == (16, "easy")
    assert described["sizes"] == {"train": 300, "val": 100, "test": 100}
    assert described["sha256"] == {part: cache.checksum(task.split(part)) for part in PARTS}
    assert str(tmp_path) not in json.dumps(described)
    images, labels = generator.draw(16, "easy", 0, 0, 500)
    for part, first, last in (("train", 0, 300), ("val", 300, 400), ("test", 400, 500)):
        split = task.split(part)
        assert np.array_equal(split.tokens.reshape(-1, 256), images[first:last])
        assert np.array_equal(split.labels, labels[first:last])
        assert np.array_equal(split.offsets, np.arange(last - first + 1) * 256)
    majority = np.bincount(task.split("train").labels).argmax()
    assert task.floors() == {"majority": np.mean(task.split("test").labels == majority)}
    assert not list(tmp_path.rglob("*unfinished*"))
    assert Pathfinder(cache_dir=tmp_path, **SMALL, data_seed=1).prepare() != task.prepare()


def test_a_generation_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_BLOCK_BYTES", 50 * 256)
    whole = Pathfinder(cache_dir=tmp_path / "whole", **SMALL).describe()["sha256"]
    drawn = []

    def draw(resolution, difficulty, data_seed, first, last):
        if len(drawn) == 6:
            raise KeyboardInterrupt
        if last - first > 1:
            drawn.append(first)
        return generator.draw(resolution, difficulty, data_seed, first, last)

    monkeypatch.setattr(store, "draw", draw)
    monkeypatch.setattr(store.os, "sched_getaffinity", lambda _: {0})
    task = Pathfinder(cache_dir=tmp_path / "cut", **SMALL)
    with pytest.raises(KeyboardInterrupt):
        task.prepare()
    (folder,) = (tmp_path / "cut").rglob("*.unfinished")
    with (folder / "pixels").open("r+b") as file:  # as if the first block was half written
        file.write(bytes([1, 2, 3]))
    before = set(drawn)
    drawn[:] = []
    monkeypatch.setattr(store, "draw", lambda *a: drawn.append(a[3]) or generator.draw(*a))
    assert task.describe()["sha256"] == whole
    assert len(before) == 6
    assert 0 in drawn
    assert len(set(drawn)) <= 10 - len(before) + 2
    assert not folder.exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="choose another"):
        Pathfinder(cache_dir=tmp_path / "cache", **SMALL).prepare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "resolution must be one of 16, 32, 64, 128, 256. Got 48."),
        ({"resolution": "32"}, "resolution must be one of"),
        ({"difficulty": "harder"}, "difficulty must be one of easy, intermediate, hard. Got 'harder'."),
        ({"split": "mega"}, "split must be one of canonical, lra, s4. Got 'mega'."),
        ({"split": "mlpen"}, "split of mlpen cannot be made again: its code shuffled the images without a seed"),
        ({"split": "s4"}, "task.split=s4 divides the released images. Set task.data_dir"),
        ({"num_val": 0}, "num_val must be an integer, at least 1. Got 0."),
        ({"data_seed": -1}, "data_seed must be"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        Pathfinder(cache_dir=tmp_path, **options)


# The released folders


def metadata_row(folder, n, label):
    return [folder, f"sample_{n}.png", str(n), str(label), "1.0", "14", "4", "2", "0.5", "1", "1"]


@pytest.fixture
def released(tmp_path):
    """The archive's layout: 40 images in batches 1, 2 and 10; the metadata of 10 are NumPy's, others text."""
    condition = tmp_path / "data" / "pathfinder32" / "curv_contour_length_14"
    (condition / "metadata").mkdir(parents=True)
    images, labels = generator.draw(32, "easy", 0, 0, 40)
    known = {}
    for batch, first, last in ((1, 0, 15), (2, 15, 30), (10, 30, 40)):
        folder = condition / "imgs" / str(batch)
        folder.mkdir(parents=True)
        rows = []
        for n in range(first, last):
            Image.fromarray(images[n].reshape(32, 32)).save(folder / f"sample_{n - first}.png")
            rows.append(metadata_row(f"imgs/{batch}", n - first, labels[n]))
            known[images[n].tobytes()] = (labels[n], n)
        path = condition / "metadata" / f"{batch}.npy"
        if batch == 10:
            np.save(path, np.array(rows))
        else:
            path.write_text("".join(" ".join(row) + "\n" for row in rows))
    return condition, known


def numbers(task, part, known):
    """The numbers of a split's images, whose labels are checked on the way."""
    split = task.split(part)
    found = [known[image.tobytes()] for image in split.tokens.reshape(-1, 1024)]
    assert [label for label, _ in found] == split.labels.tolist()
    return [n for _, n in found]


def names(n):
    batch, first = (1, 0) if n < 15 else (2, 15) if n < 30 else (10, 30)
    return f"imgs/{batch}", f"sample_{n - first}.png", n - first + 1


def test_released_images_are_read_and_divided(released, tmp_path):
    condition, known = released
    orders = {
        "canonical": sorted(range(40), key=lambda n: hashlib.sha256("/".join(names(n)[:2]).encode()).hexdigest()),
        "lra": sorted(
            range(40), key=lambda n: int(hashlib.md5(b"hard" + "_".join(map(str, names(n))).encode()).hexdigest(), 16)
        ),
        "s4": torch.randperm(40, generator=torch.Generator().manual_seed(42)).tolist(),
    }
    seen = set()
    for division, order in orders.items():
        task = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent.parent, split=division)
        parts = {part: numbers(task, part, known) for part in PARTS}
        assert parts == {"train": order[:32], "val": order[32:36], "test": order[36:]}
        described = task.describe()
        assert described["source"] == "released"
        assert described["variant"] == f"32-hard-{division}"
        text = "".join("/".join(names(n)[:2]) + "\n" for n in parts["test"])
        assert described["split_sha256"]["test"] == hashlib.sha256(text.encode()).hexdigest()
        assert described["released"]["images"] == 40
        assert str(tmp_path) not in json.dumps(described)
        seen.add(json.dumps(described["split_sha256"]))
    assert len(seen) == 3
    # The folder of the resolution itself serves too, and is the same data.
    direct = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent)
    outer = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent.parent)
    assert direct.describe() == outer.describe()


def test_of_two_trees_the_inner_one_is_read(released, tmp_path):
    condition, _ = released
    outer = tmp_path / "archive" / "lra_release"
    inner = outer / "lra_release"
    inner.mkdir(parents=True)
    condition.parent.rename(inner / "pathfinder32")
    (outer / "pathfinder32" / condition.name).mkdir(parents=True)
    for data_dir in (outer.parent, outer, inner):
        task = Pathfinder(cache_dir=tmp_path / "cache", data_dir=data_dir)
        assert task.describe()["released"]["images"] == 40


def test_an_empty_file_is_skipped_and_said(released, tmp_path, caplog):
    condition, known = released
    (condition / "imgs" / "1" / "sample_3.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        task = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent)
        found = [n for part in PARTS for n in numbers(task, part, known)]
    assert sorted(found) == [n for n in range(40) if n != 3]
    assert "sample_3.png, which is empty" in caplog.text


def test_bytes_as_an_old_python_wrote_them(released, tmp_path):
    condition, known = released
    path = condition / "metadata" / "10.npy"
    np.save(path, np.load(path).astype("S"))
    task = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent)
    assert len([n for part in PARTS for n in numbers(task, part, known)]) == 40


def test_changed_files_are_another_entry(released, tmp_path):
    condition, _ = released
    before = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent).prepare()
    path = condition / "metadata" / "1.npy"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    assert Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent).prepare() != before


@pytest.mark.parametrize(
    ("batch", "row", "message"),
    [
        ("1", "imgs/1 sample_3.png 3 {label} 1.0", "1.npy, row 16: imgs/1/sample_3.png is named in .*1.npy, row 4 too"),
        ("2", "imgs/1 sample_3.png 3 {label} 1.0", "2.npy, row 16: imgs/1/sample_3.png is named in .*1.npy, row 4 too"),
        ("2", "./imgs//1/ sample_3.png 3 {label} 1.0", "2.npy, row 16: .*sample_3.png is named in .*1.npy, row 4 too"),
    ],
)
@pytest.mark.parametrize("label", [0, 1])
def test_an_image_is_named_once(released, tmp_path, batch, row, message, label):
    """Whether its labels agree or not: no released metadata do so, and a division rests on the numbers of the rows."""
    condition, _ = released
    with (condition / "metadata" / f"{batch}.npy").open("a") as file:
        file.write(row.format(label=label) + "\n")
    with pytest.raises(InputError, match=message):
        Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent).prepare()


def test_a_lost_metadata_file_is_said(released, tmp_path, caplog):
    condition, _ = released
    (condition / "metadata" / "2.npy").unlink()
    with caplog.at_level(logging.WARNING):
        task = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent)
        assert task.describe()["released"]["images"] == 25
    assert f"Left out the images of {condition / 'imgs' / '2'}, which no metadata name" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content + b"\n \n",
        lambda content: content[:-1],
    ],
)
def test_what_editors_do_to_metadata_changes_no_image(released, tmp_path, change):
    condition, _ = released
    before = Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent).describe()
    for name in ("1.npy", "2.npy"):
        path = condition / "metadata" / name
        path.write_bytes(change(path.read_bytes()))
    assert Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent).describe() == before


def replace_row(condition, **columns):
    """Alter row 2 of batch 1."""
    path = condition / "metadata" / "1.npy"
    lines = path.read_text().splitlines()
    row = lines[1].split()
    for name, value in columns.items():
        row[["folder", "file", "number", "label"].index(name)] = value
    path.write_text("\n".join([lines[0], " ".join(row), *lines[2:]]) + "\n")


def wrong_image(mode, size):
    return lambda c: Image.new(mode, size).save(c / "imgs" / "2" / "sample_1.png")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda c: c.rename(c.with_name("other")),
            r"No folder pathfinder32/curv_contour_length_14 in .* task.data_dir",
        ),
        (lambda c: [p.unlink() for p in (c / "metadata").iterdir()], r"No metadata in .*metadata"),
        (lambda c: (c / "metadata" / "1.npy").rename(c / "metadata" / "x.npy"), r"x\.npy: expected .*<number>\.npy"),
        (lambda c: replace_row(c, label="2"), r"1\.npy, row 2: expected a label of 0 or 1 in column 3, found '2'"),
        (lambda c: (c / "metadata" / "1.npy").write_text("imgs/1 sample_0.png\n"), r"1\.npy, row 1: expected folder"),
        (lambda c: (c / "metadata" / "10.npy").write_bytes(b"\x93NUMPY\x01"), r"10\.npy is no NumPy array of strings"),
        (
            lambda c: np.save(c / "metadata" / "10.npy", np.array([["a", 1]], object), allow_pickle=True),
            r"10\.npy is no NumPy array of strings",
        ),
        (lambda c: np.save(c / "metadata" / "10.npy", np.zeros((3, 11))), r"10\.npy: expected strings in rows"),
        (lambda c: replace_row(c, file="sample_99.png"), r"1\.npy names imgs/1/sample_99\.png, which is not there"),
        (lambda c: replace_row(c, folder="imgs/9"), r"Cannot read .*imgs/9 .*1\.npy names"),
        (lambda c: replace_row(c, folder="../imgs"), r"1\.npy, row 2: '\.\./imgs/sample_1\.png' is no file inside"),
        (lambda c: replace_row(c, file="sample\0.png"), r"1\.npy, row 2: 'imgs/1/sample\\x00\.png' is no file inside"),
        (wrong_image("L", (32, 31)), r"sample_1\.png: expected 32x32 pixels, found 32x31"),
        (wrong_image("RGB", (32, 32)), r"sample_1\.png: expected 8-bit grey \(L\), found RGB"),
        (lambda c: (c / "imgs/2/sample_1.png").write_bytes(b"no image"), r"Cannot read .*sample_1\.png"),
        (
            lambda c: (c / "imgs/2/sample_1.png").write_bytes((c / "imgs/2/sample_1.png").read_bytes()[:-40]),
            r"Cannot read .*sample_1\.png",
        ),
    ],
)
def test_wrong_released_folders(released, tmp_path, break_it, message):
    condition, _ = released
    break_it(condition)
    with pytest.raises(InputError, match=message) as error:
        Pathfinder(cache_dir=tmp_path / "cache", data_dir=condition.parent.parent).prepare()
    assert len(str(error.value)) < 700
    assert not list((tmp_path / "cache").rglob("manifest.json"))


# Whether it can be learned


def small_cnn(width):
    def block(channels):
        return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]

    layers = [*block(1), nn.MaxPool2d(2), *(layer for _ in range(5) for layer in block(width)), nn.MaxPool2d(2)]
    layers += [layer for _ in range(3) for layer in block(width)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(width, 2))


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_small_cnn_learns_the_labels_and_not_shuffled_ones(shuffled):
    num_train, num_test = 60_000, 4_000
    images, labels = generator.draw(32, "easy", 0, 0, num_train + num_test)
    inputs, targets = torch.from_numpy(images).view(-1, 1, 32, 32).float() / 255, torch.from_numpy(labels)
    torch.manual_seed(0)
    model = small_cnn(16)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    wanted = targets[torch.randperm(num_train)] if shuffled else targets[:num_train]
    for _ in range(700):
        index = torch.randint(num_train, (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[index]), wanted[index]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(inputs[num_train:]).argmax(1) == targets[num_train:]).float().mean().item()
    if shuffled:
        assert accuracy == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(num_test))
    else:
        assert accuracy > 0.7
