"""Runs where an event loop runs already, as in Jupyter: mosaik has a loop of its own, and a thread has room for one."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from cosim.errors import CosimError

Answer = TypeVar("Answer")


def beside_running_loop(work: Callable[[], Answer], stop: Callable[[], None]) -> Answer:
    """What `work` returns or raises; called in a thread of its own where this one runs an event loop.

    stop: called upon Ctrl-C to end the work; KeyboardInterrupt is raised once it has. A second Ctrl-C does not wait.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as err:
            outcome.set_exception(err)

    context = contextvars.copy_context()
    threading.Thread(target=run, name="cosim run", daemon=True).start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        stop()
        try:
            outcome.result()
        except CosimError as err:
            raise KeyboardInterrupt(str(err)) from err
        raise
