"""Sources that a grid of one's own declares: its carbon is checked without flows, and a changed number found."""

from pathlib import Path

import numpy as np
import pytest
from rewritten import rewritten

from cosim.experiment import Experiment
from cosim.request import changed, find
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"
POWER = "declared sources give what is drawn and lost (kW)"
CARBON = "declared sources emit what is attributed, losses within their range (kg/h)"
RANGE = "intensity of buses between those of the declared sources (kg/kWh)"
AS_ENTITIES = """
from cosim.adapter import Adapter
from cosim.params import params
from cosim.ports import Port
from cosim.simulators.grid.ports import DEMAND

@params
class Given:
    lost_ratio: float = 0.1

class Lossy(Adapter):
    PARAMS = Given
    MODELS = {"Bus": (*DEMAND, Port("nci_kg_per_kwh", "out", "intensity")),
              "Grid": (Port("loss_kw", "out", "what is lost"), Port("emission_kg_per_h", "out", "emission")),
              "Source": (Port("p_kw", "out", "power"), Port("kg_per_kwh", "out", "its intensity"))}

    def advance(self, time_s, inputs):
        drawn = sum(inputs[b]["p_load_kw"] for b in self.entities["Bus"])
        given = drawn * (1.0 + self.params.lost_ratio)
        gives = {"hydro": (min(20.0, given), 0.02), "coal": (max(0.0, given - 20.0), 0.9)}
        mean = sum(p * w for p, w in gives.values()) / given
        return {**{b: {"nci_kg_per_kwh": mean} for b in self.entities["Bus"]},
                **{g: {"loss_kw": given - drawn, "emission_kg_per_h": given * mean} for g in self.entities["Grid"]},
                **{s: {"p_kw": gives[s][0], "kg_per_kwh": gives[s][1]} for s in self.entities["Source"]}}
"""


def run_with(simulator, out, **settings):
    scenario = changed(find("two_bus"), use={"grid": simulator}, settings=settings)
    return Experiment(scenario, "native", out=out).run().path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Both ways to declare sources: by an axis, without losses, in a day's forenoon; and as entities, with losses."""
    folder = tmp_path_factory.mktemp("declared")
    (folder / "lossy.py").write_text(AS_ENTITIES)
    entities = {"grid.entities": {"Bus": ["bus0", "bus1"], "Grid": ["grid"], "Source": ["hydro", "coal"]}}
    return {"axis": run_with(f"{EXAMPLES / 'own_grid.py'}:SunGrid", folder / "axis.h5"),
            "entities": run_with(f"{folder / 'lossy.py'}:Lossy", folder / "entities.h5", **entities)}


def laws(path):
    with Trace(path) as trace:
        return {row[0]: row[3] for row in verify(trace).tables[0].rows}


@pytest.mark.parametrize("which", ["axis", "entities"])
def test_what_is_declared_is_checked(runs, which):
    assert [laws(runs[which])[law] for law in (POWER, CARBON, RANGE)] == ["holds"] * 3


@pytest.mark.parametrize(("which", "port", "change", "broken"), [
    ("axis", "grid/Bus/nci_kg_per_kwh", lambda v: 0.99 * v, {CARBON, RANGE}),
    ("axis", "grid/Grid/p_source_kw", lambda v: v + 1.0, {POWER, CARBON}),
    ("entities", "grid/Source/p_kw", lambda v: 1.01 * v, {POWER, CARBON}),
    ("entities", "grid/Source/kg_per_kwh", lambda v: 1.5 * v, {CARBON}),
    ("entities", "grid/Grid/emission_kg_per_h", lambda v: v + 0.1, {CARBON}),
    ("entities", "grid/Grid/loss_kw", lambda v: 0.0 * v, {POWER, CARBON}),
    ("entities", "grid/Bus/nci_kg_per_kwh", lambda v: np.ones_like(v), {CARBON, RANGE}),
])
def test_one_number_that_is_changed_is_found(runs, tmp_path, which, port, change, broken):
    path = tmp_path / "changed.h5"
    with rewritten(path, runs[which]) as file:
        file[port][...] = change(file[port][...])
    said = laws(path)
    assert {law for law in (POWER, CARBON, RANGE) if said[law] == "BROKEN"} == broken


def test_a_grid_without_them_is_named_with_what_to_declare(tmp_path):
    """And one that records flows is checked by those."""
    (tmp_path / "bare.py").write_text(AS_ENTITIES.replace('"p_kw", "out"', '"gives_kw", "out"').replace(
        '{"p_kw": gives', '{"gives_kw": gives'))
    path = run_with(f"{tmp_path / 'bare.py'}:Lossy", tmp_path / "t.h5",
                    **{"grid.entities": {"Bus": ["bus0", "bus1"], "Source": ["hydro", "coal"]}})
    with Trace(path) as trace:
        note = verify(trace).tables[0].note
    assert "the grid declares no sources: give p_source_kw of Grid by source, with kg_per_kwh in the table" in note
    flows = Experiment(find("two_bus"), "native", out=tmp_path / "f.h5", until_s=900.0).run().path
    assert laws(flows)[CARBON] == "the grid records flows"
