"""Cells on processes of this machine, one thread of linear algebra each; a process is this module run as a program."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cosim.campaign.perform import Order, perform
from cosim.errors import CosimError, ModelError
from cosim.learning.shared import Child, say, say_failure, spoken_to

_ADVICE = "with fewer --jobs if memory ran out"


class WorkerDied(ModelError):
    """The process that computed a cell ended by itself, or was killed."""


class LocalEngine:
    """Up to `jobs` processes, each of which computes cell after cell. They end with this process, however it ends."""

    def __init__(self, jobs: int) -> None:
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="cells")
        self._mine = threading.local()
        self._children: set[Child] = set()
        self._closed = False

    def submit(self, order: Order) -> Future[dict[str, Any]]:
        """The stored state of the cell, later (`perform`). WorkerDied where its process ends before."""
        return self._threads.submit(self._do, order)

    def close(self) -> None:
        """End the processes, whatever they compute."""
        self._closed = True
        for child in list(self._children):
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.end()

    def _do(self, order: Order) -> dict[str, Any]:
        child = getattr(self._mine, "child", None)
        try:
            if child is None:
                child = self._mine.child = self._new()
            child.send(json.dumps(order).encode() + b"\n")
            return json.loads(child.answer())
        except ModelError as err:
            self._mine.child = None
            raise WorkerDied(str(err)) from None

    def _new(self) -> Child:
        child = Child("cosim.campaign.local", "the process of this cell", {}, _ADVICE)
        self._children.add(child)
        if self._closed:
            child.kill()
        return child


def main(do: Callable[[Order], dict[str, Any]] = perform) -> int:
    """A process: computes the cell that each line describes, until its input ends."""
    commands, answers = spoken_to()
    commands.readline()
    while line := commands.readline():
        try:
            say(answers, json.dumps(do(json.loads(line))).encode())
        except CosimError as err:
            say_failure(answers, err)
    return 0


if __name__ == "__main__":
    sys.exit(main())
