"""The published numbers' form."""

from __future__ import annotations

import re
import shutil

import pytest

from lra.errors import InputError
from lra.papers.published import METRICS, find_model, load_models, load_tables
from tests.helpers.configurations import CONFIGS, EXPERIMENTS, choices
from tests.helpers.published import MODELS, NUMBERS, TABLES
from tests.helpers.records import PUBLISHED

TASKS = {*choices("task"), "avg", "all"}


def test_the_numbers_have_the_form_that_is_documented():
    names = ["source", "year", "table", "model", "task", "length", "metric", "value", "unit", "status", "note"]
    assert list(NUMBERS.columns) == [*names, "printed", "method", "origin", "labels"]
    assert not NUMBERS.duplicated(["source", "table", "model", "task", "length", "metric"]).any()
    for name in ("source", "model", "metric", "unit", "status"):
        assert all(re.fullmatch("[a-z0-9_]+", key) for key in NUMBERS[name].unique()), name
    assert set(NUMBERS["task"]) <= TASKS
    assert set(NUMBERS["status"]) == {"reported", "fail", "not_reported"}
    assert (NUMBERS["value"].isna() == (NUMBERS["status"] != "reported")).all()
    assert ((NUMBERS["printed"] == "") == NUMBERS["value"].isna()).all()
    assert NUMBERS.groupby("metric")["unit"].nunique().max() == 1
    assert NUMBERS["length"].str.fullmatch(r"\d*").all()
    assert NUMBERS["year"].str.fullmatch(r"(20\d\d)?").all()
    percent = NUMBERS[NUMBERS["unit"] == "percent"]["value"].dropna()
    assert percent.between(0, 100).all()


def test_every_row_of_a_table_with_runs_finds_its_mechanism():
    for (source, model, task), ours in MODELS.items():
        assert ours.attn in choices("attn")
        assert ours.protocol in choices("protocol")
        assert task in {"", *TASKS}
        assert model in set(NUMBERS[NUMBERS["source"] == source]["model"])
    for table in TABLES.values():
        assert set(table.metrics) <= set(METRICS)
        assert table.source == "" or len(table.numbers)
        assert table.experiment in ("", *EXPERIMENTS)
        if table.experiment and table.source:
            experiment = EXPERIMENTS[table.experiment]
            for row in table.numbers:
                ours = find_model(MODELS, table.source, row.model, row.task)
                assert ours is not None
                assert ours.attn in experiment.attns
                assert ours.protocol == experiment.protocol


def test_every_experiment_has_a_table():
    """Those that sweep one more setting have the one of `report.py effect`."""
    assert {name for name, experiment in EXPERIMENTS.items() if not experiment.factor} <= set(TABLES)
    assert {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")} == set(EXPERIMENTS)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a,b\n1,2\n", b'name,source\n"x', b"name,metrics\nx,fast\n", None])
@pytest.mark.parametrize("name", ["numbers.csv", "methods.csv", "tables.csv", "models.csv"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, content):
    shutil.copytree(PUBLISHED, tmp_path / "published")
    path = tmp_path / "published" / name
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.* cannot be read: .*Restore it with git"):
        load_tables(tmp_path), load_models(tmp_path)
