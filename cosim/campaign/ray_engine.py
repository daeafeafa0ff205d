"""Cells on a Ray cluster: one on this machine that lives as long as the campaign, or one that runs elsewhere.

Ray's driver is a process of its own (`cosim.campaign.ray_driver`): what Ray changes in a process (signals, limits,
logs) stays there, and it ends with the campaign. A cluster on this machine listens on loopback, with a token that only
its processes have; its files are in a folder that goes with it, and nothing goes into the home directory.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cosim import errors
from cosim.campaign.local import WorkerDied
from cosim.campaign.perform import Order
from cosim.drivers.remote import address_of
from cosim.errors import CosimError, ModelError, ScenarioError
from cosim.learning.shared import ONE_THREAD, Child

LOG = "ray.log"
_PATIENCE_S, _ANSWER_S = 30.0, 10.0
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No usage statistics; and a cell may use the machine's accelerators, as in a process of this machine."""
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's own switch for clusters that listen on loopback alone, which is its default on Windows and macOS only."""
_GIVEN_ON = ("PYTHONPATH", *ONE_THREAD)


class RayEngine:
    """Up to `jobs` tasks at a time. address: 'HOST:PORT' of a cluster that has the same folders; None: a new one on
    this machine. out: folder for what Ray prints. ScenarioError without Ray, ModelError where the cluster does not
    start or cannot be reached."""

    def __init__(self, jobs: int, address: str | None, out: Path) -> None:
        if find_spec("ray") is None:
            raise ScenarioError("the engine 'ray' needs the package ray, which is not installed; install it with: "
                                "pip install 'aidc-cosim[ray]'")
        if address is not None and address != "auto":
            _reached(address)
        env = dict(_QUIET)
        if address is None:
            env |= {**_LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        given_on = {name: value for name, value in {**ONE_THREAD, **os.environ}.items() if name in _GIVEN_ON}
        self._child = Child("cosim.campaign.ray_driver", "Ray's driver", {
            "address": address, "jobs": jobs, "env": given_on, "log": str(out / LOG)}, "the same command goes on", env,
            tidies=True)
        try:
            self._child.answer()
        except ModelError:
            self._child.end(_PATIENCE_S)
            raise
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._number, self._ended = 0, ""
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._read, daemon=True, name="ray").start()

    def submit(self, order: Order) -> Future[dict[str, Any]]:
        """The stored state of the cell, later (`perform`). WorkerDied where its process ends before, ModelError where
        Ray's driver has ended."""
        future: Future[dict[str, Any]] = Future()
        with self._one_at_a_time:
            if self._ended:
                raise ModelError(self._ended)
            self._number += 1
            self._waiting[self._number] = future
        self._child.send(json.dumps({"number": self._number, "order": order}).encode() + b"\n")
        return future

    def close(self) -> None:
        """End the tasks, whatever they compute, and a cluster that was started here."""
        self._child.end(_PATIENCE_S)

    def _read(self) -> None:
        """Settle futures as replies come, until the driver has ended."""
        with suppress(ValueError, OSError):  # closed meanwhile
            while True:
                try:
                    said = json.loads(self._child.answer())
                except CosimError as err:
                    with self._one_at_a_time:
                        self._ended, left = str(err), list(self._waiting.values())
                    for future in left:  # they wait for the next go, which `submit` refuses
                        future.set_exception(WorkerDied(self._ended))
                    return
                with self._one_at_a_time:
                    future = self._waiting.pop(said["number"])
                _settle(future, said)


def _reached(address: str) -> None:
    """ModelError where nothing answers at HOST:PORT; Ray itself tries for minutes."""
    place = address_of(address)
    assert place is not None, "it was checked"
    try:
        socket.create_connection(place, _ANSWER_S).close()
    except OSError as err:
        raise ModelError(f"no Ray cluster answers at {address}: {err.strerror or err}; ray start --head prints the "
                         "address of one") from None


def _settle(future: Future[dict[str, Any]], said: dict[str, Any]) -> None:
    if "died" in said:
        future.set_exception(WorkerDied(said["died"]))
    elif "failed" in said:
        future.set_exception(ModelError(said["failed"]))
    else:
        state = json.loads(said["said"])
        if "kind" in state:
            future.set_exception(getattr(errors, state["kind"], ModelError)(state["text"]))
        else:
            future.set_result(state)
