"""How much of the experiments there is."""

from __future__ import annotations

from lra.reports.coverage import coverage
from lra.reports.experiments import Experiment
from lra.reports.report import write
from tests.helpers.records import record


def test_coverage_tells_what_ended_what_failed_and_what_had_no_data():
    experiment = Experiment("mine", "skeinformer", ("listops", "text"), ("softmax", "vmean", "none"), (0, 1))
    records = [
        record("softmax", 0, 0.4),
        record("softmax", 1, None, status="out_of_memory"),
        record("softmax", 5, 0.4),
        record("none", 0, 0.4, command="python run.py attn=none scale=mini trainer.steps=40"),
        record("vmean", 0, 0.4, protocol="lra"),
    ]
    begun = {"task": {"name": "listops"}, "attn": {"name": "vmean"}, "protocol": {"name": "skeinformer"}}
    report = coverage(
        [experiment], records,
        unfinished=[{**begun, "scale": "mini", "seed": 0}],
        missing={("text", "skeinformer", "mini"): "put train.parquet into a folder"},
    )  # fmt: skip
    summary, table = report.tables
    assert summary.rows == [
        ["mine", "skeinformer", "full", "0", "12", "0", "0", ""],
        ["mine", "skeinformer", "mini", "1", "12", "2", "1", "text"],
    ]
    assert table.rows == [
        ["softmax", "1/2, 1 out of memory", "no data"],
        ["vmean", "0/2, 1 unfinished", "no data"],
        ["none", "0/2, 1 of own settings", "no data"],
    ]
    assert "No data for text, protocol=skeinformer, scale=mini: put train.parquet" in write(report, "markdown")
    mini = report.frame[report.frame["scale"] == "mini"].set_index(["task", "attn"])
    assert mini.loc[("listops", "softmax"), "keys"] == "listops-softmax-0 listops-softmax-1 listops-softmax-5"
    assert mini["no_data"].sum() == 3


def test_what_an_experiment_sets_is_no_own_setting_of_its_runs():
    swept = Experiment(
        "swept", "skeinformer", ("listops",), ("softmax",), (0, 1), "model.positions", ("learned", "rotary"),
        ("model.positions",),
    )  # fmt: skip
    plain = Experiment("plain", "skeinformer", ("listops",), ("softmax",), (0, 1))

    def run(seed, positions, *words, status="ok"):
        made = record("softmax", seed, 0.4, status=status)
        made.config = {**made.config, "model": {"positions": positions}}
        made.command = " ".join(["python run.py", f"model.positions={positions}", *words])
        return made

    runs = [run(0, "learned"), run(1, "rotary"), run(1, "learned", status="diverged"),
            run(0, "rotary", "trainer.steps=40")]  # fmt: skip
    _, of_swept, of_plain = coverage([swept, plain], runs).tables
    assert of_swept.rows == [["softmax", "2/4, 1 diverged, 1 of own settings"]]
    assert of_plain.rows == [["softmax", "1/2, 1 diverged, 2 of own settings"]]  # learned positions are as configured


def test_runs_of_no_experiment_are_listed_where_that_is_asked_for():
    one = Experiment("one", "skeinformer", ("listops",), ("softmax",), (0,))
    runs = [record("softmax", 0, 0.4), record("softmax", 0, 0.4, task="text"), record("mine", 0, 0.4, scale="full"),
            record("mine", 1, None, status="diverged", scale="full")]  # fmt: skip
    assert "Runs of no experiment" not in write(coverage([one], runs), "markdown")
    table = coverage([one], runs, others=True).tables[-1]
    assert table.title == "Runs of no experiment"
    assert table.rows == [
        ["full", "skeinformer", "mine", "listops", "1", "1"],
        ["mini", "skeinformer", "softmax", "text", "1", "0"],
    ]
