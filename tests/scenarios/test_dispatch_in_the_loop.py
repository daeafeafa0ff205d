"""What the grid says in the closed loop keeps its own rules, whichever solver found it."""

from contextlib import ExitStack

import numpy as np
import pytest

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.grid.equations import nodal_carbon_intensity
from cosim.trace import Trace


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """(solver, lambda) -> open trace of three quarters of an hour of ieee33."""
    folder, opened = tmp_path_factory.mktemp("loop"), {}
    for solver, weight in (("gurobi", 0.01), ("clarabel", 0.01), ("clarabel", 0.1)):
        path = folder / f"{solver}{weight}.h5"
        scenario = override(find("ieee33"), {"grid.solver": solver, "grid.lambda_kw_per_kg_h": weight})
        Experiment(scenario, "native", 2700.0, path).run()
        opened[solver, weight] = path
    with ExitStack() as stack:
        yield {key: stack.enter_context(Trace(path)) for key, path in opened.items()}


@pytest.mark.long
@pytest.mark.rows("I38")
def test_both_solvers_find_the_same_intensities(traces):
    """Gurobi's default tolerance would leave 2e-3 (I38)."""
    one, other = (traces[solver, 0.01]["grid/Bus/nci_kg_per_kwh"] for solver in ("gurobi", "clarabel"))
    assert np.abs(one - other).max() < 5e-4
    for trace in traces.values():
        assert trace["grid/Grid/relaxation_gap_pu"].max() < 1e-5


@pytest.mark.rows("E07", "E08")
def test_sources_and_voltages_stay_within_their_limits(traces):
    for trace in traces.values():
        power = trace["grid/Grid/p_source_kw"][:, 0]
        reactive = trace["grid/Grid/q_source_kvar"][:, 0]
        turbines = [k for k, name in enumerate(trace.names("grid/Grid", "source")) if name != "substation"]
        assert power.min() >= -1e-6
        assert power[:, turbines].max() <= 500.0 + 1e-6
        assert np.abs(reactive[:, turbines]).max() <= 300.0 + 1e-6
        assert 0.9 <= trace["grid/Bus/vm_pu"].min() <= trace["grid/Bus/vm_pu"].max() <= 1.1


@pytest.mark.rows("E11", "I23")
def test_a_larger_weight_of_carbon_buys_emissions_with_losses(traces):
    """Losses in kW plus lambda times kg/h: ten times the weight at the same first load lowers the second part."""
    (loss, emission), (more_loss, less_emission) = (
        [traces["clarabel", weight][f"grid/Grid/{port}"][0, 0] for port in ("loss_kw", "emission_kg_per_h")]
        for weight in (0.01, 0.1))
    assert less_emission < emission - 1.0
    assert more_loss > loss
    assert loss + 0.01 * emission <= more_loss + 0.01 * less_emission + 1e-6
    assert more_loss + 0.1 * less_emission <= loss + 0.1 * emission + 1e-6


@pytest.mark.rows("I29")
def test_a_bus_that_nothing_flows_into_has_its_parents_intensity():
    """0 (10 kW at 0.3) feeds 1, where 10 kW are made at 0.6 and 20 drawn: 0.45; nothing flows to 2 behind it."""
    nci = nodal_carbon_intensity(3, np.array([0, 1]), np.array([1, 2]), np.array([10.0, 0.0]), np.array([-10.0, 0.0]),
                                 np.array([0, 1]), np.array([10.0, 10.0]), np.array([0.3, 0.6]))
    assert nci == pytest.approx([0.3, 0.45, 0.45])
