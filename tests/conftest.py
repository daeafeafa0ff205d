"""What all tests share."""

import os

import pytest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the many processes that tests start compile the package once
os.environ.pop("COLUMNS", None)  # the width of the terminal that tests are run in, which narrows what commands print


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """How fast a machine is decides nothing: what a command prints does not depend on how long it takes."""
    monkeypatch.setattr("cosim.progress.EVERY_S", 3600.0)
