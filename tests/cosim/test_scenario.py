import re
import warnings

import pytest
from worlds import boxes, run

from cosim.drivers.plan import make_plan
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.imports import load
from cosim.run import find
from cosim.scenario import Link, Member, Scenario, named_rows, override
from cosim.trace import Trace


def test_json_round_trip_is_exact():
    scenario = boxes()
    assert Scenario.from_json(scenario.to_json()) == scenario


def test_a_copy_is_validated_as_a_new_one_is():
    old = boxes()
    source = old.members["src"].model_copy(update={"step_s": "5min", "entities": {"Source": ["a", "b"]}})
    assert (source.step_s, source.entities) == (300.0, {"Source": ("a", "b")})
    copy = old.model_copy(update={"until_s": "1h", "links": list(old.links), "members": {**old.members, "src": source}})
    assert (copy.until_s, copy.links) == (3600.0, old.links)
    with warnings.catch_warnings(action="error"):  # pydantic warns where a field is not of its type
        assert Scenario.from_json(copy.to_json()) == copy
    assert old.model_copy() == old
    assert old.model_copy().shared is not old.shared
    with pytest.raises(ScenarioError, match=r"\.until_s = -1: input should be greater than 0"):
        old.model_copy(update={"until_s": -1})
    with pytest.raises(ScenarioError, match="unknown field of .* 'untl'; did you mean 'until_s'"):
        old.model_copy(update={"untl": 3})


def test_override_reaches_members_frame_and_shared_tables():
    s = override(boxes(), {"src.slope_kw": "2.5", "store.step_s": "5min", "seeds.src": "3", "shared.rows.a.n": 7,
                           "flush_s": "1h"})
    assert s.members["src"].params["slope_kw"] == 2.5
    assert s.members["store"].step_s == 300
    assert (s.seed_of("src"), s.seed_of("store")) == (3, 0)
    assert s.shared["rows"]["a"]["n"] == 7
    assert s.flush_s == 3600
    assert boxes().members["src"].params == {"noise_kw": 1.0}, "the original stays as it was"


@pytest.mark.parametrize(("path", "value", "says"), [
    ("srv.slope_kw", "1", "unknown member 'srv'; did you mean 'src'?"),
    ("src.slope_kv", "1", "unknown field of src 'slope_kv'; did you mean 'slope_kw'?"),
    ("src.slope_kw", "-1", "src.slope_kw = -1: input should be greater than or equal to 0"),
    ("src.slope_kw", "steep", "src.slope_kw = 'steep': input should be a valid number"),
    ("src.slope_kw", "NaN", "src.slope_kw"),
    ("src.step_s", "0", "members.src.step_s = 0"),
    ("src.step_s", "-1h", "is negative"),
    ("store.step_s", "90s", "store.step_s = 90 s is not a whole number of bus steps"),
    ("src", "1", "name a field of the member"),
    ("shared.row.a.n", "1", "unknown shared table 'row'; did you mean 'rows'?"),
    ("shared.rows.a.n.x", "1", "'n' has no fields"),
    ("start", "yesterday", "start = 'yesterday': write an ISO date"),
    ("seeds.nobody", "1", "unknown member 'nobody'"),
    ("seeds.src", "-2", "seeds.src = -2"),
])
def test_wrong_settings_are_named_with_value_and_choice(path, value, says):
    with pytest.raises(ScenarioError) as err:
        resolve(override(boxes(), {path: value}))
    assert says in str(err.value)
    assert "\n" not in str(err.value)


@pytest.mark.parametrize(("path", "says"), [
    ("nosuch.module:Sim", "member 'src' 'nosuch.module:Sim' cannot be imported"),
    ("boxes:Sourec", "did you mean 'Source'?"),
    ("boxes", "write package.module:Name"),
])
def test_a_simulator_that_cannot_be_imported_is_named(path, says):
    with pytest.raises(ScenarioError) as err:
        resolve(override(boxes(), {"src.simulator": path}))
    assert says in str(err.value)


def test_defaults_are_written_out_in_the_resolved_scenario():
    full = resolve(boxes()).scenario
    assert full.members["src"].params == {"slope_kw": 1.0, "noise_kw": 1.0}
    assert full.members["store"].params["fail_at_s"] is None


def test_horizon_must_be_a_whole_number_of_steps():
    assert resolve(boxes(), 120).until == 2
    with pytest.raises(ScenarioError, match="whole number"):
        resolve(boxes(), 90)
    with pytest.raises(ScenarioError, match="at least one step"):
        resolve(boxes(), 0)


def linked(*links: Link, stores=("x", "y"), sources=("feed",), names=None) -> Scenario:
    return Scenario(name="t", about="t", links=links, members={
        "a": Member(simulator="boxes:Store", step_s=60, entities={"Store": stores}),
        "b": Member(simulator="boxes:Store", step_s=60, entities={"Store": stores}),
        "s": Member(simulator="boxes:Source", step_s=60, entities={"Source": sources}, names=names or {})})


def plan_of(scenario: Scenario):
    from cosim.drivers.native import start_member
    resolved = resolve(scenario)
    return make_plan(resolved, {n: start_member(resolved, n, c()) for n, c in resolved.classes.items()})


def test_links_expand_by_name_broadcast_and_table():
    plan = plan_of(linked(Link(source="s.p_kw", target="a.p_kw"), Link(source="a.p_seen_kw", target="b.p_kw")))
    assert [(c.source, c.target) for c in plan.connections] == [
        (("s", "feed", "p_kw"), ("a", "x", "p_kw")), (("s", "feed", "p_kw"), ("a", "y", "p_kw")),
        (("a", "x", "p_seen_kw"), ("b", "x", "p_kw")), (("a", "y", "p_seen_kw"), ("b", "y", "p_kw"))]
    assert plan.order.index("s") < plan.order.index("a") < plan.order.index("b")


@pytest.mark.parametrize(("links", "says"), [
    ([("s.p_kw", "a.p_kw", {}), ("a.p_seen_kw", "b.p_kw", {}), ("b.p_seen_kw", "a.p_mirror_kw", {})],
     "loop within one step"),
    ([("s.p_kw", "a.p_kw", {})], "b.x.p_kw has no source"),
    ([("s.p_kw", "a.p_kv", {})], "did you mean 'p_kw'?"),
    ([("s.p_kw", "a.e_kwh", {})], "unknown in port"),
    ([("a.e_kwh", "b.p_kw", {})], "the two must measure the same thing"),
    ([("s.ticks", "a.p_kw", {"scale": 2.0})], "cannot be scaled"),
    ([("a.p_seen_kw", "b.p_mirror_kw", {"pairs": {"x": "y", "y": ["y"]}}), ("s.p_kw", "a.p_kw", {}),
      ("s.p_kw", "b.p_kw", {})], "takes one source"),
    ([("s.p_kw", "a.p_kw", {"pairs": {"feed": "z"}})], "unknown target entity 'z'"),
    ([("s.p_kw", "a.p_kw", {"shift_s": 90})], "whole number"),
    ([("s.p_kw", "a.p_kw", {"shift_s": 60})], "no first value"),
    ([("s.p_kw", "a.p_kw", {"shift_s": 60, "initial": {"other": 1.0}})], "initial has no value for feed; it has other"),
])
def test_a_wiring_that_cannot_work_is_refused(links, says):
    with pytest.raises(ScenarioError) as err:
        plan_of(linked(*(Link(source=a, target=b, **more) for a, b, more in links)))
    assert says in str(err.value)


def pairs_of(stores, sources, **more):
    fed = plan_of(linked(Link(source="s.p_kw", target="a.p_kw", **more), Link(
        source="a.p_seen_kw", target="b.p_kw", pairs={b: b for b in stores}), stores=stores, sources=sources))
    return {(c.source[1], c.target[1]) for c in fed.connections if c.target[0] == "a"}


def test_rows_called_like_the_other_ends_entities_keep_their_side(tmp_path):
    """Sites by the names of buses other than their own: each stays at its node, and nothing else changes."""
    study = override(find("ieee33"), {"controller.policy": "uniform"})
    renamed = study.replace(shared={**study.shared, "sites": dict(
        zip(("bus5", "bus8", "bus9"), study.shared["sites"].values(), strict=True))})
    a, b = (run(s, tmp_path / f"{k}.h5", until_s=900.0).digest.figures for k, s in enumerate((study, renamed)))
    for name in ("energy_kwh", "co2_attributed_kg", "co2_system_kg"):
        assert a[name] == b[name]
    around = {f"bus{k}": {**site, "node": node} for (k, node), site in zip(
        ((3, 7), (7, 9), (9, 3)), study.shared["sites"].values(), strict=True)}  # either way round is a wiring
    with Trace(run(study.replace(shared={**study.shared, "sites": around}), tmp_path / "t.h5", until_s=60.0).path) as t:
        wiring = zip(t.table("wiring")["source"], t.table("wiring")["target"], strict=True)
        assert sorted((a, b) for a, b in wiring if a.endswith("nci_kg_per_kwh")) == [
            (f"grid.bus{b}.nci_kg_per_kwh", f"controller.bus{a}.nci_kg_per_kwh") for a, b in ((9, 3), (3, 7), (7, 9))]


def test_a_single_entity_goes_to_its_namesake_and_only_a_stranger_to_all():
    """Whichever side has one entity: names first. A row's number that is not there is nobody's."""
    buses = ("bus0", "bus1", "bus2")
    everybody = {("feed", bus) for bus in buses}
    assert pairs_of(buses, ("feed",)) == everybody
    assert pairs_of(buses, ("site9",)) == {("site9", bus) for bus in buses}
    assert pairs_of(("total",), buses) == {(bus, "total") for bus in buses}
    assert pairs_of(buses, ("bus7",), pairs={"bus7": buses}) == {("bus7", bus) for bus in buses}
    for stray in ("bus3", "Bus_1", "BUS 1", "bus01"):
        with pytest.raises(ScenarioError, match=f"unknown target entity '{stray}'.*pairs="):
            pairs_of(buses, (stray,))
    with pytest.raises(ScenarioError, match="unknown target entity 'bus0'"):
        pairs_of(("bus9",), buses)
    with pytest.raises(ScenarioError, match="unknown target entity 'bus0'; did you mean 'bus1'"):
        pairs_of(("bus1",), buses)  # two of three buses are no target's
    plan = plan_of(linked(Link(source="s.p_kw", target="a.p_mirror_kw"), Link(source="s.p_kw", target="a.p_kw",
                   pairs={"bus1": buses}), Link(source="a.p_seen_kw", target="b.p_kw"), stores=buses,
                   sources=("bus1",)))
    assert [(c.source[1], c.target[1]) for c in plan.connections if c.target[2] == "p_mirror_kw"] == [("bus1", "bus1")]


@pytest.mark.parametrize(("table", "why"), [
    ({"a": 5}, "TypeError"), ({"a": None}, "TypeError"), ({"a": {"m": 1}}, "KeyError('n')"),
    ({"a": {"n": "x"}}, "ValueError")])
def test_pairs_that_do_not_fit_their_table_are_refused(table, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        named_rows(table, "bus{n:d}")
    assert named_rows({"a": {"n": 3}}, "bus{n:d}") == {"a": "bus3"}


def test_a_namesake_is_known_by_what_the_scenario_calls_it():
    buses = ("bus0", "bus1")
    plan = plan_of(linked(Link(source="s.p_kw", target="a.p_mirror_kw"), Link(source="a.p_seen_kw", target="b.p_kw"),
                          Link(source="s.p_kw", target="a.p_kw", pairs={"bus1": buses}), stores=buses,
                          sources=("Bus-1",), names={"bus*": "Bus-*"}))
    assert [(c.source[1], c.target[1]) for c in plan.connections if c.target[2] == "p_mirror_kw"] == [
        ("Bus-1", "bus1")]


def test_a_target_without_the_port_takes_the_other():
    """A grid that does not tell data centers from its base load has no port for them."""
    links = [Link(source="s.p_kw", target=f"a.{port}", or_port="p_kw") for port in ("p_site_kw", "p_kw")]
    for link in links:
        plan = plan_of(linked(link, Link(source="a.p_seen_kw", target="b.p_kw")))
        assert {c.target[2] for c in plan.connections if c.target[0] == "a"} == {"p_kw"}
    with pytest.raises(ScenarioError, match="unknown in port of member 'a' 'q_kw'"):
        plan_of(linked(links[0].model_copy(update={"or_port": "q_kw"})))


def test_links_of_members_that_are_not_there():
    with pytest.raises(ScenarioError, match="unknown member 'q'"):
        linked(Link(source="q.p_kw", target="a.p_kw"))
    with pytest.raises(ValueError, match="member.port"):
        linked(Link(source="s", target="a.p_kw"))


def test_unused_shared_tables_are_said():
    with pytest.raises(ScenarioError, match="'extra' is used by no member"):
        resolve(boxes().replace(shared={"rows": {"a": {"n": 1}, "b": {"n": 2}}, "extra": 1}))


def test_load_names_what_is_wrong():
    assert load("cosim.units:scale", "x")("p_kw", "p_mw") == 1e-3
    with pytest.raises(ScenarioError, match="hook 'cosim.units:nothing'"):
        load("cosim.units:nothing", "hook")
