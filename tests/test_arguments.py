"""The scripts' command line."""

from __future__ import annotations

import pytest

from lra.arguments import parse
from lra.errors import InputError


def test_arguments():
    known = {"verbs": ("show", "collect"), "options": {"results_dir": "results"}}
    assert parse([], **known) == ("show", {"results_dir": "results"})
    assert parse(["collect", "results_dir=a=b"], **known) == ("collect", {"results_dir": "a=b"})
    for words, message in ((["colect"], "Did you mean collect"), (["resultsdir=x"], "Did you mean results_dir=")):
        with pytest.raises(InputError, match=message):
            parse(words, **known)
