"""From hand-written records to exact tables; the interval against its definition; the formats."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from lra.arguments import parse
from lra.errors import InputError
from lra.reports.costs import cost_frame
from lra.reports.failures import failure_report
from lra.reports.leaderboard import leaderboard, leaderboard_report, render, to_frame
from lra.reports.report import Report, Table, write
from lra.statistics import DRAWS, NORMAL_QUANTILE, STUDENT_QUANTILES, bootstrap_interval, sampling_half_width
from tests.helpers.records import GENERATED, record


def test_the_table_of_hand_written_records():
    records = [
        record("vmean", 0, 0.30),
        record("softmax", 0, 0.42),
        record("softmax", 1, 0.44),
        record("softmax", 2, None, status="diverged"),
        record("reformer", 0, None, status="out_of_memory"),
        record("softmax", 0, 0.64, task="pathfinder"),
        record("baseline_cnn", 0, 0.80, task="pathfinder"),
    ]
    assert render(records).split("\n\nTested: the weights with the best validation accuracy.")[0] == (
        "### scale=mini, protocol=skeinformer, on cpu\n"
        "\n"
        "| attn                 | listops                             | pathfinder                         |\n"
        "| -------------------- | ----------------------------------- | ---------------------------------- |\n"
        "| softmax              | 43.0 [33.2, 52.8] (n=2), 1 diverged | 64.0 [63.1, 64.9] (n=1, 1 learned) |\n"
        "| vmean                | 30.0 [29.1, 30.9] (n=1)             |                                    |\n"
        "| reformer             | 1 out of memory                     |                                    |\n"
        "| baseline: cnn        |                                     | 80.0 [79.2, 80.8] (n=1, 1 learned) |\n"
        "| floor: majority      | 12.5 [11.9, 13.1]                   | 50.0 [49.0, 51.0]                  |\n"
        "| floor: root_operator | 25.0 [24.2, 25.8]                   |                                    |"
    )


def test_the_interval_of_one_run_is_the_sampling_error_of_the_test_set():
    assert sampling_half_width(0.5, 10000) == NORMAL_QUANTILE * 0.005
    assert bootstrap_interval([0.5], 10000) == pytest.approx((0.5 - 0.0098, 0.5 + 0.0098), abs=1e-6)
    assert bootstrap_interval([1.0], 10000) == (1.0, 1.0)


def test_the_interval_adds_seeds_and_test_set_in_squares():
    """For many runs, whose bootstrap is normal, both parts have closed forms."""
    accuracies = np.random.default_rng(1).normal(0.5, 0.02, 25).tolist()
    seeds = STUDENT_QUANTILES[23] * statistics.stdev(accuracies) / 5
    low, high = bootstrap_interval(accuracies, 2000)
    expected = math.hypot(seeds, sampling_half_width(statistics.fmean(accuracies), 2000))
    assert (high - low) / 2 == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    intervals = [bootstrap_interval((0.5 + 0.02 * rng.normal(size=n)).tolist(), 10**7) for _ in range(300)]
    assert 0.9 <= np.mean([low <= 0.5 <= high for low, high in intervals]) <= 0.99


def test_runs_that_learn_or_do_not_have_a_lopsided_interval_within_bounds():
    low, high = bootstrap_interval([0.5, 0.5, 0.5, 0.5, 0.95], 20000)
    assert high - 0.59 > 0.59 - low > 0
    assert bootstrap_interval([0.5, 1.0], 20000)[1] == 1.0
    assert bootstrap_interval([0.5, 0.6], 20000) == bootstrap_interval([0.6, 0.5], 20000)
    assert DRAWS >= 10_000


def test_students_quantiles_cover_what_they_say():
    """The quantile of two degrees of freedom has a closed form; the others fall to the normal's like 1/df."""
    p = 0.975
    assert STUDENT_QUANTILES[1] == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), abs=1e-3)
    assert STUDENT_QUANTILES[0] == pytest.approx(math.tan(math.pi * (p - 0.5)), abs=1e-3)
    assert list(STUDENT_QUANTILES) == sorted(STUDENT_QUANTILES, reverse=True)
    z = NORMAL_QUANTILE
    for df in (10, 20, 30):
        expansion = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
        assert STUDENT_QUANTILES[df - 1] == pytest.approx(expansion, abs=3e-3)


def test_a_protocol_says_which_weights_count():
    last = {"attn": {"name": "softmax"}, "protocol": {"name": "skeinformer", "tested": "last"}}
    run = record("softmax", 0, 0.4, last_test_accuracy=0.3, config=last)
    assert leaderboard([run])["accuracy"].tolist() == [0.3]
    assert "Tested: the weights of the last step." in render([run])


def test_runs_that_differ_in_more_than_the_seed_are_never_averaged():
    records = [
        record("skeinformer", 0, 0.3, group="a", config={"attn": {"num_samples": 15}}),
        record("skeinformer", 0, 0.4, group="b", config={"attn": {"num_samples": 30}}),
    ]
    board = leaderboard(records)
    assert board["n"].tolist() == [1, 1]
    assert board["keys"].tolist() == ["a-0", "b-0"]
    assert "skeinformer [attn.num_samples=30] | 40.0" in render(records)
    assert "skeinformer [attn.num_samples=15] | 30.0" in render(records)
    many = {f"s{number}": number for number in range(9)}
    records.append(record("skeinformer", 0, 0.2, group="c", config={"attn": {"num_samples": 15}, "more": many}))
    assert "[attn.num_samples=15, more.s0=0, more.s1=1, 7 more: c]" in render(records)


def test_a_class_that_moved_and_an_option_that_came_later_are_no_settings_of_a_run():
    attn = {"name": "nystromformer", "version": 1}
    block = {"mlp": True, "norm": "layer", "place": "pre"}
    runs = [
        record("nystromformer", 0, 0.4, config={"attn": {**attn, "_target_": "here.Nystrom"}, "model": {}}),
        record("nystromformer", 1, 0.5, config={"attn": {**attn, "conv_size": None}, "model": {"block": block}}),
    ]
    assert list(leaderboard(runs)["settings"]) == [""]


def test_other_data_scales_protocols_and_devices_have_columns_or_tables_of_their_own():
    other_data = {**GENERATED, "source": "released", "sha256": {"test": "cd" * 32}}
    text = render(
        [
            record("softmax", 0, 0.4),
            record("softmax", 0, 0.5, group="r", data=other_data),
            record("softmax", 0, 0.6, group="s", scale="smoke"),
            record("softmax", 0, 0.7, group="g", device="cuda"),
        ]
    )
    assert text.count("### ") == 3
    assert "listops (generated, brackets, abababab)" in text
    assert "listops (released, brackets, cdcdcdcd)" in text


def test_the_pareto_front_has_what_no_run_of_the_same_machine_beats():
    costs = {"training_flops": 10, "peak_memory_bytes": 5}
    frame = cost_frame(
        [
            record("good", 0, 0.5, **costs),
            record("slower", 1, 0.5, **costs),
            record("worse", 0, 0.4, **{**costs, "peak_memory_bytes": 4}),
            record("failed", 0, None, status="diverged", **costs),
            record("elsewhere", 0, 0.1, environment={"device_name": "another"}),
        ]
    )
    front = dict(zip(frame["attn"], frame["front"], strict=True))
    assert front == {"good": "tmf", "slower": "mf", "worse": "m", "failed": "", "elsewhere": "t"}
    assert frame.loc[4, "key"] == "listops-elsewhere-0"


def test_failures_name_status_and_reason():
    runs = [record("a", 0, None, status="failed", error="Traceback\nValueError: no"), record("b", 0, 0.5)]
    begun = {"task": {"name": "text"}, "attn": {"name": "c"}, "protocol": {"name": "lra"}, "scale": "full", "seed": 1}
    report = failure_report(
        runs, unfinished=[{**begun, "device": "cpu"}], missing={("image", "lra", "full"): "no files"}
    )
    assert report.frame["status"].tolist() == ["no data", "unfinished", "failed"]
    assert report.frame["reason"].tolist()[::2] == ["no files", "ValueError: no"]
    assert "ValueError: no" in write(report, "terminal")


def test_the_formats_of_one_report():
    import pandas as pd

    table = Table("A & B", ["name", "value %"], [["a_b", "1.5"], ["c", "10.5"]], ["A note."])
    report = Report([table], pd.DataFrame({"name": ["a_b"], "keys": ["k1 k2"]}), notes=["±"])
    assert write(report, "markdown") == (
        "### A & B\n\n| name | value % |\n| ---- | ------: |\n| a_b  |     1.5 |\n| c    |    10.5 |\n\nA note.\n\n±"
    )
    assert write(report, "terminal").startswith("A & B\n\nname  value %\n────  ───────\na_b       1.5\n")
    latex = write(report, "latex")
    assert r"\begin{tabular}{lr}" in latex
    assert r"a\_b & 1.5 \\" in latex
    assert r"\caption{A \& B. A note. $\pm$}" in latex
    assert write(report, "csv") == "name,keys\na_b,k1 k2"
    with pytest.raises(InputError, match="terminal, markdown, latex, csv. Got 'html'"):
        write(report, "html")


def test_no_records_is_no_error():
    assert write(leaderboard_report([]), "markdown").startswith("No records yet")
    assert to_frame([record("a", 0, 0.1)])["status"].tolist() == ["ok"]


def test_arguments():
    known = {"verbs": ("show", "collect"), "options": {"results_dir": "results"}}
    assert parse([], **known) == ("show", {"results_dir": "results"})
    assert parse(["collect", "results_dir=a=b"], **known) == ("collect", {"results_dir": "a=b"})
    for words, message in ((["colect"], "Did you mean collect"), (["resultsdir=x"], "Did you mean results_dir=")):
        with pytest.raises(InputError, match=message):
            parse(words, **known)
