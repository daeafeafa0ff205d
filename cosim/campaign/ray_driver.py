"""Cells as tasks of Ray: the program that is Ray's driver, in a process of its own (`cosim.campaign.ray_engine`).

Its first line states the cluster, every further one a cell. The end of its input ends it, and a cluster that it
started.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from cosim.campaign.perform import perform_text
from cosim.drivers.remote import is_loopback
from cosim.errors import ModelError, first_line
from cosim.learning.shared import SharedFolder, say, say_failure, spoken_to

_OBJECTS_BYTES = 80 << 20
"""Of Ray's store of objects, near to the least it takes: results are files, and only states pass through Ray."""
DIED = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError,
        exceptions.LocalRayletDiedError)


def main() -> int:
    """The program."""
    commands, answers = spoken_to()
    start = json.loads(commands.readline())
    with Path(start["log"]).open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    address, folder = start["address"], None
    try:
        folder = SharedFolder() if address is None else None
        _connect(start, folder)
    except (Exception, SystemExit) as err:  # Ray has no base of its errors
        say_failure(answers, ModelError(f"Ray {f'cannot be reached at {address}' if address else 'does not start'}: "
                                        f"{first_line(err, 160)}; {start['log']} has more"))
        if folder:
            folder.close()
        return ModelError.exit_code
    say(answers, b"")
    task = ray.remote(num_cpus=1, max_retries=0)(perform_text)
    one_at_a_time = threading.Lock()

    def answer(future: Future[str], number: int) -> None:
        with one_at_a_time, suppress(OSError):  # nothing reads any more once the campaign has ended
            say(answers, json.dumps({"number": number, **_outcome(future)}).encode())

    while line := commands.readline():
        order = json.loads(line)
        future = task.remote(json.dumps(order["order"])).future()
        future.add_done_callback(partial(answer, number=order["number"]))
    ray.shutdown()
    if folder:
        folder.close()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(0)  # threads of Ray would be waited for


def _connect(start: Mapping[str, Any], folder: SharedFolder | None) -> None:
    """Connect to the cluster, or start one that only this machine reaches."""
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if folder is None:
        ray.init(start["address"], runtime_env={"env_vars": start["env"]}, **common)
        return
    ray.init("local", num_cpus=start["jobs"], num_gpus=0, include_dashboard=False, object_store_memory=_OBJECTS_BYTES,
             _temp_dir=str(folder.path), **common)
    reached = ray.nodes()[0]["NodeManagerAddress"]
    if not is_loopback(reached):
        ray.shutdown()
        raise ModelError(f"this version of Ray listens on {reached}, where other machines reach it, and not on "
                         "loopback alone; start a cluster yourself and give its --address")


def _outcome(future: Future[str]) -> dict[str, Any]:
    """What came of a task: `said`, the text it returned; `died` or `failed`, why it did not."""
    try:
        return {"said": future.result()}
    except DIED as err:
        return {"died": f"its Ray worker ended by itself ({type(err).__name__})"}
    except Exception as err:
        return {"failed": f"Ray: {first_line(err, 200)}"}


if __name__ == "__main__":
    sys.exit(main())
