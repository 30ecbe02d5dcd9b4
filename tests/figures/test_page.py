"""The page's text: what is in it, and that nothing from a record can become markup or a script."""

from __future__ import annotations

import html
import json
import re
import sys

import pytest

from lra.errors import InputError
from lra.figures.page.page import page
from lra.figures.page.rows import measured_lines, published_lines
from lra.records.collection import load_packed, load_records
from lra.reports.difficulty import difficulty_report
from lra.tasks.difficulty import packed
from scripts import report
from tests.helpers.records import LABELLED, record, saved, with_published
from tests.helpers.shown import ATTACK, shown


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shown(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def text(folder):
    return page(folder, load_records(folder))


def embedded(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_script_writes_the_page_and_says_where(folder, capsys, text):
    assert report.main(["page", f"results_dir={folder}"]) == 0
    assert capsys.readouterr().out == f"{folder / 'leaderboard.html'}\n"
    assert (folder / "leaderboard.html").read_text() == text  # the same bytes each time


def test_what_records_say_is_never_markup(text):
    assert ATTACK not in text
    assert "<img src=x" not in text
    assert any(ATTACK in (run["error"] or "") for run in embedded(text)["runs"].values())


def test_the_libraries_are_there_with_their_licences_and_nothing_is_fetched(text):
    assert "Licensed under the MIT license" in text
    assert "datatables.net/license/mit" in text
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text.split('<script type="application/json"')[0])


def test_every_row_leads_to_what_repeats_it(text):
    data = embedded(text)
    assert set(re.findall(r'data-key="([^"]+)"', text)) == set(data["details"])
    for detail in data["details"].values():
        for key in detail["runs"]:
            run = data["runs"][key]
            assert run["command"]
            assert run["config"]
            assert run["environment"]
            assert len(run["curve"]["step"]) == 3


def test_published_numbers_stand_beside_ours_at_the_published_size_alone(tmp_path):
    with_published(tmp_path)
    records = [record("skeinformer", 0, 0.4, group=scale, scale=scale) for scale in ("mini", "full")]
    papers = {
        line.cells["scale"].text: line.cells["paper"].text for line in measured_lines(records, tmp_path) if line.key
    }
    assert papers["mini"] == ""
    assert papers["full"] == "38.73 (skeinformer_naacl)"
    bigbird = measured_lines([record("bigbird", 0, 0.4, scale="full")], tmp_path)[0]
    assert bigbird.cells["paper"].text == "38.86 (skeinformer_naacl, re-run)"


def test_the_measured_numbers_are_the_leaderboards(tmp_path):
    with_published(tmp_path)
    failed = record("bigbird", 0, None, status="out_of_memory")
    records = [record("softmax", 0, 0.40), record("softmax", 1, 0.42), failed]
    lines = {line.cells["name"].text: line.cells for line in measured_lines(records, tmp_path)}
    assert lines["softmax"]["accuracy"].text == "41.0"
    assert lines["softmax"]["ms"].order == 20.5
    assert lines["bigbird"]["interval"].text == "1 out of memory"
    assert lines["floor: root_operator"]["accuracy"].text == "25.0"


def test_every_published_number_has_a_row_as_it_was_printed(tmp_path):
    lines = published_lines(with_published(tmp_path))
    rows = (tmp_path / "published" / "numbers.csv").read_text().count("\n") - 1
    assert len(lines) == rows
    assert any(line.cells["value"].text == "FAIL" for line in lines)
    labels = {
        (line.cells["source"].text, line.cells["name"].text, line.cells["task"].text): line.cells["label"].text
        for line in lines
    }
    assert labels["hgrn2", "hgrn2", "pathx"] == "first-hand; 2-D prior"
    assert labels["s4", "transformer_copied", "avg"] == "copied; average of 6 tasks, a failed one as 50"


def test_a_page_of_no_records_has_the_published_numbers(tmp_path):
    assert "Nothing is measured yet" in page(with_published(tmp_path), [])


def test_a_library_that_is_not_there_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(InputError, match=r"plotly is needed for the page\. Install it: pip install -e '\.\[page\]'"):
        page(tmp_path, [])


def test_accuracy_by_difficulty_is_on_the_page_as_the_report_has_it(tmp_path):
    saved(with_published(tmp_path), record("softmax", 0, 0.4), record(ATTACK.replace("/", "_"), 0, 0.2, group="attack"),
          labels=LABELLED)  # fmt: skip
    records = load_records(tmp_path)
    assert 'id="difficulty"' not in page(tmp_path, records)
    for path in tmp_path.glob("runs/*/*/*/predictions.npz"):
        path.with_name("difficulty.npz").write_bytes(packed({"depth": 2 + (LABELLED > 4)}))
    section = page(tmp_path, records).partition('<section id="difficulty"')[2].partition("</section>")[0]
    (table,) = difficulty_report(records, load_packed(tmp_path, records)).tables
    assert all(f">{html.escape(cell)}<" in section for row in table.rows for cell in row)
    assert "<img" not in section
