"""The air of sites, the times of jobs and the extremes of voltage: one number changed is found, nothing honest is
accused."""


import pytest
from rewritten import rewritten

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace


def run(tmp_path, name="two_bus", **settings):
    given = {"grid.mci": "false", "workload.rate_scale": "12", **{k.replace("__", "."): v for k, v in settings.items()}}
    path = tmp_path / "run.h5"
    Experiment(override(find(name), given), "native", 1800.0, path).run()
    return path


def broken(path):
    with Trace(path) as trace:
        return verify(trace).broken


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return run(tmp_path_factory.mktemp("honest"))


@pytest.mark.long(after=3)
@pytest.mark.parametrize(("dataset", "at", "by", "law"), [
    ("aidc/Site/inlet_degc", (7, 0), 0.01, "inlets, outlets"),
    ("aidc/Site/outlet_degc", (7, 0), -0.01, "inlets, outlets"),
    ("aidc/Site/return_degc", (7, 0), 0.01, "inlets, outlets"),
    ("aidc/Site/supply_temp_degc", (7, 0), 0.01, "inlets, outlets"),
    ("aidc/Site/tower_kw", (9, 0), 0.01, "cooling = chiller"),
    ("aidc/Site/chiller_kw", (9, 0), 0.01, "cooling = chiller"),
    ("jobs/arrival_s", 5, 4000.0, "jobs arrive"), ("jobs/end_s", 5, -4000.0, "jobs arrive"),
    ("jobs/start_s", 5, 4000.0, "jobs arrive"), ("jobs/deadline_s", 5, -1e7, "jobs arrive"),
    ("jobs/start_s", 5, float("nan"), "jobs arrive"),
    ("grid/Grid/vm_min_pu", (1, 0), -0.001, "voltages"), ("grid/Grid/vm_max_pu", (1, 0), 0.001, "voltages"),
])
def test_one_number_changed_is_found(honest, tmp_path, dataset, at, by, law):
    assert broken(honest) == []
    path = tmp_path / "t.h5"
    with rewritten(path, honest) as file:
        if dataset.startswith("jobs/"):
            at = list(file["jobs/outcome"][:] == b"finished").index(True)
        file[dataset][at] += by
    assert any(text.startswith(law) for text in broken(path)), broken(path)


@pytest.mark.long(after=2)
@pytest.mark.parametrize("settings", [{"aidc__thermal": "first_order"}, {"aidc__cooling": "literal"},
                                      {"aidc__cooling": "corrected"}, {"profile__mean": "0"}])
def test_other_plants_are_not_accused(tmp_path, settings):
    assert broken(run(tmp_path, **settings)) == []
