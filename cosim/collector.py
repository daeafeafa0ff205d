"""Python's cyclic garbage collector as runs, learners and commands need it: the one place that sets it.

Jobs come and go by the million and are in no cycle. At its usual threshold of 700 objects the collector goes through
all that live every few thousand of them, which with 40 000 jobs under way at 40 000 GPUs is a good part of a run.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NET_OBJECTS = 100_000
"""Objects made and not freed after which cycles are looked for."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Within it cycles are looked for rarely, and not among what was there before."""
    before = gc.get_threshold()
    if not gc.isenabled() or not 0 < before[0] < _NET_OBJECTS:  # switched off; or as rare, by `settle` or around this
        yield
        return
    mine = not gc.get_freeze_count()  # who has frozen something keeps it so; to count takes as long as there is more
    if mine:
        gc.freeze()
    gc.set_threshold(_NET_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if mine:
            gc.unfreeze()


def settle() -> None:
    """What has been made so far stays: look for cycles seldom, and not among it."""
    gc.freeze()
    gc.set_threshold(_NET_OBJECTS)


def skip_the_last() -> None:
    """At the end of the process nothing is collected: it would go through pandapower's or torch's modules for a
    second."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
