"""What a setting changes: differences by example and by seed, against plain sums; which runs are compared at all."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from lra.errors import InputError
from lra.figures.effect import effect_figure
from lra.records.collection import load_records
from lra.records.identity import run_group, run_key
from lra.reports.effect import contrast, effect_report
from lra.statistics import student_interval
from tests.helpers.records import LABELLED, saved, sound
from tests.helpers.shown import printed


def with_settings(attn, seed, accuracy, task="listops", **settings):
    """A record with settings of its own, given by paths in which __ stands for a dot."""
    run = sound(attn, seed, accuracy, task=task)
    for path, value in settings.items():
        *parents, name = path.split("__")
        node = run.config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    run.config.setdefault("model", {}).setdefault("dim", 8)
    run.config.setdefault("trainer", {}).setdefault("steps", 10)
    run.key, run.group = run_key(run.config), run_group(run.config)
    run.train_seconds = 12.0
    return run


def test_a_contrast_counts_the_spread_over_seeds_and_over_examples():
    rng = np.random.default_rng(0)
    a, b = ({seed: rng.random(500) < share for seed in range(3)} for share in (0.6, 0.5))
    b[7] = rng.random(500) < 0.5  # a seed that a lacks
    made = contrast((1, a), (-1, b))
    differences = [float(a[seed].mean() - b[seed].mean()) for seed in range(3)]
    assert made.value == pytest.approx(statistics.fmean(differences))
    assert made.seeds == 3
    by_example = [
        statistics.fmean(int(a[seed][example]) - int(b[seed][example]) for seed in range(3)) for example in range(500)
    ]
    sampling = 1.959964 * statistics.pstdev(by_example) / math.sqrt(500)
    assert made.half_width == pytest.approx(math.hypot(student_interval(differences)[1], sampling))
    assert contrast((1, a), (-1, a)).half_width == 0  # what all have in common cancels
    alone = contrast((1, {0: a[0]}), (-1, {0: b[0]}))
    discordant = [(a[0] & ~b[0]).sum(), (b[0] & ~a[0]).sum()]
    variance = sum(discordant) - (discordant[0] - discordant[1]) ** 2 / 500
    assert alone.half_width == pytest.approx(1.959964 * math.sqrt(variance) / 500)
    assert contrast((1, a), (-1, {9: a[0]})) is None


def test_only_runs_that_differ_in_nothing_else_are_compared(tmp_path):
    learned, rotary = {"model__positions": "learned"}, {"model__positions": "rotary"}
    runs = [
        *(with_settings("softmax", seed, 0.40, **learned) for seed in (0, 1)),
        *(with_settings("softmax", seed, 0.45, **rotary) for seed in (0, 1)),
        with_settings("performer", 0, 0.30, **learned),
        with_settings("s4d", 0, 0.50, **learned),
        with_settings("s4d", 0, 0.52, **rotary),
        with_settings("softmax", 0, 0.90, **rotary, trainer__steps=20),
    ]
    saved(tmp_path, *runs, labels=LABELLED)
    report = effect_report(tmp_path, load_records(tmp_path), "model.positions", "learned", to="s4d")
    (table,) = report.tables  # the one of 20 steps has nothing beside it
    assert table.head[:4] == ["attn", "learned %", "rotary %", "gain by rotary"]
    cells = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert list(cells) == ["s4d", "softmax", "performer"]
    assert cells["softmax"]["learned %"].startswith("40.0 [")
    assert cells["softmax"]["gain by rotary"].startswith("+5.0")
    assert cells["softmax"]["behind, learned"].startswith("+10.0")
    assert cells["softmax"]["closes by rotary"].startswith("+3.0")
    assert (
        cells["performer"]["gain by rotary"] == cells["performer"]["rotary %"] == cells["s4d"]["behind, learned"] == ""
    )
    frame = report.frame.set_index(["attn", "value"])
    assert frame.loc[("softmax", "rotary"), "gain"] == pytest.approx(0.05)
    assert frame.loc[("softmax", "rotary"), "keys"] == " ".join(sorted(run.key for run in runs[2:4]))
    drawn = effect_figure(report.title, report.frame)
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == ["s4d", "softmax", "performer"]


def test_at_the_published_size_the_setting_itself_makes_no_own_table_and_others_are_told(tmp_path):
    def run(positions, *words, **settings):
        made = with_settings("softmax", 0, 0.4, model__positions=positions, scale="full", **settings)
        made.scale, made.command = "full", " ".join(["python run.py", f"model.positions={positions}", *words])
        return made

    shorter = {"trainer__steps": 20}
    runs = [run(name) for name in ("learned", "rotary")]
    runs += [run(name, "trainer.steps=20", **shorter) for name in ("learned", "rotary")]
    saved(tmp_path, *runs, labels=LABELLED)
    report = effect_report(tmp_path, load_records(tmp_path), "model.positions", "learned")
    assert {table.title for table in report.tables} == {"listops, scale=full, protocol=skeinformer, on cpu"}
    told = {table.notes[1]: table.notes[2:] for table in report.tables}
    assert told == {"With trainer.steps=10.": [], "With trainer.steps=20.": ["Own: trainer.steps=20."]}
    drawn = effect_figure(report.title, report.frame)
    titles = {axis.get_title(loc="left") for axis in drawn.axes}
    assert titles == {
        "listops\ntrainer.steps=10",
        "listops\ntrainer.steps=20",
    }


def test_a_run_from_before_an_option_counts_with_its_neutral_value(tmp_path):
    shortened = {"model__reducer": {"kind": "k_centre_r", "retention": 0.5}}
    saved(tmp_path, with_settings("a", 0, 0.4), with_settings("a", 0, 0.3, **shortened), labels=LABELLED)
    neutral = {"kind": "none", "retention": 0.8}
    (table,) = effect_report(tmp_path, load_records(tmp_path), "model.reducer", neutral).tables
    assert table.head[1:3] == ["none %", "k_centre_r %"]
    assert table.rows[0][3].startswith("\N{MINUS SIGN}10.0*")


def test_a_key_in_a_node_of_neutral_values_is_compared_with_the_others_of_it(tmp_path):
    conv = {"model__stem": {"kind": "conv", "width": 3, "place": "embedding"}}
    none = {"model__stem": {"kind": "none", "width": 3, "place": "embedding"}}
    older = with_settings("a", 1, 0.4)
    saved(tmp_path, with_settings("a", 0, 0.4, **none), older, with_settings("a", 0, 0.5, **conv), labels=LABELLED)
    (table,) = effect_report(tmp_path, load_records(tmp_path), "model.stem.kind", "none").tables
    assert table.head[1:3] == ["none %", "conv %"]
    assert "(n=2)" in table.rows[0][1]


PRETRAIN = {"kind": "masked", "rate": 0.1, "share": None, "steps": 10}
TIED = {**PRETRAIN, "share": 0.4, "steps": 4}


def test_pre_trainings_are_named_as_they_are_typed_and_cost_what_both_stages_take(tmp_path):
    scratch, masked, tied = (
        with_settings("a", 0, accuracy, **settings)
        for accuracy, settings in ((0.4, {}), (0.5, {"pretrain": PRETRAIN}), (0.45, {"pretrain": TIED}))
    )
    masked.pretraining, tied.pretraining = {"train_seconds": 30.0}, {"train_seconds": None}
    other = [  # another task hides more, which tells no two of its runs apart
        with_settings("a", 0, 0.5, task="image"),
        with_settings("a", 0, 0.6, task="image", pretrain={**PRETRAIN, "rate": 0.5}),
    ]
    saved(tmp_path, scratch, masked, tied, *other, labels=LABELLED)
    report = effect_report(tmp_path, load_records(tmp_path), "pretrain", {"kind": "none", "share": None})
    image, listops = report.tables
    assert image.head[1:3] == ["none %", "masked %"]
    assert listops.head == [
        "attn", "none %", "masked %", "masked_tied %", "gain by masked", "gain by masked_tied", "none, s", "masked, s",
        "masked_tied, s",
    ]  # fmt: skip
    assert listops.rows[0][-3:] == ["12", "42", ""]
    assert list(report.frame["value"].unique()) == ["none", "masked", "masked_tied"]


def test_pre_trainings_of_one_name_are_told_apart(tmp_path):
    rates = [with_settings("a", 0, 0.5, pretrain={**PRETRAIN, "rate": rate}) for rate in (0.2, 0.1)]
    saved(tmp_path, *rates, labels=LABELLED)
    (table,) = effect_report(tmp_path, load_records(tmp_path), "pretrain", None).tables
    assert table.head[1:3] == ["masked, rate 0.1 %", "masked, rate 0.2 %"]


def test_settings_of_a_mechanism_are_compared_and_others_of_it_make_rows(tmp_path):
    runs = [
        with_settings("a", 0, 0.4 + budget / 1000, attn__budget=budget, **more)
        for more in ({}, {"attn__causal": True})
        for budget in (8, 16, 100)
    ]
    saved(tmp_path, *runs, labels=LABELLED)
    (table,) = effect_report(tmp_path, load_records(tmp_path), "attn.budget", None).tables
    assert table.head[1:4] == ["8 %", "16 %", "100 %"]
    assert sorted(row[0] for row in table.rows) == ["a", "a [causal=True]"]


def test_places_that_differ_in_a_setting_are_drawn_apart(tmp_path):
    runs = [
        with_settings("a", 0, 0.4, model__positions=positions, trainer__steps=steps)
        for positions in ("learned", "rotary")
        for steps in (10, 20)
    ]
    saved(tmp_path, *runs, labels=LABELLED)
    report = effect_report(tmp_path, load_records(tmp_path), "model.positions", "learned")
    assert set(report.frame["conditions"]) == {"trainer.steps=10", "trainer.steps=20"}
    titles = [axis.get_title(loc="left") for axis in effect_figure(report.title, report.frame).axes]
    assert len(set(titles)) == len(titles) == 2


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    saved(tmp_path, with_settings("a", 0, 0.4, model__positions="none"), labels=LABELLED)
    records = load_records(tmp_path)
    with pytest.raises(InputError, match=r"Nothing was run with two values of model.positions: all 1 runs have none"):
        effect_report(tmp_path, records, "model.positions", "learned")
    with pytest.raises(InputError, match=r"No record has a setting 'model.position'"):
        effect_report(tmp_path, records, "model.position", None)
    with pytest.raises(InputError, match=r"effect needs a setting, of=KEY"):
        printed(capsys, "effect", f"results_dir={tmp_path}")
    with pytest.raises(InputError, match=r"No run of these is of to=s5d\. Choose from a\."):
        printed(capsys, "effect", f"results_dir={tmp_path}", "of=model.positions", "to=s5d")
    with pytest.raises(
        InputError, match=r"No record has a setting 'trainer.eval_batch_size'"
    ):  # which another key sets
        printed(capsys, "effect", f"results_dir={tmp_path}", "of=trainer.eval_batch_size")
