"""The loop is closed: what the agents decide reaches the grid, and what the grid says reaches the agents."""

import numpy as np
import pytest
from worlds import run

from cosim.drivers.resolve import resolve
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.grid.adapter import CefDispatch
from cosim.trace import Trace

SITES = ("aidc1", "aidc2", "aidc3")
BUSES = (8, 28, 32)


def hour(tmp_path, name, until_s=3600.0, **settings):
    scenario = override(find("ieee33"), {k.replace("__", "."): v for k, v in settings.items()})
    return run(scenario, tmp_path / f"{name}.h5", until_s=until_s).path


def half_hour(tmp_path, name, **settings):
    return hour(tmp_path, name, 1800.0, **settings)


def grid_alone() -> CefDispatch:
    """The scenario's grid simulator, not on any bus."""
    resolved = resolve(find("ieee33"))
    grid = CefDispatch()
    grid.init("grid", time_resolution=60.0, **resolved.init_params["grid"])
    for model, names in resolved.entities["grid"].items():
        grid.create(len(names), model, names=names)
    grid.setup_done()
    return grid


@pytest.mark.rows("B07", "E04", "E05", "M09", "M10", "Z01")
def test_where_the_jobs_go_moves_nci_by_what_the_dispatch_says(tmp_path):
    paths = [hour(tmp_path, w.replace(":", ""), controller__policy="static", controller__weights=w)
             for w in ("1:0:0", "0:0:1")]
    with Trace(paths[0]) as first, Trace(paths[1]) as last:
        nci = [t["grid/Bus/nci_kg_per_kwh"] for t in (first, last)]
        arrivals = [np.sort(t.table("jobs")["arrival_s"]).tolist() for t in (first, last)]
        assert arrivals[0] == arrivals[1], "the same arrivals"
        assert nci[0][0].tolist() == nci[1][0].tolist(), "nothing was decided before t = 0"
        for k in range(1, 4):
            for bus in (8, 32):
                assert abs(nci[0][k, bus] - nci[1][k, bus]) > 1e-4
        for trace, seen in zip((first, last), nci, strict=True):
            grid = grid_alone()
            for k in range(4):
                load = {f"bus{b}": {"p_load_kw": {"profile": p}, "q_load_kvar": {"profile": q}}
                        for b, (p, q) in enumerate(zip(trace["profile/Load/p_kw"][k], trace["profile/Load/q_kvar"][k],
                                                       strict=True))}
                for s, bus in enumerate(BUSES):
                    at = 15 * k - 1
                    p = trace["aidc/Site/p_window_kw"][at, s] if k else idle_kw(trace, s)
                    load[f"bus{bus}"]["p_load_kw"]["aidc"] = p
                    load[f"bus{bus}"]["q_load_kvar"]["aidc"] = 0.2 * p
                grid.step(15 * k, load, 10**6)
                alone = [v["nci_kg_per_kwh"] for v in grid.get_data({f"bus{b}": ["nci_kg_per_kwh"]
                                                                     for b in range(33)}).values()]
                assert np.abs(np.array(alone) - seen[k]).max() < 1e-9


def idle_kw(trace, site):
    """Minute 0 has no jobs yet, so its power is the idle power the loop starts with."""
    assert trace["aidc/Site/busy_gpus"][0, site].sum() == 0
    return trace["aidc/Site/p_kw"][0, site]


@pytest.mark.rows("B07", "Z01")
def test_nci_priority_follows_the_carbon(tmp_path):
    """Turning the turbines' intensities round makes another site the cleanest, and the jobs go there."""
    dirty = {"grid__sources__substation__kg_per_kwh": 0.9, "grid__sources__gt6__kg_per_kwh": 0.9,
             "grid__sources__gt25__kg_per_kwh": 0.65, "grid__sources__gt30__kg_per_kwh": 0.3}
    received = []
    rule = {"controller__policy": "nci_priority"}
    for path in (half_hour(tmp_path, "paper", **rule), half_hour(tmp_path, "turned", **rule, **dirty)):
        with Trace(path) as trace:
            nci = [trace["grid/Bus/nci_kg_per_kwh"][0, b] for b in BUSES]
            jobs = trace["aidc/Site/received_jobs"].sum(axis=(0, 2))
            assert np.argmax(jobs) == np.argmin(nci)
            received.append(jobs)
    assert received[0][0] > 0.9 * received[0].sum()
    assert received[1][2] > 0.9 * received[1].sum()


@pytest.mark.rows("B08", "I22")
def test_power_mode_does_not_see_carbon(tmp_path):
    power = {"controller__mode": "power", "controller__policy": "uniform", "grid__lambda_kw_per_kg_h": 0.0}
    a = half_hour(tmp_path, "a", **power)
    b = half_hour(tmp_path, "b", **power, grid__sources__gt30__kg_per_kwh=0.1)
    with Trace(a) as x, Trace(b) as y:
        assert np.array_equal(x["grid/Grid/p_source_kw"], y["grid/Grid/p_source_kw"])
        assert not np.array_equal(x["grid/Bus/nci_kg_per_kwh"], y["grid/Bus/nci_kg_per_kwh"])
        assert np.array_equal(x["aidc/Site/p_kw"], y["aidc/Site/p_kw"])


@pytest.mark.rows("I37", "M16")
def test_every_policy_meets_the_same_arrivals(tmp_path):
    """Common random numbers: the same jobs, to the instant, whatever is done with them."""
    seen = {}
    for policy in ("uniform", "static", "nci_priority", "tou_shift", "random"):
        settings = {"controller__policy": policy} | ({"controller__weights": "1:2:7"} if policy == "static" else {})
        with Trace(half_hour(tmp_path, policy, **settings)) as trace:
            assert trace.attrs["status"] == "completed"
            jobs = trace.table("jobs")
            order = np.argsort(jobs["id"])
            seen[policy] = [jobs[c][order].tolist() for c in ("id", "job_class", "arrival_s", "work_to", "deadline_s")]
    assert all(columns == seen["uniform"] for columns in seen.values())


@pytest.mark.rows("I34", "X10")
def test_following_the_carbon_emits_less_than_fixed_shares(tmp_path):
    """The order of the study's comparison of static and dynamic managers, in its setting: to the books of the sites,
    per kWh drawn, 1:1:8 emits more than 1:2:7, that more than equal shares, and those more than who follows the NCI."""
    emitted = {}
    for policy in ("nci_priority", "uniform", "1:2:7", "1:1:8"):
        static = {"controller.policy": "static", "controller.weights": policy}
        settings = {"grid.mci": False, "grid.ac_check": False,
                    **(static if ":" in policy else {"controller.policy": policy})}
        done = run(override(find("table2"), settings), tmp_path / f"{len(emitted)}.h5", until_s=1800.0)
        figures = done.digest.figures
        assert not any(value for name, value in figures.items() if name.startswith("dropped"))
        emitted[policy] = figures["co2_attributed_kg"], figures["co2_attributed_kg"] / figures["energy_kwh"]
    follows, equal, first, second = emitted.values()
    assert follows[0] < min(equal[0], first[0], second[0])
    assert follows[1] < equal[1] < first[1] < second[1]
