"""Scenarios of small simulators for tests of the frame."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py

from cosim.experiment import Experiment, Result
from cosim.scenario import Link, Member, Scenario

BOXES_PY = Path(__file__).parents[1] / "boxes.py"
GRIDLESS_PY = Path(__file__).parents[1] / "gridless.py"
STORE_CMD = f'cmd: "{sys.executable}" "{BOXES_PY}" %(addr)s'


def boxes(**store_params: Any) -> Scenario:
    """A noisy source, two stores that feed back on each other with a delay, somebody else's grid, and a slow link."""
    return Scenario(
        name="boxes", about="small simulators", until_s="3h", flush_s="30min",
        shared={"rows": {"a": {"n": 1}, "b": {"n": 2}}},
        members={
            "src": Member(simulator="boxes:Source", step_s=60, entities={"Source": "rows"}, params={"noise_kw": 1.0}),
            "store": Member(simulator="boxes:Store", step_s=900, entities={"Store": ["s1", "s2"]},
                            params={"gain_per_h": 0.1, **store_params}),
            "grid": Member(simulator="boxes:Foreign", step_s=900, entities={"Bus": {"vn_kv": 10.0}},
                           params={"step_size": 15}),
            "late": Member(simulator="boxes:Store", step_s=60, entities={"Store": ["x"]}),
        },
        links=[
            Link(source="src.p_kw", target="store.p_kw", pairs="rows:s{n}"),
            Link(source="store.p_seen_kw", target="store.p_mirror_kw", pairs={"s1": "s2", "s2": "s1"}, shift_s=900),
            Link(source="src.p_kw", target="grid.P_load[MW]"),
            Link(source="grid.Vm[pu]", target="late.p_kw", scale=3.0, shift_s=120, initial=0.5),
        ])


def remote(**store_params: Any) -> Scenario:
    """One source here, one store in a process of its own."""
    return Scenario(
        name="remote", about="a member in another process", until_s="1h", flush_s="10min",
        members={
            "src": Member(simulator="boxes:Source", step_s=60, entities={"Source": ["a"]}),
            "store": Member(simulator=STORE_CMD, step_s=60, entities={"Store": ["s"]}, params=store_params,
                            adapter=True, timeout_s=300),
        },
        links=[Link(source="src.p_kw", target="store.p_kw")])


def run(scenario: Scenario, out: Path | None, driver: str = "native", **options: Any) -> Result:
    """Run to the end."""
    return Experiment(scenario, driver, out=out, **options).run()


def steps_in(path: Path, model: str) -> int:
    """Steps of a model in a trace that is being written, as plain h5py finds them; 0 while a flush is in the middle of
    its writes. `Trace` starts a process that reads the whole file, again for every change of it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return len(file[f"{model}/time_s"])
    except (KeyError, OSError, RuntimeError):
        return 0
