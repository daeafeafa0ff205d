"""What all tests share."""

import collections
import os

import pytest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the many processes that tests start compile the package once
os.environ.pop("COLUMNS", None)  # the width of the terminal that tests are run in, which narrows what commands print


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """How fast a machine is decides nothing: what a command prints does not depend on how long it takes."""
    monkeypatch.setattr("cosim.progress.EVERY_S", 3600.0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The first cases of a test that is `long(after=K)` are no long ones."""
    seen = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("long")
        if mark is None or "after" not in mark.kwargs:
            continue
        test = item.nodeid.partition("[")[0]
        seen[test] += 1
        if seen[test] <= mark.kwargs["after"]:
            item.own_markers = [own for own in item.own_markers if own.name != "long"]
