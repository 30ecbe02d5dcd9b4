"""The page in a real browser: Chromium, headless, with every request but that for the file itself refused."""

from __future__ import annotations

import shutil

import pytest

from lra.figures.page.page import write_page
from lra.records.collection import load_records
from tests.helpers.shown import shown

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed"),
]
ROWS = "#measured tbody tr"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = shown(tmp_path_factory.mktemp("shown"))
    return write_page(folder, load_records(folder)).as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open the page, and see at the end that nothing was asked of a network and nothing went wrong."""
    contexts, complaints = [], []

    def opened(**look):
        context = browser.new_context(**look)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))

        def refused(route):
            if route.request.url != address:
                complaints.append(f"request {route.request.url}")
                route.abort()
            else:
                route.continue_()

        page.route("**/*", refused)
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        page.locator("#measured select[data-name=scale]").select_option("mini")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def column(page, title: str) -> list[str]:
    titles = page.locator("#measured thead th").all_inner_texts()
    index = [text.strip() for text in titles].index(title)
    return [row.locator("th, td").nth(index).inner_text() for row in page.locator(ROWS).all()]


def test_it_loads_sorts_and_filters(visit):
    page = visit()
    page.locator("#measured select[data-name=task]").select_option("listops")
    assert set(column(page, "task")) == {"listops"}
    assert column(page, "mechanism")[0] == "softmax"  # the most accurate first
    page.locator("#measured thead th", has_text="ms / step").click()
    # The table is drawn again a moment later.
    page.locator("#measured thead th[aria-sort=ascending]", has_text="ms / step").wait_for()
    times = [float(text) for text in column(page, "ms / step") if text != "\N{EN DASH}"]
    assert times == sorted(times)
    page.get_by_role("searchbox", name="Search").first.fill("nystrom")
    page.locator(ROWS).nth(1).wait_for(state="detached")
    assert column(page, "mechanism") == ["nystromformer"]


def test_missing_numbers_are_last_in_either_direction(visit):
    page = visit()
    page.locator("#measured select[data-name=task]").select_option("listops")
    for direction in ("ascending", "descending"):
        page.locator("#measured thead th", has_text="ms / step").click()
        page.locator(f"#measured thead th[aria-sort={direction}]", has_text="ms / step").wait_for()
        missing = [text == "\N{EN DASH}" for text in column(page, "ms / step")]
        assert any(missing)
        assert missing == sorted(missing)


def test_no_front_is_over_times_that_others_work_is_in(visit):
    page = visit()
    page.locator("#measured select[data-name=task]").select_option("text")
    assert "Shown instead: operations" in page.locator("#pareto").inner_text()
    assert "MFLOP" in page.locator("#pareto .xtitle").inner_html()
    assert all(text.endswith("*") for text in column(page, "ms / step") if text != "\N{EN DASH}")


def test_a_run_of_another_size_is_marked_and_not_at_the_published_one(visit):
    page = visit()
    page.locator("#measured select[data-name=scale]").select_option("full")
    assert "the published size" in page.locator("#notice").inner_text()
    assert not any("own:" in name for name in column(page, "mechanism"))
    page.locator("#measured select[data-name=scale]").select_option("full, own settings")
    assert "not the published size" in page.locator("#notice").inner_text()
    assert column(page, "mechanism")[0] == "vmean [own: trainer.steps=40]"


def test_one_scale_is_shown_at_a_time_and_published_numbers_only_beside_the_published_size(visit):
    page = visit()
    assert set(column(page, "scale")) == {"mini"}
    assert page.locator("#measured thead th", has_text="published").count() == 0
    assert "not comparable" in page.locator("#notice").inner_text()
    page.locator("#measured select[data-name=scale]").select_option("full")
    assert set(column(page, "scale")) == {"full"}
    assert "38.73 (skeinformer_naacl)" in column(page, "published %")
    page.get_by_label("Published in papers").check()
    assert page.locator("#measured").is_hidden()
    assert page.locator("#published tbody tr").count() == 50


def test_a_row_opens_by_keyboard_and_gives_the_focus_back(visit):
    page = visit()
    button = page.locator(ROWS).get_by_role("button", name="skeinformer").first
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    assert "python run.py scale=mini" in dialog.inner_text()
    assert dialog.locator(".plot .main-svg").count() > 0
    assert "A machine" in dialog.locator("details", has_text="Environment").text_content()
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert button.evaluate("button => button === document.activeElement")


def test_what_a_record_says_is_shown_and_not_run(visit):
    page = visit()
    page.locator(ROWS, has_text="bigbird").click()
    assert "<script>alert(1)</script>" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    page.locator(ROWS, has_text="onerror").click()
    assert page.locator("img[src=x]").count() == 0


def test_plots_follow_the_rows_and_a_point_opens_its_runs(visit):
    page = visit()
    assert page.locator("#pareto .plot").count() == 2
    page.locator("#measured select[data-name=task]").select_option("pathfinder")
    assert page.locator("#pareto .plot").count() == 1
    front = page.locator("#pareto .plot").evaluate("plot => [...plot.data[1].x]")
    assert front == [17, 24, 45]  # vmean, nystromformer, softmax: the others are dearer than a better one
    page.locator("#cost").select_option("1")
    assert "peak memory" in page.locator("#pareto .xtitle").inner_html()
    page.locator("#pareto .plot").evaluate(
        "plot => plot.emit('plotly_click', {points: [{customdata: ['pathfinder-softmax', 'softmax']}]})"
    )
    assert "softmax on Pathfinder" in page.get_by_role("dialog").inner_text()


def test_growth_is_shown_family_by_family_beside_exact_softmax(visit):
    page = visit()
    assert page.locator("#scaling .plot").count() == 2
    names = "plot => plot.data.map(trace => trace.name)"
    page.locator("#family").select_option("Skeinformer")
    assert page.locator("#scaling .plot").first.evaluate(names) == ["fused softmax", "skeinformer"]


def test_a_phone_scrolls_the_table_and_not_the_page(visit):
    page = visit(viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    scroll = page.get_by_role("region", name="table of measured numbers")
    assert scroll.evaluate("part => part.scrollWidth > part.clientWidth")
    page.locator(ROWS).first.click()
    assert page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")


def test_dark_follows_the_system_and_the_button(visit):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page = visit(color_scheme="dark")
    assert background(page) == "rgb(20, 23, 27)"
    page.get_by_role("button", name="Dark").click()
    assert background(page) == "rgb(255, 255, 255)"


def test_the_table_is_one_for_a_screen_reader(visit):
    page = visit()
    table = page.locator("#measured table")
    assert table.locator("caption").inner_text()
    assert table.locator("thead th:not([scope=col])").count() == 0
    assert table.locator("tbody tr > :first-child:not(th[scope=row])").count() == 0
    unnamed = "[...document.querySelectorAll('select, input')].filter(part => !part.labels.length).length"
    assert page.evaluate(unnamed) == 0
