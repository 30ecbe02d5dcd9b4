PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install run test test-slow test-gpu lint format tables clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

# What running needs, and beside it what the tests need: independent implementations to compare with, linters.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  "Python 3.11, 3.12 or 3.13 is needed, %s is %d.%d: make PYTHON=/path/to/python3.11 ..." % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.tested: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,oracles,tfds,joblib,slurm,ray,optuna]'
	@touch $@

install: .venv/.installed .venv/.tested  ## Make .venv with the pinned packages

run: .venv/.installed  ## Train Skeinformer on ListOps, minutes on two cores
	$(BIN)/python run.py task=listops attn=skeinformer scale=mini

test: .venv/.tested  ## Run the fast tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-slow: .venv/.tested  ## Run the tests that take longer
	$(BIN)/python -m pytest -m 'slow and not gpu' --numprocesses 2 --dist worksteal

test-gpu: .venv/.tested  ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: .venv/.tested  ## Check style, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.tested  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tables: .venv/.tested  ## Rebuild results/tables and the leaderboard's notebook from the committed records
	$(BIN)/python scripts/report.py tables
	$(BIN)/python scripts/report.py notebook

clean:  ## Remove the environment and every cache of the checkout; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
