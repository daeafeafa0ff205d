"""A HELICS federation in which one federate is ours (extra `helics`): broker, the other side's process, time, values.

A broker that is started here accepts connections of this machine alone, and only with the key of this federation, which
stands in the environment of the process that is started with it.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Thread
from time import monotonic, sleep
from typing import Any

from cosim.drivers.remote import address_of, child_options
from cosim.errors import ModelError, ScenarioError, cut, first_line, unknown
from cosim.imports import optional

KEY = "HELICS_BROKER_KEY"
CORES = ("zmq_ss", "zmq", "tcp_ss", "tcp")
_NUMBERS = ("double", "float", "int64", "int", "integer", "bool", "boolean")
_POLL_S = (2e-5, 5e-3)
_END_S = 3.0
_JOIN_S = 30.0
"""Joining takes at least so long an answer: the other side starts a program."""


class Federation:
    """One federate of a federation, and what was started for it.

    federate: 'cmd: COMMAND' starts a broker and, with its address in the place of %(broker)s, the command; 'connect:
    HOST:PORT' joins the broker there. others: federates beside this one. timeout_s: of wall clock, for every answer.
    ScenarioError for a text that is neither.
    """

    def __init__(self, owner: str, federate: str, name: str, others: int, core: str, timeout_s: float) -> None:
        self.owner, self._name, self._others, self._core, self._timeout_s = owner, name, others, core, timeout_s
        with optional("a HELICS federation", "helics"):
            import helics
        self._h = helics
        kind, _, self._rest = (part.strip() for part in federate.partition(":"))
        if kind not in ("cmd", "connect") or not self._rest:
            raise ScenarioError(f"{owner}.federate = '{cut(federate)}'; write cmd: COMMAND %(broker)s, or connect: "
                                "HOST:PORT of a broker that is there")
        self._starts = kind == "cmd"
        if self._starts and "%(broker)s" not in self._rest:
            raise ScenarioError(f"{owner}.federate = '{cut(federate)}' does not say which broker to join; write cmd: "
                                "COMMAND %(broker)s")
        if not self._starts and address_of(self._rest) is None:
            raise ScenarioError(f"{owner}.federate = '{cut(federate)}' is no address; write connect: HOST:PORT")
        self._broker: Any = None
        self._fed: Any = None
        self._process: subprocess.Popen | None = None
        self._output: Any = None
        self._publications: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}
        self._pending = False
        self._over = False

    def start(self, units: Mapping[str, str], keys: list[str]) -> dict[str, str]:
        """Join, publishing `units` (key -> unit) and subscribing to `keys`; the unit of each key as its publisher
        states it, '' for none. ModelError where the others do not come or end; ScenarioError for a key without a
        publisher."""
        h = self._h
        try:
            address, key = self._start_broker() if self._starts else self._broker_there()
            info = h.helicsCreateFederateInfo()
            h.helicsFederateInfoSetCoreTypeFromString(info, self._core)
            h.helicsFederateInfoSetCoreInitString(info, f"--federates=1 --broker={address} --loglevel=no_print "
                                                  f"--timeout={self._timeout_s:g}s" + f" --brokerkey={key}" * bool(key))
            h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
            self._fed = self._joined(info)
            for name, unit in units.items():
                self._publications[name] = h.helicsFederateRegisterGlobalPublication(
                    self._fed, name, h.HELICS_DATA_TYPE_DOUBLE, unit)
            self._inputs = {name: h.helicsFederateRegisterSubscription(self._fed, name, "") for name in keys}
            h.helicsFederateEnterExecutingModeAsync(self._fed)
            self._wait("to begin", h.helicsFederateEnterExecutingModeComplete, _JOIN_S)
        except h.HelicsException as err:
            raise self._failed("to begin", first_line(err)) from None
        return {name: self._unit(name, given) for name, given in self._inputs.items()}

    def go_to(self, time_s: float) -> None:
        """Request a time and wait until it is granted; ModelError naming who ended, or did not answer in time."""
        h = self._h
        try:
            h.helicsFederateRequestTimeAsync(self._fed, time_s)
            granted_s = self._wait(f"at {time_s:g} s", h.helicsFederateRequestTimeComplete)
        except h.HelicsException as err:
            raise self._failed(f"at {time_s:g} s", first_line(err)) from None
        if gone := self._gone():
            ended = None
            if self._process is not None:
                with suppress(subprocess.TimeoutExpired):
                    ended = self._process.wait(_END_S)
            code = "" if ended is None else f", and its process ended with code {ended}"
            raise self._failed(f"at {time_s:g} s", f"'{gone[0]}' has left the federation{code}")
        if abs(granted_s - time_s) > 1e-6:
            raise self._failed(f"at {time_s:g} s", f"it was granted {granted_s:g} s instead; is the federation over?")

    def publish(self, values: Mapping[str, float]) -> None:
        """Values by key, in the unit that the key was published with."""
        for name, value in values.items():
            self._h.helicsPublicationPublishDouble(self._publications[name], value)

    def read(self) -> dict[str, tuple[float, bool]]:
        """By key the value that stands, and whether it came since the last reading."""
        h = self._h
        return {name: (h.helicsInputGetDouble(given), bool(fresh)) for name, given in self._inputs.items()
                for fresh in (h.helicsInputIsUpdated(given),)}

    def close(self) -> None:
        """Leave; end the broker and the process that were started. Also after a failure."""
        if self._over:
            return
        self._over, h = True, self._h
        if self._process is not None and self._pending:  # it does not answer, and would not notice
            self._process.kill()
        for leave in ((h.helicsFederateDisconnect, self._fed if not self._pending else None),
                      (lambda broker: h.helicsBrokerWaitForDisconnect(broker, int(1e3 * _END_S)),
                       self._broker if not self._pending else None), (h.helicsBrokerDisconnect, self._broker),
                      (h.helicsFederateFree, self._fed if not self._pending else None),
                      (h.helicsBrokerFree, self._broker)):
            try:
                if leave[1] is not None:
                    leave[0](leave[1])
            except h.HelicsException:
                pass
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._output is not None:
            self._output.close()

    def _start_broker(self) -> tuple[str, str]:
        h, key = self._h, secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._broker = h.helicsCreateBroker(self._core, "", f"--federates={1 + self._others} --local --port={port} "
                                            f"--loglevel=no_print --brokerkey={key}")
        if not h.helicsBrokerIsConnected(self._broker):
            raise ModelError(f"{self.owner}: no HELICS broker ({self._core}) could be started at 127.0.0.1:{port}")
        address = f"tcp://127.0.0.1:{port}"
        words = [word.replace("%(broker)s", address).replace("%(python)s", sys.executable)
                 for word in shlex.split(self._rest)]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        try:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._output,
                                             stderr=subprocess.STDOUT, env={**os.environ, KEY: key}, **child_options())
        except OSError as err:
            raise ScenarioError(f"{self.owner}.federate: '{cut(words[0])}' cannot be started: {err.strerror or err}"
                                ) from None
        return address, key

    def _broker_there(self) -> tuple[str, str]:
        """Address and key of a broker that is there already."""
        found = address_of(self._rest)
        assert found is not None, "checked at the beginning"
        try:
            socket.create_connection(found, self._timeout_s).close()
        except OSError as err:
            raise ModelError(f"{self.owner}: no HELICS broker at {self._rest}: {err.strerror or err}; start it first"
                             ) from None
        return f"tcp://{self._rest}", os.environ.get(KEY, "")

    def _joined(self, info: Any) -> Any:
        """Our federate. HELICS waits in this call for a broker that does not answer, and has no way to stop that."""
        made: list[Any] = []

        def join() -> None:
            try:
                made.append(self._h.helicsCreateValueFederate(self._name, info))
            except self._h.HelicsException as err:
                made.append(err)

        thread = Thread(target=join, daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not made:
            raise self._failed("to begin", f"no answer within {self._timeout_s:g} s (timeout_s); is it a broker of "
                               f"core {self._core}?")
        if isinstance(made[0], Exception):
            raise made[0]
        return made[0]

    def _wait(self, when: str, complete: Callable[[Any], Any], least_s: float = 0.0) -> Any:
        """The result of the open request, for which it waits as long as `timeout_s`, and `least_s`."""
        patience_s = max(self._timeout_s, least_s)
        began, pause_s, self._pending = monotonic(), _POLL_S[0], True
        while not self._h.helicsFederateIsAsyncOperationCompleted(self._fed):
            ended = self._process.poll() if self._process is not None else None
            if ended is not None:
                raise self._failed(when, f"its process ended with code {ended}")
            if monotonic() - began > patience_s:
                raise self._failed(when, f"no answer within {patience_s:g} s (timeout_s)")
            sleep(pause_s)
            pause_s = min(2 * pause_s, _POLL_S[1])
        self._pending = False
        result = complete(self._fed)
        if self._process is not None and (ended := self._process.poll()) is not None:
            raise self._failed(when, f"its process ended with code {ended}")
        return result

    def _failed(self, when: str, why: str) -> ModelError:
        """An error that names the other side, with the last line that its process wrote."""
        said = ""
        if self._output is not None:
            self._output.seek(0)
            lines = self._output.read().decode(errors="replace").strip().splitlines()
            said = f"; its last line: {cut(lines[-1], 120)}" if lines else ""
        return ModelError(f"{self.owner}: the federate '{cut(self._rest, 70, 30)}' failed {when}: {why}{said}")

    def _unit(self, name: str, given: Any) -> str:
        kind = str(self._h.helicsInputGetPublicationType(given)).strip('"[]').lower()
        if kind in ("", "any"):
            raise ScenarioError(f"{self.owner}: {unknown('publication', name, self._published())}")
        if kind not in _NUMBERS:
            raise ScenarioError(f"{self.owner}: '{name}' is published as {kind}; a port takes one number")
        return str(self._h.helicsInputGetInjectionUnits(given)).strip()

    def _published(self) -> list[str]:
        names = self._asked("publications")
        return [str(name) for name in names if name not in self._publications] if isinstance(names, list) else []

    def _gone(self) -> list[str]:
        """Federates that are no longer connected; a value of theirs would stand for ever."""
        found = self._asked("current_state")
        federates = found.get("federates", []) if isinstance(found, dict) else []
        return [str(fed["attributes"]["name"]) for fed in federates if fed.get("state") != "connected"
                and fed["attributes"]["name"] != self._name]

    def _asked(self, what: str) -> Any:
        query = self._h.helicsCreateQuery("root", what)
        try:
            found = self._h.helicsQueryExecute(query, self._fed)
        finally:
            self._h.helicsQueryFree(query)
        return json.loads(found) if isinstance(found, str) else found
