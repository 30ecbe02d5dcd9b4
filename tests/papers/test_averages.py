"""Printed averages, held to those of the figures beside them."""

from __future__ import annotations

import pytest

from lra.papers.averages import FIVE, SIX, paper_rows, text_of
from tests.helpers.published import ROWS, number

# What the source prints is not the average of what it prints; each says so in its note.
MISPRINTED = {
    ("lra", "sinkhorn_transformer"), ("rwkv", "rwkv"), ("fractal", "s5_reproduced_by_fractal"), ("b2s6", "s7_copied"),
    ("lion", "lion_d_hippo"), ("lion", "lion_s_hippo"),
}  # fmt: skip
# The average alone was at hand.
WITHOUT_FIGURES = {("never_from_scratch", "rotary_transformer_pretrained")}


def row(figures: dict[str, str], printed: str | None = None, **changes: str):
    numbers = [number(task, figure, **changes) for task, figure in figures.items()]
    if printed is not None:
        numbers.append(number("avg", printed, **changes))
    (only,) = paper_rows(numbers)
    return only


def test_every_printed_average_is_that_of_its_row():
    rows = [row for row in paper_rows(ROWS) if row.printed]
    assert len(rows) > 100
    places = {(row.any.source, row.any.model): row for row in rows}
    assert {place for place, row in places.items() if row.recomputed is None} == WITHOUT_FIGURES
    assert {place for place, row in places.items() if row.is_misprinted} == MISPRINTED
    assert all("as printed" in places[place].printed.note for place in MISPRINTED)


def test_a_row_with_a_failed_path_x_has_an_average_of_five_and_none_of_six():
    figures = {**dict.fromkeys(FIVE, "60"), "pathx": "FAIL"}
    failed = row(figures)
    assert (failed.mean(FIVE), failed.mean(SIX)) == (60, None)
    assert (failed.text(FIVE), failed.text(SIX)) == ("60.00", "FAIL")
    assert row(dict.fromkeys(FIVE, "60")).text(SIX) == ""  # nothing is known of Path-X
    assert row({**figures, "retrieval": "FAIL"}).text(FIVE) == "FAIL"


@pytest.mark.parametrize(("tasks", "failed_as", "average"), [("5", "", "60"), ("6", "50", "58.33"), ("6", "0", "50")])
def test_a_printed_average_is_recomputed_as_the_source_did(tasks, failed_as, average):
    figures = {**dict.fromkeys(FIVE, "60"), "pathx": "FAIL"}
    own = row(figures, average, average_tasks=tasks, failed_as=failed_as)
    assert own.recomputed == pytest.approx(float(average), abs=0.01)
    assert not own.is_misprinted
    assert row(figures, "59.5", average_tasks=tasks, failed_as=failed_as).is_misprinted


def test_colour_images_are_in_no_average():
    grey = [number(task, "60") for task in SIX if task != "image"]
    (only,) = paper_rows([*grey, number("image", "90", metric="accuracy_color")])
    assert only.mean(FIVE) is None
    assert only.text(FIVE) == ""
    (both,) = paper_rows([number("image", "90", metric="accuracy_color"), *grey, number("image", "60")])
    assert both.mean(SIX) == 60


def test_a_half_is_rounded_up():
    assert text_of(88.625) == "88.63"
    assert text_of((63.79 + 90.48 + 91.76 + 89.42 + 98.13 + 98.17) / 6) == "88.63"
