"""What runs cost, and which of them no other beats."""

from __future__ import annotations

from lra.reports.costs import cost_frame, run_costs
from tests.helpers.records import record


def test_the_pareto_front_has_what_no_run_of_the_same_machine_beats():
    costs = {"training_flops": 10, "peak_memory_bytes": 5}
    costs = run_costs(
        [
            record("good", 0, 0.5, **costs),
            record("slower", 1, 0.5, **costs),
            record("worse", 0, 0.4, **{**costs, "peak_memory_bytes": 4}),
            record("failed", 0, None, status="diverged", **costs),
            record("elsewhere", 0, 0.1, environment={"device_name": "another"}),
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
