"""Other simulators, and what a step of theirs costs and includes. They are no dependencies: each is run by the Python
that `--peers` names, in a process of its own, and left out by name where that does not have it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.day import one_day
from benchmarks.measure import Found, Say, Size, number
from cosim.digest import Table
from cosim.run import find
from cosim.scenario import override
from cosim.units import parse_duration

_EMPTY_MOSAIK = """
import mosaik, mosaik_api_v3
META = {"api_version": "3.0", "type": "time-based",
        "models": {"M": {"public": True, "params": [], "attrs": ["x", "y"]}}}
class Empty(mosaik_api_v3.Simulator):
    def __init__(self):
        super().__init__(META)
    def init(self, sid, time_resolution=1.0, **params):
        return self.meta
    def create(self, num, model, **params):
        return [{"eid": f"e{k}", "type": model} for k in range(num)]
    def step(self, time, inputs, max_advance):
        return time + 60
    def get_data(self, outputs):
        return {eid: dict.fromkeys(attrs, 1.0) for eid, attrs in outputs.items()}
def play(steps):
    with mosaik.World({"Empty": {"python": "__main__:Empty"}}) as world:
        one, two = (world.start("Empty").M.create(1)[0] for _ in range(2))
        world.connect(one, two, ("x", "y"))
        begin = process_time()
        world.run(until=60 * steps, print_progress=False)
        return process_time() - begin
"""
_VESSIM = """
import vessim
def play(steps):
    env = vessim.Environment(sim_start="2024-01-01", step_size=60)
    env.add_microgrid(actors=[vessim.Consumer("dc", 400.0), vessim.Producer("pv", 100.0)],
                      dispatchables=[vessim.SimpleBattery("battery", capacity=100.0, initial_soc=0.5),
                                     vessim.GridConnection("grid")], name="mg")
    begin = process_time()
    env.run(until=60 * steps)
    return process_time() - begin
"""
_GRID2OP = """
import warnings
warnings.filterwarnings("ignore")
import grid2op
from lightsim2grid import LightSimBackend
def play(steps):
    env = grid2op.make("rte_case14_realistic", test=True, backend=LightSimBackend())
    env.reset()
    nothing, spent = env.action_space(), 0.0
    for _ in range(steps):
        begin = process_time()
        _, _, done, _ = env.step(nothing)
        spent += process_time() - begin
        if done:
            env.reset()
    return spent
"""
_AROUND = """
import json, logging, sys
from importlib.metadata import version
from time import process_time
logging.disable(logging.CRITICAL)
{program}
play(20)
steps = int(sys.argv[1])
print(json.dumps({{"us": 1e6 * play(steps) / steps, "versions": [f"{{p}} {{version(p)}}" for p in sys.argv[2:]]}}))
"""


@dataclass(frozen=True)
class Peer:
    """A program, the packages it needs, and what a step of it is."""

    name: str
    packages: tuple[str, ...]
    program: str
    step: str


PEERS = (
    Peer("mosaik, empty", ("mosaik",), _EMPTY_MOSAIK,
         "two simulators that compute nothing, one number from one to the other; no record"),
    Peer("Vessim", ("vessim",), _VESSIM,
         "a minute of one microgrid: two constant actors, a battery, a grid connection; no network, no jobs, no "
         "record"),
    Peer("Grid2Op on lightsim2grid", ("grid2op", "lightsim2grid"), _GRID2OP,
         "5 min of the 14-bus network: AC power flow in C++, time series, overflow rules, observation; no jobs, no "
         "dispatch"),
)


def play(peer: Peer, python: str, steps: int) -> tuple[float, list[str]]:
    """(us of CPU a step, versions). LookupError with the last line of what went wrong."""
    done = subprocess.run([python, "-c", _AROUND.format(program=peer.program), str(steps), *peer.packages],
                          capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise LookupError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    said = json.loads(done.stdout.splitlines()[-1])
    return said["us"], said["versions"]


def measure(size: Size, say: Say) -> Found:
    """A row per peer that there is, and this framework's minute by driver."""
    found, rows, steps = Found(), [], 500 if size.quick else 2000
    for peer in PEERS:
        say(f"{peer.name}")
        try:
            us, versions = play(peer, size.peers_python, steps)
        except (LookupError, OSError) as err:
            found.skipped.append(f"{peer.name}: not run: {err}")
            continue
        rows.append((peer.name, peer.step, ", ".join(versions), number(us)))
        found.figures[f"{peer.name}: us a step"] = us
    scenario, until_s = override(find(size.scenario), {"controller.policy": "nci_priority"}), parse_duration(
        "1h" if size.quick else "6h")
    with tempfile.TemporaryDirectory() as folder:
        for driver in ("native", "mosaik"):
            say(f"{size.scenario} here, {driver}")
            one_day(scenario, driver, 300.0, Path(folder) / "warm.h5")
            took = one_day(scenario, driver, until_s, Path(folder) / "peer.h5")
            us = 1e6 * (took["total"] - took["start"] - took["summary"]) / (until_s / 60.0)
            rows.append((f"{size.scenario} here, {driver}",
                         "a minute of six members: every job of three data centers, a rule's decision; every 15 min a "
                         "conic dispatch, carbon flow, AC check; all of it recorded", "", number(us)))
            found.figures[f"{size.scenario} here, {driver}: us a minute"] = us
    found.tables.append(Table("Other simulators: us of CPU a step", ("program", "a step is", "versions", "us"), rows,
                              "They do different things; a row says what. Starting is left out of all."))
    return found
