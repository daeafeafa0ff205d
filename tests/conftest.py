"""What all tests share."""

import collections
import gc
import os

import pytest

from cosim.collector import settle

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the many processes that tests start compile the package once
os.environ.pop("COLUMNS", None)  # the width of the terminal that tests are run in, which narrows what commands print


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """How fast a machine is decides nothing: what a command prints does not depend on how long it takes."""
    monkeypatch.setattr("cosim.progress.EVERY_S", 3600.0)


FIRST = ("test_compiled.py", "test_batched.py", "test_variation.py", "test_vector.py",
         "test_layers.py", "test_words.py", "test_bounds.py", "test_hints.py", "test_docs.py")
"""Which have numba compile all kernels, most of a minute where none is kept yet; then those that share syntax trees;
then those that take longest one by one, so that the workers end together."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection():
    """Of what is imported and collected nothing becomes garbage; a worker goes through it in no collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        settle()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The first cases of a test that is `long(after=K)` are no long ones. What is made once for several comes first,
    and so to one worker: another that needs the kernels later finds them on the disk."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
    seen = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("long")
        if mark is None or "after" not in mark.kwargs:
            continue
        test = item.nodeid.partition("[")[0]
        seen[test] += 1
        if seen[test] <= mark.kwargs["after"]:
            item.own_markers = [own for own in item.own_markers if own.name != "long"]
