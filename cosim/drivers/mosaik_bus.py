"""The mosaik driver: a scenario on the mosaik bus, with members in this process or elsewhere.

mosaik's own proxies are watched from inside (`_watch`): the same probe as in the native driver counts time, records
and names failures, for remote members too. mosaik itself would end a run quietly when a remote member raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import subprocess
import sys
import warnings
from collections.abc import Mapping
from time import perf_counter
from typing import Any, cast

import mosaik
from mosaik.exceptions import ConnectionClosedError as MosaikClosed
from mosaik.exceptions import ScenarioError as MosaikScenarioError
from mosaik.exceptions import SimulationError
from mosaik.proxies import BaseProxy, LocalProxy, RemoteProxy
from mosaik.starters import PythonStarter, Starter
from mosaik_api_v3.connection import Channel, RemoteException
from mosaik_api_v3.types import Meta

from cosim.drivers.instrument import Control, MemberProbe, Stopped, make_probes
from cosim.drivers.native import collect, creation
from cosim.drivers.plan import MemberInterface, Plan, interface_from_describe, interface_from_meta, make_plan
from cosim.drivers.remote import GuardedChannel, address_of, child_options, is_same_user, prove, secret_of
from cosim.drivers.resolve import Resolved, command_of
from cosim.errors import CosimError, ModelError, ScenarioError
from cosim.hooks import Closing, HasClosing, HasNotes, Simulator

_LOOK_S = 0.5
"""Interval in s at which the process of a member is polled while its reply is awaited."""


class MosaikWorld:
    """One scenario on mosaik. start(), run(), then close(). Raises as NativeWorld does."""

    def __init__(self, resolved: Resolved, control: Control) -> None:
        self.resolved, self.control = resolved, control
        members = resolved.scenario.members
        self.probes = {name: MemberProbe(name, m.simulator, control) for name, m in members.items()}
        self.simulators: dict[str, Simulator] = {}
        self.plan = Plan([], [])
        self._watches: dict[str, _Watch] = {}
        self._factories: dict[str, Any] = {}
        timeouts = [m.timeout_s for m in members.values()]
        self._world = mosaik.World(
            {}, {"start_timeout": max(timeouts), "stop_timeout": 1}, time_resolution=resolved.clock.resolution_s,
            cache=False, skip_greetings=True, configure_logging=False)
        # what a broken connection leaves behind in the loop is said once, by the watch
        self._world.loop.set_exception_handler(lambda loop, context: None)

    def start(self) -> None:
        """Start all members, wire them, declare the trace."""
        interfaces, entities = {}, {}
        for name in self.resolved.scenario.members:
            interfaces[name], entities[name] = self._start_member(name)
        self.plan = plan = make_plan(self.resolved, interfaces)
        probes = make_probes(self.resolved, interfaces, plan, self.control)
        for name, probe in probes.items():
            probe.wall_s = probe.start_s = self.probes[name].wall_s
            self._watches[name].probe = probe
        self.probes = probes
        self._connect(plan, entities)

    def run(self, until: int) -> None:
        """Run to bus step `until` (exclusive). mosaik runs a world once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:  # lazily: a producer that ran days ahead would fill the memory and upset flushes and Ctrl-C
                self._world.run(until, print_progress=False, lazy_stepping=True, shutdown=False)
            except CosimError:
                raise
            except (SimulationError, MosaikScenarioError, SystemExit) as err:
                raise ModelError(f"mosaik ended the run: {err}") from err
        late = [n for n, w in self._watches.items() if w.following < until]
        if late:
            raise ModelError(f"member '{late[0]}' stopped {self.probes[late[0]].at(self._watches[late[0]].following)}, "
                             f"before the end of the run")

    def closing(self, member: str) -> Closing:
        """As `cosim.drivers.instrument.World`."""
        local = self.simulators.get(member)
        return local.closing() if isinstance(local, HasClosing) else self._remotely(member, "closing") or {}

    def notes(self, member: str) -> list[str]:
        """As `cosim.drivers.instrument.World`."""
        local = self.simulators.get(member)
        return local.notes() if isinstance(local, HasNotes) else self._remotely(member, "notes") or []

    def _remotely(self, member: str, method: str) -> Any:
        """Result of an extra method of a member in another process; None if it has no such method."""
        watch, factory = self._watches.get(member), self._factories.get(member)
        if watch is None or watch.gone or watch.local is not None or factory is None:
            return None
        return getattr(factory, method)() if method in _meta(factory).get("extra_methods", ()) else None

    def close(self) -> None:
        """Stop all members and the bus. A member whose process is gone already does not keep the others from it."""
        loop = self._world.loop
        pending = asyncio.all_tasks(loop)
        if any(w.failed for w in self._watches.values()):
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        try:
            self._world.shutdown()
        finally:
            for watch in self._watches.values():
                watch.end_process()

    def _start_member(self, name: str) -> tuple[MemberInterface, dict[str, Any]]:
        probe, watch = self.probes[name], _Watch(self.probes[name], self.resolved.scenario.members[name].timeout_s)
        self._watches[name] = watch
        try:
            starter = _WatchedStarter(self._starter(name), watch)
            factory = self._world.start(starter, name, **self.resolved.init_params[name])
            self._factories[name] = factory
            created: list[Any] = []
            for model, spec in self.resolved.entities[name].items():
                count, arguments = creation(self.resolved, name, spec)
                if not hasattr(factory, model):
                    raise ScenarioError(f"it has no model '{model}'; if it needs none, "
                                        f"--set {name}.entities.{model}=[]")
                created += getattr(factory, model).create(count, **arguments)
            described = factory.describe() if "describe" in _meta(factory).get("extra_methods", ()) else None
            if described is not None and "step_s" not in self.resolved.init_params[name]:
                raise ScenarioError("it is built on cosim.adapter and was not told its step and seed; set adapter=True "
                                    f"(--set {name}.adapter=true), and shared=[...] for the tables it takes")
        except CosimError as err:
            raise err if watch.failed else probe.failure(err, "on start") from err
        except (Exception, SystemExit) as err:
            raise probe.failure(err, "on start", " ".join(str(a) for a in err.args) or type(err).__name__) from err
        if watch.local is not None:
            self.simulators[name] = watch.local
        models: dict[str, list[str]] = {}
        collect(models, [_plain(e) for e in created])
        interface = (interface_from_meta(models, _meta(factory)) if described is None else
                     interface_from_describe(models, described))
        return interface, {e.eid: e for e in _flat(created)}

    def _starter(self, name: str) -> Starter:
        remote = command_of(self.resolved.scenario.members[name].simulator)
        if remote is None:
            return PythonStarter(self.resolved.classes[name])  # type: ignore[arg-type]  # it takes any with its methods
        kind, rest = remote
        if kind == "cmd":
            return _CommandStarter(rest, self._watches[name])
        secret = secret_of(self.resolved.scenario.members[name].secret, f"{name}.secret")
        return _AddressStarter(rest, self._watches[name], secret)

    def _connect(self, plan: Plan, entities: Mapping[str, Mapping[str, Any]]) -> None:
        for c in plan.connections:
            options: dict[str, Any] = {}
            if c.shift:
                options.update(time_shifted=c.shift, initial_data=c.initial if c.transform is None
                               else c.transform(c.initial))
            if c.transform is not None:
                options["transform"] = c.transform
            self._world.connect_one(entities[c.source[0]][c.source[1]], entities[c.target[0]][c.target[1]],
                                    c.source[2], c.target[2], **options)


class _Watch:
    """State of one member's proxy; the probe is exchanged once the wiring is known."""

    def __init__(self, probe: MemberProbe, timeout_s: float) -> None:
        self.probe, self.timeout_s = probe, timeout_s
        self.local: Simulator | None = None
        self.process: subprocess.Popen[str] | None = None
        self.channel: GuardedChannel | None = None
        self.data: dict = {}
        self.following = 0
        self.failed = False
        self.gone = False

    async def answer(self, coming: Any) -> Any:
        """What a remote member answers. TimeoutError after its patience; ConnectionError when its process has ended,
        also where something else still holds its connection open."""
        asked = asyncio.ensure_future(coming)
        give_up = perf_counter() + self.timeout_s
        dead = False
        while not (await asyncio.wait({asked}, timeout=min(_LOOK_S, max(give_up - perf_counter(), 0.0))))[0]:
            if dead or perf_counter() >= give_up:
                asked.cancel()
                raise ConnectionError if dead else asyncio.TimeoutError
            dead = self.process is not None and self.process.poll() is not None  # its last words may be on the way
        return asked.result()

    def end_process(self) -> None:
        """A member's own process does not outlive the run."""
        if self.process is not None:
            try:
                self.process.wait(1.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def failure(self, err: BaseException, doing: str) -> CosimError:
        """`err` of this member as one line, and what it means for the member."""
        self.failed = True
        probe = self.probe
        if isinstance(err, RemoteException):
            return probe.failure(ModelError(), doing, f"{err.remote_type}: {err.remote_msg}")
        self.gone = isinstance(err, (asyncio.TimeoutError, ConnectionError, MosaikClosed))
        if isinstance(err, asyncio.TimeoutError):
            return probe.failure(ModelError(), doing,
                                 f"no answer within {self.timeout_s:g} s (timeout_s of the member)")
        if self.gone:
            reason = self.channel.reason if self.channel else ""
            return probe.failure(ModelError(), doing, reason or "its process ended or closed the connection")
        return err if isinstance(err, (ScenarioError, Stopped)) else probe.failure(err, doing)


class _Starter(Starter):
    """Base of our starters, which `MosaikWorld` makes, for a simulator of any mosaik API version."""

    api_version = None

    @classmethod
    def from_starter_config(cls, starter_config: Any) -> None:
        """Never made from a mosaik sim_config."""
        return


class _CommandStarter(_Starter):
    """Starts a command as mosaik's CmdStarter does, but detects at once when it ends before it connects, and keeps the
    terminal's Ctrl-C from it: the run ends between two steps, and then stops its members."""

    def __init__(self, command: str, watch: _Watch) -> None:
        self._command, self._watch = command, watch

    async def start(self, sim_id: str, mosaik_remote: Any, mosaik_config: Any) -> BaseProxy:
        """mosaik's hook."""
        connected: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done() or not is_same_user(writer):
                writer.close()  # another user's process that found the port first
                return
            self._watch.channel = GuardedChannel(reader, writer, name=sim_id)
            connected.set_result(self._watch.channel)

        server = await asyncio.start_server(on_connect, *mosaik_config["addr"])
        host, port = server.sockets[0].getsockname()[:2]
        patience_s = self._watch.timeout_s
        try:
            words = shlex.split(self._command % {"addr": f"{host}:{port}", "python": sys.executable})
        except (KeyError, ValueError, TypeError) as err:
            raise ScenarioError(f"its command does not expand ({err!r}); it knows %(addr)s and %(python)s") from None
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, text=True,
                                       **child_options())
        except OSError as err:
            raise ScenarioError(f"'{words[0]}' cannot be started: {err.strerror}") from None
        self._watch.process = process
        try:
            give_up = perf_counter() + patience_s
            while not connected.done():
                if process.poll() is not None:
                    raise ModelError(f"its process ended with exit code {process.returncode} before it connected")
                if perf_counter() > give_up:
                    raise ModelError(f"it did not connect within {patience_s:g} s (timeout_s of the member)")
                await asyncio.sleep(0.02)
        finally:
            server.close()
        return RemoteProxy(connected.result(), mosaik_remote, process=(process, True))


class _AddressStarter(_Starter):
    """Connects to a simulator that waits at an address."""

    def __init__(self, address: str, watch: _Watch, secret: bytes | None) -> None:
        self._address, self._watch, self._secret = address, watch, secret

    async def start(self, sim_id: str, mosaik_remote: Any, mosaik_config: Any) -> BaseProxy:
        """mosaik's hook."""
        where = address_of(self._address)
        assert where is not None, "command_of refuses what is no address"
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*where), self._watch.timeout_s)
        except (TimeoutError, OSError):
            raise ModelError(f"nobody answers at {self._address}; start it first") from None
        if self._secret is not None:
            await prove(reader, writer, self._secret)
        self._watch.channel = GuardedChannel(reader, writer, name=sim_id)
        return RemoteProxy(self._watch.channel, mosaik_remote)


class _WatchedStarter(_Starter):
    """Starts a simulator as `inner` does and puts a watch on its proxy."""

    def __init__(self, inner: Starter, watch: _Watch) -> None:
        self._inner, self._watch = inner, watch
        self.api_version = getattr(inner, "api_version", None)

    async def start(self, sim_id: str, mosaik_remote: Any, mosaik_config: Any) -> BaseProxy:
        """mosaik's hook."""
        proxy = await self._inner.start(sim_id, mosaik_remote, mosaik_config)
        if isinstance(proxy, LocalProxy):
            self._watch.local = proxy.sim
        _watch(proxy, self._watch)
        return proxy


def _watch(proxy: BaseProxy, watch: _Watch) -> None:
    """Put our own `send` before the proxy's: step is followed by one get_data of everything that is needed, which is
    recorded and then answers mosaik's own, smaller request."""
    inner, inner_stop = proxy.send, proxy.stop

    async def ask(request: Any) -> Any:
        begin = perf_counter()
        try:
            if watch.local is not None:
                return await inner(request)
            return await watch.answer(inner(request))
        finally:
            watch.probe.wall_s += perf_counter() - begin

    async def send(request: Any) -> Any:
        name, arguments, _ = request
        if name == "get_data":
            return {eid: {a: watch.data[eid][a] for a in attrs} for eid, attrs in arguments[0].items()}
        probe = watch.probe
        if name != "step":
            try:
                return await ask(request)
            except (Exception, SystemExit) as err:
                raise watch.failure(err, "on start" if name in ("init", "create") else f"in {name}()") from err
        time = arguments[0]
        try:
            probe.control.tick(time)
            watch.following = probe.check_step(time, await ask(request))
            watch.data = probe.read(await ask(("get_data", (probe.request,), {})) if probe.request else {})
        except (Exception, SystemExit) as err:
            raise watch.failure(err, probe.at(time)) from err
        probe.record(time, watch.data)
        return watch.following

    async def stop() -> None:
        with contextlib.suppress(ConnectionError, MosaikClosed, asyncio.IncompleteReadError, asyncio.CancelledError):
            await inner_stop()

    proxy.send, proxy.stop = send, stop  # type: ignore[method-assign]  # of this one proxy


def _meta(factory: mosaik.scenario.ModelFactory) -> Meta:
    """What mosaik's hints take for a model."""
    return cast(Meta, factory.meta)


def _plain(entity: Any) -> dict[str, Any]:
    return {"eid": entity.eid, "type": entity.type, "children": [_plain(c) for c in entity.children or ()]}


def _flat(entities: list[Any]) -> list[Any]:
    return [e for entity in entities for e in (entity, *_flat(list(entity.children or ())))]
