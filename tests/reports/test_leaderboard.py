"""From hand-written records to exact tables."""

from __future__ import annotations

from lra.figures.page.rows import measured_lines
from lra.figures.runs import board
from lra.reports.leaderboard import leaderboard, leaderboard_report, render, to_frame
from lra.reports.report import write
from tests.helpers.records import GENERATED, record, with_published


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


def test_the_interval_of_one_seed_is_said_to_be_of_the_test_alone():
    assert "n=1: the interval is test sampling only, one seed." in render([record("vmean", 0, 0.3)])
    assert "n=1: the interval" not in render([record("vmean", seed, 0.3) for seed in (0, 1)])


def test_own_settings_are_marked_and_no_run_of_another_size_is_at_the_published_one():
    command = "python run.py task=listops attn=vmean scale=full results_dir=r trainer.micro_batch=2"
    runs = [
        record("softmax", 0, 0.4, scale="full", command=command),
        record("vmean", 0, 0.3, scale="full", command=f"{command} trainer.steps=40 task.num_train=200"),
        record("none", 0, 0.2, scale="full", command=f"{command} trainer.eval_every=250"),
        record("vmean", 0, 0.3, group="mini", command="python run.py scale=mini attn.budget=4"),
    ]
    published, own, mini = render(runs).split("### ")[1:]
    assert published.startswith("scale=full, protocol")
    assert "| none [own: trainer.eval_every=250] |" in published
    assert "vmean" not in published
    assert own.startswith("scale=full, own settings, protocol")
    assert "| vmean [own: task.num_train=200; trainer.steps=40] |" in own
    assert "| vmean [own: attn.budget=4] |" in mini


def test_own_settings_tell_namesakes_apart():
    config = {"trainer": {"steps": 40}}
    runs = [
        record("vmean", 0, 0.3, config={"trainer": {"steps": 4000}}),
        record("vmean", 0, 0.2, group="own", config=config, command="python run.py attn=vmean trainer.steps=40"),
    ]
    assert [standing.label for standing in leaderboard(runs)] == [
        "vmean", "vmean [own: trainer.steps=40]",
    ]  # fmt: skip


def test_rows_are_in_one_order_in_table_figure_and_page(tmp_path):
    # By the mean of their ranks, "few" is behind "all", which has the lower mean accuracy.
    runs = [
        record("all", 0, 0.5), record("other", 0, 0.4), record("failed", 0, None, status="diverged"),
        record("all", 0, 0.9, task="text"), record("few", 0, 0.8, task="text"),
        record("baseline_cnn", 0, 0.95, task="text"),
    ]  # fmt: skip
    order = ["all", "other", "few", "failed", "baseline: cnn"]
    table = [line.split("|")[1].strip() for line in render(runs).splitlines() if line.startswith("| ")][2:]
    assert table[: len(order)] == order
    assert [label.get_text() for label in board(runs).axes[0].get_yticklabels()] == order
    lines = measured_lines(runs, with_published(tmp_path))
    for task in ("listops", "text"):
        names = [line.cells["name"].text for line in lines if line.cells["task"].text == task and line.key]
        assert names == [name for name in order if name in names]


def test_a_protocol_says_which_weights_count():
    last = {"attn": {"name": "softmax"}, "protocol": {"name": "skeinformer", "tested": "last"}}
    run = record("softmax", 0, 0.4, last_test_accuracy=0.3, config=last)
    (standing,) = leaderboard([run])
    assert standing.accuracy.mean == 0.3
    assert "Tested: the weights of the last step." in render([run])


def test_runs_that_differ_in_more_than_the_seed_are_never_averaged():
    records = [
        record("skeinformer", 0, 0.3, group="a", config={"attn": {"num_samples": 15}}),
        record("skeinformer", 0, 0.4, group="b", config={"attn": {"num_samples": 30}}),
    ]
    board = leaderboard(records)
    assert [standing.n for standing in board] == [1, 1]
    assert [standing.keys for standing in board] == ["a-0", "b-0"]
    assert "skeinformer [attn.num_samples=30] | 40.0" in render(records)
    assert "skeinformer [attn.num_samples=15] | 30.0" in render(records)
    many = {f"s{number}": number for number in range(9)}
    records.append(record("skeinformer", 0, 0.2, group="c", config={"attn": {"num_samples": 15}, "more": many}))
    assert "[attn.num_samples=15, more.s0=0, more.s1=1, 7 more: c]" in render(records)


def test_runs_are_told_apart_by_what_their_encoder_was_pre_trained_for_and_then_by_how():
    def runs(**nodes):
        return [record("softmax", 0, 0.4, group=name, config={"pretrain": node}) for name, node in nodes.items()]

    none, masked = {}, {"kind": "masked", "rate": 0.1, "steps": 9, "batch_size": 32}
    causal = {"kind": "causal", "rate": None, "steps": 9, "batch_size": 32}
    kinds = ["pretrain=none", "pretrain=masked", "pretrain=causal"]
    assert [one.settings for one in leaderboard(runs(a=none, b=masked, c=causal))] == kinds
    assert [one.label for one in leaderboard(runs(b=masked))] == ["softmax [pretrain=masked]"]
    rates = leaderboard(runs(a=none, b=masked, c={**masked, "rate": 0.5}))
    assert [one.settings for one in rates] == [
        "pretrain=none", "pretrain=masked, pretrain.rate=0.1", "pretrain=masked, pretrain.rate=0.5"
    ]  # fmt: skip


def test_a_class_that_moved_and_an_option_that_came_later_are_no_settings_of_a_run():
    attn = {"name": "nystromformer", "version": 1}
    block = {"mlp": True, "norm": "layer", "place": "pre"}
    runs = [
        record("nystromformer", 0, 0.4, config={"attn": {**attn, "_target_": "here.Nystrom"}, "model": {}}),
        record("nystromformer", 1, 0.5, config={"attn": attn, "model": {"block": block}}),
    ]
    assert [standing.settings for standing in leaderboard(runs)] == [""]


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


def test_no_records_is_no_error():
    assert write(leaderboard_report([]), "markdown").startswith("No records yet")
    assert to_frame([]).empty
    assert to_frame(leaderboard([record("a", 0, 0.1)]))["accuracy"].tolist() == [0.1]


def test_seeds_that_ran_on_several_makes_of_processor_are_named():
    makes = ["AMD EPYC 7B13", "AMD EPYC 7B13", "Intel Xeon"]
    runs = [record("softmax", seed, 0.4, environment={"device_name": make}) for seed, make in enumerate(makes)]
    others = [record("vmean", seed, 0.3, environment={"device_name": "Intel Xeon"}) for seed in (0, 1)]
    notes = leaderboard_report([*runs, *others]).notes
    assert notes[-1] == (
        "softmax on listops ran on several makes of processor, whose rounding adds to the spread over seeds: "
        "AMD EPYC 7B13 (seed 0, 1); Intel Xeon (seed 2)."
    )
    assert len(notes) == len(leaderboard_report(others).notes) + 1
    capable = [
        record("softmax", seed, 0.4, environment={"device_name": "AMD EPYC", "cpu_capability": capability})
        for seed, capability in enumerate(["AVX2", "AVX512"])
    ]
    assert "AMD EPYC, AVX2 (seed 0); AMD EPYC, AVX512 (seed 1)" in leaderboard_report(capable).notes[-1]
