"""What papers print, read once for all tests."""

from __future__ import annotations

from lra.files import ROOT
from lra.papers.published import load_models, load_numbers, load_tables

RESULTS = ROOT / "results"


NUMBERS, MODELS, TABLES = load_numbers(RESULTS), load_models(RESULTS), load_tables(RESULTS)
