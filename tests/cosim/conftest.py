"""Two traces of the smallest loop, which tests of the report share."""

import pytest

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.reporting.data import FleetRun
from cosim.trace import Trace


def ran(folder, name, until_s=None, **settings_):
    path = folder / f"{name}.h5"
    scenario = override(find("two_bus"), {k.replace("__", "."): str(v) for k, v in settings_.items()})
    Experiment(scenario, "native", until_s, out=path).run()
    return path


@pytest.fixture(scope="session")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    return {"plain": ran(folder, "plain"),
            "crowded": ran(folder, "crowded", 3600.0, workload__rate_scale=12)}


@pytest.fixture
def plain(traces):
    with Trace(traces["plain"]) as trace:
        yield FleetRun(trace, "two_bus", {"aidc1": "site0"})


@pytest.fixture
def crowded(traces):
    with Trace(traces["crowded"]) as trace:
        yield FleetRun(trace, "two_bus", {"aidc1": "site0"})
