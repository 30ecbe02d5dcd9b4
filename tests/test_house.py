"""The shape of the house: short functions, a phrase for each package, tests that stand alone."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import pytest

from lra.files import ROOT

LONGEST = 50
# Compiled loops and kernels, which calls would make slower or harder to follow, and a table of tables.
LONGER = {"models/ops/block_attention.py": "attend_blocks", "lra/tasks/pathfinder/stimulus.py": "shapes"}
PRODUCT = [
    ROOT / "run.py",
    *(path for top in ("lra", "models", "scripts") for path in sorted((ROOT / top).rglob("*.py"))),
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def trees(paths):
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def imported(tree: ast.Module) -> set[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {node.module for node in nodes} | {f"{node.module}.{name.name}" for node in nodes for name in node.names}


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{path}: {node.name}"
        for path, tree in trees(PRODUCT).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST
    }
    assert long == {f"{path}: {name}" for path, name in LONGER.items()}


def test_the_product_imports_no_test_and_tests_import_none_of_their_own_kind():
    assert not [
        path for path, tree in trees(PRODUCT).items() if any(name.startswith("tests") for name in imported(tree))
    ]
    of_test = re.compile(r"tests\.(?:\w+\.)*test_\w+")
    assert not [path for path, tree in trees(TESTS).items() if any(of_test.match(name) for name in imported(tree))]


@pytest.mark.parametrize("top", ["lra", "models"])
def test_the_readme_has_a_phrase_for_each_package(top):
    tree = (ROOT / "README.md").read_text().partition("## What is where")[2].partition("## Add an attention")[0]
    packages = {path.parent.name for path in (ROOT / top).glob("*/__init__.py")}
    lines = tree.partition(f"\n{top}/ ")[2]
    named = re.findall(r"^  (\w+)/ +\S", re.split(r"\n(?=\S)", lines)[0], re.MULTILINE)
    assert set(named) == packages


def test_tests_stand_where_the_files_do_that_they_test():
    packages = {path.parent.name for path in (ROOT / "lra").glob("*/__init__.py")}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - {"helpers", "twins", "configs", "models"} == packages


@pytest.mark.slow
def test_a_test_has_the_same_name_in_every_process():
    """Several processes share the tests out by name: a time, or the order of a set, in one name ends them all."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    names = [
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        for seed in "12"
    ]
    assert names[0].returncode == 0, names[0].stdout[-2000:]
    first, second = ([line for line in run.stdout.splitlines() if "::" in line] for run in names)
    assert len(first) > 1000
    assert first == second
