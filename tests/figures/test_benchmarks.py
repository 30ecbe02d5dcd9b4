"""The figures of the benchmarks: the same rows give the same bytes, and odd rows give figures too."""

from __future__ import annotations

import pytest

from lra.cards import EXACT, FAMILIES, OTHERS, card_of, families_of, family_of
from lra.errors import InputError
from lra.figures import benchmarks as plots
from lra.records.benchmark_rows import ApproximationRow, LengthCase, QuantityRow
from tests.helpers.benchmark_rows import approximation_row, length_case, length_row, written
from tests.helpers.configurations import choices


def scaling_rows() -> list[LengthCase]:
    rows: list[LengthCase] = []
    for name, start, power in (("softmax", 1, 2), ("skeinformer", 3, 1), ("yoso_e", 2, 2), ("none", 0.1, 1)):
        for n in (512, 1024, 2048):
            ms = start * (n / 512) ** power
            peak = 0 if name == "none" else int(1e6 * ms)
            rows.append(length_row(ms, backbone=name, n=n, ratio_to_fused=ms / (n / 512) ** 2, peak_bytes=peak))
    return [*rows, length_case("out of memory", backbone="yoso_e", n=4096)]


def error_rows() -> list[ApproximationRow]:
    return [
        approximation_row(name, d, error / d, 0.1)
        for name, error in (("skeinformer", 3.0), ("vmean", 0.0))
        for d in (8, 16)
    ]


@pytest.mark.parametrize(
    ("target", "rows", "names"),
    [
        ("attention", scaling_rows(), ["time", "memory", "efficiency-length"]),
        ("approximation", error_rows(), ["methods", "ablations"]),
    ],
)
def test_the_same_rows_give_the_same_bytes(target, rows, names, tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        paths = plots.draw(target, rows, folder, "cpu")
        assert [path.name for path in paths] == [f"cpu-{name}.{kind}" for name in names for kind in ("svg", "png")]
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1]


def test_mixers_are_drawn_and_not_what_is_alone_beside_them(tmp_path):
    mixers = [
        length_row(backbone="vmean", n=n, ms=2.0 * n, ratio_to_fused=2.0, as_mixer=True) for n in (512, 1024, 2048)
    ]
    figure = plots.figures(written(tmp_path / "cpu-attention.jsonl", [*mixers, *scaling_rows()]))["efficiency-length"]
    assert figure.axes[0].get_title(loc="left") == "No backbone is faster"
    time = plots.figures(tmp_path / "cpu-attention.jsonl")["time"]
    assert time.get_suptitle().startswith("Time of a forward and backward pass, projections included [ms]")


def test_what_has_no_figure_makes_none(tmp_path):
    assert (
        plots.draw("listops", [QuantityRow(name="a", value=1.0, unit="s", note="", ratio=1.0)], tmp_path, "cpu") == []
    )
    assert plots.draw("attention", [length_case("out of memory")], tmp_path, "cpu") == []
    assert plots.draw("attention", [length_row(backbone="softmax")], tmp_path, "cpu") == []  # nothing beside it


def test_a_file_of_rows_is_drawn_and_what_is_none_is_named(tmp_path):
    path = written(tmp_path / "cpu-attention.jsonl", scaling_rows())
    assert list(plots.figures(path)) == ["time", "memory", "efficiency-length"]
    assert [axis.get_title(loc="left") for axis in plots.figures(path)["memory"].axes[:3]] == [
        "Skeinformer", "floors", "hashing",
    ]  # fmt: skip
    with pytest.raises(InputError, match="is no file"):
        plots.figures(tmp_path / "cpu-model.jsonl")


def test_every_backbone_has_a_family_and_a_colour():
    members = {}
    for name in choices("attn"):
        members.setdefault(family_of(name), []).append(name)
    assert members[EXACT] == ["softmax", "softmax_materialised"]
    assert OTHERS not in members
    assert families_of(choices("attn"))[: len(FAMILIES)] == list(FAMILIES)
    assert max(map(len, members.values())) <= len(plots.COLOURS)


def test_what_has_no_card_is_among_the_others_which_come_last():
    assert card_of("of_another_laboratory") is None
    assert family_of("of_another_laboratory") == OTHERS
    assert families_of(["of_another_laboratory", "softmax", "vmean"]) == ["floors", EXACT, OTHERS]


def test_a_new_family_comes_after_the_known_ones(monkeypatch):
    monkeypatch.setattr("lra.cards.family_of", {"ssm": "state spaces", "fft": "Fourier", "vmean": "floors"}.get)
    assert families_of(["ssm", "fft", "vmean"]) == ["floors", "Fourier", "state spaces"]
