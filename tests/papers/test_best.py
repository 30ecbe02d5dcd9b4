"""The highest published numbers: what counts, and who repeated it."""

from __future__ import annotations

import pytest

from lra.papers.averages import SIX
from lra.papers.best import ALL, PLAIN, REPEATED, records_report
from lra.reports.report import write
from tests.helpers.published import ROWS, number


def records(*numbers) -> dict[tuple[str, str], dict]:
    """The first of each task, by task and among which."""
    frame = records_report(numbers).frame
    return {(line["task"], line["among"]): line for line in frame[frame["rank"] == 1].to_dict("records")}


def test_the_highest_of_each_task_with_the_next_best_methods():
    lines = records_report([number("text", f"{80 + i}", source=f"s{i}", method=f"m{i}") for i in range(6)]).frame
    assert lines["method"].tolist() == ["m5", "m4", "m3", "m2"]
    assert set(lines["repeated_by"]) == {"nobody"}


def test_pre_trained_models_and_two_dimensional_priors_do_not_hide_the_best_without():
    plain = number("image", "80", source="a", method="a")
    found = records(plain, number("image", "90", source="b", method="b", prior="2d_inferred"))
    assert found["image", ALL]["labels"] == "first-hand; 2-D prior (inferred)"
    assert found["image", PLAIN]["method"] == "a"
    found = records(plain, number("image", "90", source="b", method="b", pretrained="yes"))
    assert (found["image", ALL]["method"], found["image", PLAIN]["method"]) == ("b", "a")
    text = records(number("text", "90", source="b", method="b", prior="2d"))  # text has one dimension
    assert text["text", ALL]["labels"] == "first-hand"
    assert ("text", PLAIN) not in text


def test_a_repetition_is_of_another_source_that_ran_the_method():
    own = number("text", "90", source="a")
    nobody = [
        number("text", "89", source="a"),
        number("text", "89", source="b", origin="copied"),
        number("text", "89", source="b", origin="unstated"),
        number("text", "89", source="b", method="other"),
        number("listops", "40", source="b", origin="rerun"),
    ]
    assert records(own, *nobody)["text", ALL]["repeated_by"] == "nobody"
    assert ("text", REPEATED) not in records(own, *nobody)
    assert records(own, number("text", "70.5", source="c", origin="rerun"))["text", ALL]["repeated_by"] == "70.5 c"


@pytest.mark.parametrize("origin", ["first_hand", "rerun"])
def test_a_copy_is_not_repeated_by_what_it_copies(origin):
    copy, original = (
        number("text", "90.0", source="b", origin="copied"),
        number("text", "89.96", source="a", origin=origin),
    )
    assert ("text", REPEATED) not in records(copy, original)


def test_where_nobody_repeated_the_highest_the_highest_that_somebody_did_follows():
    numbers = [
        number("text", "95", source="a", method="a"),
        number("text", "90", source="b", method="b"),
        number("text", "89", source="c", method="b", origin="rerun"),
    ]
    found = records(*numbers)
    assert found["text", ALL]["method"] == "a"
    assert (found["text", REPEATED]["method"], found["text", REPEATED]["repeated_by"]) == ("b", "89 c")


def test_copies_count_only_for_want_of_the_original_and_the_most_exact_first():
    misprint = number("text", "99.9", source="b", origin="copied")
    assert records(misprint, number("text", "90", source="a"))["text", ALL]["value"] == 90
    rounded = number("text", "98.6", source="c", origin="copied")
    assert records(rounded, number("text", "98.58", source="b", origin="copied"))["text", ALL]["value"] == 98.58


def test_colour_failures_and_what_is_not_comparable_are_left_out():
    found = records(
        number("image", "80"),
        number("image", "99", source="a", metric="accuracy_color"),
        number("image", "99", source="b", comparable="no"),
        number("image", "FAIL", source="c"),
    )
    assert found["image", ALL]["value"] == 80


def test_averages_are_computed_not_taken():
    figures = [number(task, "60") for task in SIX]
    found = records(*figures, number("avg", "99", average_tasks="6"))
    assert found["average of 6", ALL]["value"] == 60
    text = write(records_report([*figures[:-1], number("pathx", "FAIL")]), "markdown")
    assert "| 60.00 | FAIL |" in text
    assert "Average of 6" not in text


def test_the_files_hold_a_record_for_each_task_and_hgrns_retrieval_is_repeated_by_nobody():
    found = records(*ROWS)
    assert {task for task, _ in found} == {*SIX, "average of 5", "average of 6"}
    retrieval = found["retrieval", ALL]
    assert (retrieval["method"], retrieval["repeated_by"]) == ("hgrn2", "nobody")
    assert found["retrieval", REPEATED]["value"] < retrieval["value"]
    assert "2-D prior" not in found["image", PLAIN]["labels"]
    assert not any("colour" in line["labels"] for line in found.values())
