"""Sources whose intensity, availability and price change: series, tables as services publish them, links; and what is
refused.

Rows: E08, Z04.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandapower as pp
import pytest

from cosim.errors import CosimError, ModelError, ScenarioError
from cosim.params import validate
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.mci import MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.source_series import SourceSeries, check_given
from cosim.simulators.grid.dispatch.sources import Source, in_pu
from cosim.simulators.grid.network.radial import read_feeder

FEEDER = read_feeder("case33bw")
LIMITS = Limits(1.0, 0.9, 1.1, 0.1)
P_KW, Q_KVAR = 0.5 * FEEDER.p_kw, 0.5 * FEEDER.q_kvar
QUARTERS = [0.0, 6 * 3600.0, 12 * 3600.0, 18 * 3600.0]


def source(**given: Any) -> Source:
    return validate(Source, given, "grid.sources.s")


LIVING = {
    "up": source(node=0, kg_per_kwh=[0.4, 0.45, 0.2, 0.5], marginal_kg_per_kwh=[0.7, 0.4, 0.05, 0.45]),
    "gt30": source(node=30, kg_per_kwh=0.6, p_max_kw=[500.0, 300.0, 500.0, 400.0], q_min_kvar=-300.0, q_max_kvar=300.0,
                   usd_per_kwh=[0.05, 0.06, 0.07, 0.08]),
    "pv14": source(node=14, kg_per_kwh=0.0, p_max_kw=[0.0, 120.0, 700.0, 0.0], q_min_kvar=0.0, q_max_kvar=0.0,
                   renewable=True),
}
AT = [{name: source(**{f: (v[k] if isinstance(v, tuple) else v) for f, v in vars(s).items() if not f.startswith("__")})
       for name, s in LIVING.items()} for k in range(4)]
"""The same sources with the numbers of each quarter of the day."""


def moved(of: Any, series: SourceSeries, time_s: float, base: Any) -> None:
    """A dispatch, or the mci of one, at the sources of a time."""
    now = series.changed(base, series.at(time_s, {}), FEEDER.base_kw)
    of.recolour(now.kg_per_kwh, now.marginal_kg_per_kwh)
    of.make_available(now.available_pu)
    of.reprice(now.usd_per_kwh)


@pytest.mark.parametrize("solver", ["clarabel", "gurobi"])
def test_a_dispatch_that_is_moved_is_the_one_that_is_built_for_the_moment(solver):
    """Set points, intensities and marginal intensities, through a night without sun and back."""
    limits = Limits(1.0, 0.9, 1.1, 0.1, cost_kw_per_usd_h=1.0)
    series = SourceSeries(LIVING, "grid", None)
    moves, none = series.varying["p_max_kw"], np.zeros(FEEDER.n_bus)
    moving = Dispatch(FEEDER, series.steady(), limits, solver, moves=moves)
    mci = MciOfDispatch(FEEDER, series.steady(), limits, none, [8, 32], moves)
    for k in (0, 1, 2, 3, 0):
        for of in (moving, mci):
            moved(of, series, QUARTERS[k], moving.sources)
        got, built = (d.solve(P_KW, Q_KVAR) for d in (moving, Dispatch(FEEDER, AT[k], limits, solver)))
        assert got.p_source_kw == pytest.approx(built.p_source_kw, abs=2e-3)
        assert got.nci_kg_per_kwh == pytest.approx(built.nci_kg_per_kwh, abs=1e-5)
        assert (got.curtailed_kw, got.status) == pytest.approx((built.curtailed_kw, built.status), abs=2e-3)
        assert got.cost_usd_per_h == pytest.approx(float(got.p_source_kw @ in_pu(FEEDER, AT[k]).usd_per_kwh))
        anew = MciOfDispatch(FEEDER, AT[k], limits, none, [8, 32]).of(built)
        assert mci.of(got).up_kg_per_kwh == pytest.approx(anew.up_kg_per_kwh, abs=1e-4)
    assert moving.solve(P_KW, Q_KVAR).p_source_kw[2] == 0.0


def test_points_share_the_day_and_begin_anew_at_midnight():
    series = SourceSeries(LIVING, "grid", None)
    assert [series.at(t, {}).kg_per_kwh[0] for t in (0.0, 21599.0, 21600.0, 86399.0, 86400.0)] == [
        0.4, 0.4, 0.45, 0.5, 0.4]
    assert series.at(0.0, {}).marginal_kg_per_kwh.tolist() == [0.7, 0.6, 0.0]  # its average, where none is given


LAYOUTS = {
    "Electricity Maps": ("Datetime (UTC),Zone Id,Carbon Intensity gCO₂eq/kWh (direct)\n2026-01-01 00:00:00,DE,250\n"
                         "2026-01-01 01:00:00,DE,300\n", "kg_per_kwh",
                         {"time_column": "Datetime (UTC)", "column": "Carbon Intensity gCO₂eq/kWh (direct)"}, 0.3),
    "WattTime": ("timestamp,MOER,MOER version\n2026-01-01 00:00:00+00:00,950,3.2\n2026-01-01 01:00:00+00:00,800,3.2\n",
                 "marginal_kg_per_kwh", {"column": "MOER"}, 0.362873896),
    "CAISO": ("INTERVALSTARTTIME_GMT,NODE,MW\n2026-01-01T00:00:00-00:00,TH,47.5\n2026-01-01T01:00:00-00:00,TH,55.5\n",
              "usd_per_kwh", {"time_column": "INTERVALSTARTTIME_GMT", "column": "MW", "unit": "usd_per_mwh"}, 0.0555),
    "ENTSO-E": ('"MTU (CET/CEST)","Day-ahead Price (EUR/MWh)"\n"01.01.2026 01:00 - 01.01.2026 02:00 (CET/CEST)",68.0\n'
                '"01.01.2026 02:00 - 01.01.2026 03:00 (CET/CEST)",60.0\n', "usd_per_kwh",
                {"time_column": "MTU (CET/CEST)", "column": "Day-ahead Price (EUR/MWh)", "factor": 1.1}, 0.066),
    "capacity factors": ("time_h,cf\n0,0.0\n1,0.25\n", "p_max_kw",
                         {"column": "cf", "unit": "kw", "factor": 800.0}, 200),
    "a column of its own": ("time_s,s.p_max_mw,t.p_max_mw\n0,9,9\n3600,0.2,9\n", "p_max_kw", {}, 200.0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_as_they_are_published(tmp_path, layout):
    """The value of the second hour, in the field's unit; one file per zone is one per source."""
    text, field, how, value = LAYOUTS[layout]
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    given = {"s": source(**{"node": 0, "kg_per_kwh": 0.1, field: {"path": str(tmp_path / "t.csv"), **how}})}
    series = SourceSeries(given, "grid", "2026-01-01")
    series.check(7200.0, 900.0)
    assert getattr(series.at(4000.0, {}), field)[0] == pytest.approx(value)
    with pytest.raises(ScenarioError, match=r"t.csv.*(ends|covers|needs|long)"):
        series.check(86400.0, 900.0)


BAD = {
    "a marginal series as average": ("time_h,MOER\n0,950\n", {"kg_per_kwh": {"column": "MOER"}},
                                     "'MOER' is a marginal intensity.*grid.sources.s.marginal_kg_per_kwh"),
    "g as kg": ("time_h,i\n0,300\n", {"kg_per_kwh": {"column": "i", "unit": "kg_per_kwh"}}, "t.csv: .*300.*g/kWh"),
    "two units": ("time_h,i_g_per_kwh\n0,300\n", {"kg_per_kwh": {"column": "i_g_per_kwh", "unit": "lb_per_mwh"}},
                  "is in g/kWh, and grid.sources.s.kg_per_kwh.unit = lb_per_mwh"),
    "no unit": ("time_h,i\n0,300\n", {"kg_per_kwh": {"column": "i"}}, "'i' does not say its unit"),
    "a price's unit": ("time_h,i\n0,300\n", {"kg_per_kwh": {"column": "i", "unit": "usd_per_mwh"}}, "unit of price"),
    "euros": ("time_h,Price (EUR/MWh)\n0,60\n", {"usd_per_kwh": {"column": "Price (EUR/MWh)"}},
              "in EUR; --set grid.sources.s.usd_per_kwh.factor=RATE"),
    "a cell": ("time_h,kg_per_kwh\n0,0.3\n1,-\n", {"kg_per_kwh": {}}, "t.csv, row 2: kg_per_kwh = '-' is not a finite"),
    "no column": ("time_h,x\n0,0.3\n", {"kg_per_kwh": {}}, "has no column kg_per_kwh; it has x"),
    "no file": (None, {"kg_per_kwh": {}}, "no file at .*--set grid.sources.s.kg_per_kwh.path"),
    "less than it must give": ("time_h,p_max_kw\n0,0\n12,80\n", {"p_max_kw": {"overflow": "hold"}, "p_min_kw": 50.0},
                               "grid.sources.s.p_min_kw = 50 is above its p_max_kw of 0 at .*t.csv, 00:00; lower"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_refused_before_the_run(tmp_path, what):
    text, fields, says = BAD[what]
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    given = {name: {"path": str(tmp_path / "t.csv"), **v} if isinstance(v, dict) else v for name, v in fields.items()}
    with pytest.raises(ScenarioError, match=says):
        check_given({"s": source(**{"node": 0, "kg_per_kwh": 0.1, **given})}, {}, "grid", "2026-01-01", 3600.0, 900.0)


@pytest.mark.parametrize(("given", "says"), [
    ({"kg_per_kwh": [0.3, 350.0]}, r"kg_per_kwh = .*: kg_per_kwh = 350 kg/kWh: no fuel"),
    ({"kg_per_kwh": [0.3, "x"]}, r"point 2 \('x'\) is no finite number"),
    ({"kg_per_kwh": "often"}, "no finite number; give a number, a list"),
    ({"kg_per_kwh": []}, "no finite number"),
    ({"kg_per_kwh": {"paht": "x.csv"}}, "path"),
    ({"p_max_kw": [100.0, 0.0], "p_min_kw": 10.0}, "p_min_kw = 10 is above its maximum 0 at 12:00"),
])
def test_values_that_cannot_be_say_so_in_a_line(given, says):
    with pytest.raises(ScenarioError, match=says):
        source(**{"node": 0, "kg_per_kwh": 0.1, **given})


GRID = {"network": "case33bw", "ac_check": False, "solver": "clarabel", "sources": {
    "up": {"node": 0, "kg_per_kwh": 0.4, "p_min_kw": 0.0},
    "pv": {"node": 14, "kg_per_kwh": "linked", "p_max_kw": "linked", "q_min_kvar": 0.0, "q_max_kvar": 0.0,
           "renewable": True}}}


def started(**params: Any) -> CefDispatch:
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, **{**GRID, **params})
    grid.create(1, "Bus", names=["bus14"])
    grid.create(1, "Grid", names=["grid"])
    grid.create(1, "Source", names=["pv"])
    grid.setup_done()
    return grid


def step(grid: CefDispatch, k: int, load_kw: float, **given: float) -> dict[str, Any]:
    grid.step(15 * k, {"bus14": {"p_load_kw": {"a": load_kw}},
                       "pv": {port: {"sun": value} for port, value in given.items()}}, 15 * k + 15)
    names = [p.name for p in grid.models["Grid"] if p.flow == "out"]
    return grid.get_data({"grid": names, "bus14": ["nci_kg_per_kwh"]}) | {}


def test_another_member_sends_what_a_source_has():
    """All of 80 kW is taken of 100 drawn, none at night, and of 300 kW what is drawn: the rest is curtailed. The mix is
    what flows in; the settlement is at the intensity of the interval that ended."""
    grid = started()
    for k, (has_kw, kg) in enumerate(((0.0, 0.02), (80.0, 0.02), (300.0, 0.05), (0.0, 0.02))):
        out = step(grid, k, 100.0, available_kw=has_kw, average_kg_per_kwh=kg)
        of_grid, gives = out["grid"], out["grid"]["p_source_kw"]
        assert of_grid["source_p_max_kw"] == pytest.approx([np.nan, has_kw], nan_ok=True, abs=1e-9)
        assert of_grid["source_kg_per_kwh"] == [0.4, kg]
        assert gives[1] == pytest.approx(min(has_kw, 100.0), abs=0.1)
        assert of_grid["curtailed_kw"] == pytest.approx(has_kw - gives[1], abs=1e-9)
        mix = (gives[1] * kg + (100.0 - gives[1]) * 0.4) / 100.0
        assert out["bus14"]["nci_kg_per_kwh"] == pytest.approx(mix, abs=1e-3)
        if k == 3:
            assert of_grid["emission_realised_kg_per_h"] == pytest.approx(100.0 * 0.05, abs=0.1)


@pytest.mark.parametrize(("params", "given", "says"), [
    ({}, {"available_kw": 80.0}, "pv.kg_per_kwh is linked, and nothing came at 00:00; link .* port average_kg_per_kwh"),
    ({}, {"available_kw": -5.0, "average_kg_per_kwh": 0.0}, "p_max_kw = -5 at 00:00 is below p_min_kw = 0"),
    ({}, {"available_kw": 5.0, "average_kg_per_kwh": 40.0}, "pv.kg_per_kwh at 00:00: kg_per_kwh = 40"),
    ({}, {"available_kw": 5.0, "average_kg_per_kwh": 0.0, "energy_usd_per_kwh": 0.1},
     "0.1 came over a link to grid.sources.pv.usd_per_kwh, which the scenario gives"),
])
def test_what_is_linked_comes_and_can_be(params, given, says):
    with pytest.raises(ModelError, match=says):
        step(started(**params), 0, 100.0, **given)


@pytest.mark.parametrize(("renewable", "says"), [
    (True, "10 of a renewable source whose p_max_kw is linked: it has nothing at times, at night say; set p_min"),
    (False, "10 of a source whose p_max_kw is linked: what comes may be less, .* while the run goes on; set p_min"),
])
def test_a_linked_plant_that_must_run_is_refused_before_the_run(renewable, says):
    plant = {**GRID["sources"]["pv"], "kg_per_kwh": 0.0, "p_min_kw": 10.0, "renewable": renewable}
    with pytest.raises(ScenarioError, match=rf"grid.sources.pv.p_min_kw = {says}"):
        check_given({"pv": validate(Source, plant, "pv")}, {}, "grid", None, 3600.0, 900.0)


def test_an_entity_of_a_source_without_a_link_is_refused():
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, **GRID)
    with pytest.raises(ScenarioError, match="no source with a field that is linked 'up'|up.*pv"):
        grid.create(1, "Source", names=["up"])


def test_two_prices_of_the_substation_are_refused():
    grid = started(sources={**GRID["sources"], "up": {"node": 0, "kg_per_kwh": 0.4, "usd_per_kwh": [0.1, 0.2]}})
    with pytest.raises(ModelError, match="grid.sources.up.usd_per_kwh varies, and a price is linked"):
        grid.step(0, {"grid": {"price_usd_per_kwh": {"tariff": 0.1}},
                      "pv": {"available_kw": {"sun": 1.0}, "average_kg_per_kwh": {"sun": 0.0}}}, 15)


def test_a_ramp_and_its_plan_see_what_will_be_there():
    """A plant ahead of a cut of what it may give is taken down in time: 40 kW an interval from 100 to 20 kW."""
    cut = [100.0] * 4 + [20.0] * 92
    given = {"up": {"node": 0, "kg_per_kwh": 0.9, "p_min_kw": 0.0},
             "gt": {"node": 14, "kg_per_kwh": 0.1, "p_max_kw": cut, "q_min_kvar": 0.0, "q_max_kvar": 0.0,
                    "ramp_kw_per_min": 40.0 / 15.0}}
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, **{**GRID, "sources": given, "lookahead_steps": 4})
    grid.create(1, "Bus", names=["bus14"])
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    power = []
    for k in range(6):
        grid.step(15 * k, {"bus14": {"p_load_kw": {"a": 300.0}}}, 15 * k + 15)
        power.append(grid.get_data({"grid": ["p_source_kw"]})["grid"]["p_source_kw"][1])
    assert power == pytest.approx([100.0, 100.0, 100.0, 60.0, 20.0, 20.0], abs=0.05)


def test_where_a_series_cannot_be_used_its_field_is_named():
    with pytest.raises(CosimError, match="sources.up.kg_per_kwh varies over time, which is not modelled here"):
        in_pu(FEEDER, LIVING)
    assert json.dumps(AT[0]["up"].kg_per_kwh) == "0.4"


def test_a_table_goes_on_in_a_learners_next_day(tmp_path):
    """Three days of 0.1, 0.2, 0.3 kg/kWh; the world after a day of 24 h begins on the second."""
    (tmp_path / "t.csv").write_text("time_h,kg_per_kwh\n0,0.1\n24,0.2\n48,0.3\n")
    given = {"up": {"node": 0, "kg_per_kwh": {"path": str(tmp_path / "t.csv")}}, "pv": GRID["sources"]["pv"]}
    first, second = started(sources=given), started(sources=given)
    said = {"available_kw": 0.0, "average_kg_per_kwh": 0.0}
    assert step(first, 95, 100.0, **said)["bus14"]["nci_kg_per_kwh"] == pytest.approx(0.1)
    second.resume(first.carry())
    assert step(second, 0, 100.0, **said)["bus14"]["nci_kg_per_kwh"] == pytest.approx(0.2)


@pytest.mark.long
@pytest.mark.parametrize(("given", "sent", "kg"), [
    ({"*": [0.05, 0.2]}, None, 0.05), ({"pv": "linked"}, 0.07, 0.07)])
def test_the_networks_own_generators_vary_as_well(tmp_path, given, sent, kg):
    """50 kW, fixed as the file has them, at the intensity of the moment; what is too much flows out."""
    net = pp.create_empty_network()
    for _ in range(2):
        pp.create_bus(net, 20.0)
    pp.create_line_from_parameters(net, 0, 1, 1.0, 0.1, 0.1, 0.0, 1.0)
    pp.create_ext_grid(net, 0)
    pp.create_sgen(net, 1, p_mw=0.05, name="pv")
    pp.to_json(net, str(tmp_path / "net.json"))
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, network=str(tmp_path / "net.json"), ac_check=False, solver="clarabel",
              sources={"up": {"node": 0, "kg_per_kwh": 0.3, "p_min_kw": -100.0}}, network_sources=given)
    grid.create(1, "Grid", names=["grid"])
    if sent is not None:
        grid.create(1, "Source", names=["pv"])
    grid.setup_done()
    grid.step(0, {} if sent is None else {"pv": {"average_kg_per_kwh": {"sun": sent}}}, 15)
    out = grid.get_data({"grid": ["p_source_kw", "emission_kg_per_h"]})["grid"]
    assert out["p_source_kw"] == pytest.approx([-50.0, 50.0], abs=0.1)
    assert out["emission_kg_per_h"] == pytest.approx(50.0 * kg)
    with pytest.raises(ScenarioError, match=r"network_sources.\* = linked: .* name each"):
        check_given({}, {"*": "linked"}, "grid", None, 3600.0, 900.0)
