"""What makes published rows comparable: every row has it, and copies agree with what they copy."""

from __future__ import annotations

import csv

import pytest

from lra.papers.methods import COPIED, FIRST_HAND
from tests.helpers.published import ROWS, method
from tests.helpers.records import PUBLISHED


def read(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_methods_has_a_row_for_each_model_of_each_source_and_no_other():
    keys = [(row["source"], row["model"]) for row in read("methods.csv")]
    assert len(set(keys)) == len(keys)
    assert keys == list(dict.fromkeys((row["source"], row["model"]) for row in read("numbers.csv")))


def test_a_field_with_none_of_its_values_is_refused():
    for column in ("origin", "prior", "pretrained", "comparable"):
        with pytest.raises(ValueError, match=f"{column} must be one of .*Got 'maybe'"):
            method(**{column: "maybe"})


def test_the_number_of_averaged_tasks_is_known_exactly_where_an_average_is_printed():
    averaged = {(number.source, number.model) for number in ROWS if number.task == "avg"}
    assert averaged == {(number.source, number.model) for number in ROWS if number.method.average_tasks is not None}
    assert {number.method.failed_as for number in ROWS} == {None, 0, 50}


def test_the_labels_say_what_sets_a_number_apart():
    both = method(prior="2d", origin="rerun", caveat="small setting", average_tasks="6", failed_as="50")
    assert both.labels("text", "accuracy") == ("re-run", "small setting")
    assert both.labels("pathx", "accuracy") == ("re-run", "2-D prior", "small setting")
    assert both.labels("avg", "accuracy")[2] == "average of 6 tasks, a failed one as 50"
    other = method(pretrained="yes", comparable="no", average_tasks="5")
    assert other.labels("image", "accuracy_color") == ("first-hand", "pre-trained", "colour", "not comparable")
    assert other.labels("avg", "accuracy_no_listops")[2] == "average of 5 tasks without ListOps"


def test_names_and_origins_agree():
    """What the name of a row calls a copy is none of its authors' numbers, nor is what others ran."""
    for number in ROWS:
        if number.model.endswith(("_copied", "_secondary")) or "_as_cited_by_" in number.model:
            assert number.method.origin in (COPIED, "unstated"), number.model
        if number.model.endswith("_replicated") or "_reproduced_by_" in number.model or "_run_by_" in number.model:
            assert number.method.origin == "rerun", number.model


def test_a_copy_is_the_number_of_the_authors_where_that_is_known():
    first_hand = {
        (number.method.name, number.task, number.metric): number.value
        for number in ROWS
        if number.method.origin == FIRST_HAND and number.task != "avg" and not number.length
    }
    checked = 0
    for number in ROWS:
        original = first_hand.get((number.method.name, number.task, number.metric))
        if number.method.origin == COPIED and not number.method.caveat and number.value is not None and original:
            half_unit = 0.5 * 10.0 ** -len(number.printed.partition(".")[2])
            assert abs(number.value - original) <= half_unit + 1e-9, f"{number.source}: {number.model}, {number.task}"
            checked += 1
    assert checked > 30


def test_known_misplacements_are_not_taken_over():
    """LRU's Image is of colour images, B2S6 has it under ListOps; LION and MS-SSM have Linformer's ListOps wrong."""
    for number in ROWS:
        if number.method.name == "lru" and number.value is not None and abs(number.value - 89.0) < 0.05:
            assert number.metric == "accuracy_color"
        if number.method.name == "linformer" and number.task == "listops":
            assert number.printed != "16.13"
    assert [number.model for number in ROWS if number.source == "ms_ssm" and number.metric == "accuracy_color"] == [
        "lru_secondary"
    ]


def test_two_dimensional_operators_are_marked_wherever_their_numbers_stand():
    for name in ("tnn", "hgrn", "hgrn2", "metala"):
        assert {number.method.prior for number in ROWS if number.method.name == name} <= {"2d", "2d_inferred"}
