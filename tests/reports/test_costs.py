"""What runs cost, and which of them no other beats."""

from __future__ import annotations

from lra.reports.costs import cost_frame, cost_report, run_costs
from lra.reports.report import write
from tests.helpers.records import record


def test_the_pareto_front_has_what_no_run_of_the_same_machine_beats():
    costs = {"training_flops": 10, "peak_memory_bytes": 5}
    costs = run_costs(
        [
            record("good", 0, 0.5, **costs),
            record("slower", 1, 0.5, **costs),
            record("worse", 0, 0.4, **{**costs, "peak_memory_bytes": 4}),
            record("failed", 0, None, status="diverged", **costs),
            record("elsewhere", 0, 0.1, environment={"device_name": "another", "num_threads": 1}),
        ]
    )
    assert {cost.run.attn: cost.front for cost in costs} == {
        "good": "tmf",
        "slower": "mf",
        "worse": "m",
        "failed": "",
        "elsewhere": "t",
    }
    assert cost_frame(costs).loc[4, "key"] == "listops-elsewhere-0"


def test_no_front_is_over_times_that_others_work_is_in():
    runs = [
        record("alone", 0, 0.3, ms_per_step=20.0, load_average=1.0),
        record("slow", 0, 0.2, ms_per_step=40.0, load_average=0.9),
        record("loaded", 0, 0.5, ms_per_step=5.0, load_average=1.7, training_flops=10),
        record("unknown", 0, 0.6, ms_per_step=5.0, load_average=None),
        record("on a GPU", 0, 0.6, ms_per_step=5.0, load_average=7.0, device="cuda"),
    ]
    assert [cost.front for cost in run_costs(runs)] == ["t", "", "f", "", "t"]
    text = write(cost_report(runs), "markdown")
    assert text.count("No front of times for 2 of 4 runs: others ran beside them, or no load was noted. See f") == 1
