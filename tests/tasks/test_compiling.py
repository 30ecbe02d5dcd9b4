"""Compiled functions where there is a place for their machine code, and where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numba import types
from numba.core import caching

from lra.tasks.compiling import kept_on_disk

LOCATORS = [caching.CacheImpl, caching.CompileResultCacheImpl]
SIGNATURES = [None, types.int64(types.int64)]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_without_a_place_it_is_compiled_all_the_same(monkeypatch, signature):
    for kind in LOCATORS:
        monkeypatch.setattr(kind, "_locator_classes", [])

    @kept_on_disk(signature)
    def double(x):
        return 2 * x

    assert double(np.int64(21)) == 42


def test_without_a_home_numba_is_asked_for_no_place(monkeypatch):
    """It would make a folder called ~ where one stands."""
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.setattr(caching.CacheImpl, "__init__", lambda *_: pytest.fail("it was asked"))

    @kept_on_disk()
    def double(x):
        return 2 * x

    assert double(np.int64(21)) == 42


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("action", ["save", "load"])
def test_a_full_disk_or_files_of_another_user_do_not_stop_it(monkeypatch, signature, action):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, action, fail)

    @kept_on_disk(signature)
    def double(x):
        return 2 * x

    assert [double(np.int64(n)) for n in (21, 22)] == [42, 44]
