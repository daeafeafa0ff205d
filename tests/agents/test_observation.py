"""States (25), (27) and actions (26), (28) as arrays: names, ranges, values, starts."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.agents.fleet.actions import decision_of, from_unit, gpu_start, manager_parts, site_parts, site_rows
from cosim.agents.fleet.decision import FleetFacts, Observation, Operation
from cosim.agents.fleet.observation import Scaler, context_columns, context_per, manager_view, site_view
from cosim.agents.fleet.observation_row import ObservationScope, usual_shares
from cosim.agents.fleet.team_arrays import TeamArrays
from cosim.agents.learn.spec import Column, Simplex, scaled

HOUR = 3600.0
FACTS = FleetFacts(
    kinds=("train", "train", "inf", "inf"), gpus=(400, 400, 400), to_per_gpu_min=(6e4, 6e4, 2.5e5, 2.5e5),
    work_to=(6.91e8, 2.88e8, 6.02e5, 3e5), deadline_s=(12 * HOUR, 12 * HOUR, 1800.0, 900.0),
    gpus_per_block=(16, 8, 1, 1), max_blocks=(6, 5, 1, 1),
    eligible=((True, True, True), (True, False, True), (True,) * 3, (True,) * 3),
    deferrals_s=tuple(h * HOUR for h in (0, 2, 4, 6, 8, 10)))
CLASSES, SITES = ["llm", "vae", "deep_research", "search"], ["aidc1", "aidc2", "aidc3"]
OFFERED = {"llm": (0.04095, 6.91e8), "vae": (0.0588, 2.88e8), "deep_research": (16.5, 6.02e5), "search": (110.0, 3e5)}
PAPER = ObservationScope(CLASSES, SITES, 500.0, {name: rate for name, (rate, _) in OFFERED.items()}, True, False, False)
FULL = dataclasses.replace(PAPER, full=True)
POOLED, KINDS = (dataclasses.replace(FACTS, gpu_shares=name) for name in ("pooled", "kinds"))
SEEN = Observation(
    time_s=6 * HOUR, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1, 0.1, 0.3, 0.3, 0.1, 0.03],
    nci_kg_per_kwh=[0.3, 0.6, 0.9], power_kw=[250.0, 125.0, 500.0], arrivals=[1, 0, 17, 108],
    arrivals_work_to=[6.91e8, 0.0, 1.02e7, 3.24e7], queued_jobs=[[1, 2, 30, 4], [0] * 4, [0] * 4],
    deferred_jobs=[[3, 4, 0, 0], [0] * 4, [0] * 4], running_jobs=[[5, 6, 7, 8]] * 3,
    pending_work_to=[[2.4e9, 4.8e8, 1e8, 0.0]] * 3, deferred_work_to=[[2.4e7, 0.0, 0.0, 0.0]] * 3,
    free_gpu_ratio=[0.0, 0.5, 1.0], site_carry=[[0.1, -0.1, 0.0]] * 4,
    deferral_carry=[[[0.5, -0.5, 0.0, 0.0, 0.0, 0.0]] * 2] * 3, mci_kg_per_kwh=[0.3, -0.2, 0.7],
    deferred_by_lead=[[[0, 0, 1, 0, 0, 2], [0, 4, 0, 0, 0, 0]]] * 3,
    deferred_by_time=[[[0, 2, 0, 1, 0, 0], [0, 4, 0, 0, 0, 0]]] * 3,
    late_jobs=[[1, 0, 0, 0], [0] * 4, [0] * 4], urgent_jobs=[[0, 3, 0, 0], [0] * 4, [0] * 4],
    slack_min=[-20.0, 1440.0, 300.0])


def columns(view):
    return {c.name: x for c, x in zip(view.columns, view.values(SEEN), strict=True)}


@pytest.mark.rows("E25", "E27")
def test_the_papers_states_have_the_papers_sizes():
    """(25): 5N + 6 = 21 and (27): 17 numbers; here the time takes two columns, sine and cosine."""
    assert len(manager_view(FACTS, PAPER).columns) == 21 + 1
    assert len(site_view(FACTS, PAPER, 0).columns) == 17 + 1


def test_a_site_sees_which_deferrals_its_jobs_have_and_when_they_are_due():
    seen = columns(site_view(FACTS, FULL, 0))
    assert [seen[f"deferred_by_lead llm +{2 * h * 3600}s"] for h in range(6)] == [0, 0, 1, 0, 0, 2]
    assert [seen[f"deferred_by_time llm +{2 * h * 3600}s"] for h in range(6)] == [0, 2, 0, 1, 0, 0]
    assert seen["slack_min"] == -20.0
    assert (seen["late_jobs llm"], seen["late_jobs vae"], seen["urgent_jobs vae"]) == (1, 0, 3)
    assert seen["deferred_by_lead vae +7200s"] == seen["deferred_by_time vae +7200s"] == 4


@pytest.mark.rows("B08", "I22", "S02", "S10")
def test_power_mode_drops_the_intensities():
    """I22: N columns of the manager, one of a site."""
    power = dataclasses.replace(PAPER, nci=False)
    assert len(manager_view(FACTS, power).columns) == 22 - 3
    assert len(site_view(FACTS, power, 0).columns) == 18 - 1
    assert not [c for c in manager_view(FACTS, dataclasses.replace(FULL, nci=False)).columns if "nci" in c.name]


@pytest.mark.rows("E25", "S01-06", "U08")
def test_what_the_manager_sees():
    """Backlogs are queued + deferred: 1+3+2+4 = 10 and 30+4 = 34; at 6:00 sin = 1, cos = 0."""
    seen = columns(manager_view(FACTS, dataclasses.replace(FULL, mci=True)))
    assert seen["price_usd_per_kwh"] == 0.1
    assert [seen[f"nci_kg_per_kwh {s}"] for s in SITES] == [0.3, 0.6, 0.9]
    assert [seen[f"mci_kg_per_kwh {s}"] for s in SITES] == [0.3, -0.2, 0.7]
    assert seen["slack_min aidc3"] == 300.0
    assert seen["train_backlog_jobs aidc1"] == 10
    assert seen["inf_backlog_jobs aidc1"] == 34
    assert (seen["power_kw aidc3"], seen["free_gpu_ratio aidc2"]) == (500.0, 0.5)
    assert [seen[f"arrivals {c}"] for c in CLASSES] == [1, 0, 17, 108]
    assert (seen["sin of day"], seen["cos of day"]) == pytest.approx((1.0, 0.0))
    assert seen["pending_min aidc1 llm"] == 2.4e9 / 6e4 / 400
    assert seen["site_carry vae aidc2"] == -0.1


def test_signals_are_shown_less_their_mean_over_the_sites():
    """NCI 0.3, 0.6, 0.9: mean 0.6; mci 0.3, -0.2, 0.7: mean 0.8 / 3. All other columns stay where they are."""
    scope = dataclasses.replace(FULL, mci=True, relative=True)
    seen = columns(manager_view(FACTS, scope))
    assert [seen[f"relative_nci_kg_per_kwh {s}"] for s in SITES] == pytest.approx([-0.3, 0.0, 0.3])
    assert [seen[f"relative_mci_kg_per_kwh {s}"] for s in SITES] == pytest.approx([0.1 / 3, -1.4 / 3, 1.3 / 3])
    assert columns(site_view(FACTS, scope, 2))["relative_nci_kg_per_kwh"] == pytest.approx(0.3)
    without = dataclasses.replace(scope, relative=False)
    assert [c for c in manager_view(FACTS, scope).columns if "relative" not in c.name] == manager_view(
        FACTS, without).columns


def test_usual_shares_by_carbon_fall_by_e_for_every_fifth_of_a_kg():
    """0.3, 0.5 and 0.7 kg/kWh: 1, 1/e and 1/e^2 of 1.5032; a fresh manager decides just that, whatever the class."""
    scope = dataclasses.replace(FULL, usual_shares=True)
    seen = dataclasses.replace(SEEN, nci_kg_per_kwh=[0.3, 0.5, 0.7])
    view = manager_view(FACTS, scope)
    values = dict(zip([c.name for c in view.columns], view.values(seen), strict=True))
    share = [math.exp(values[f"usual_share {s}"]) for s in SITES]
    assert share == pytest.approx([0.66524, 0.24473, 0.09003], abs=1e-5)
    spec = TeamArrays(FACTS, scope, OFFERED).spec
    assert all(part.around == tuple(f"usual_share {s}" for s in SITES) for part in spec.types["manager"].action)
    many = usual_shares([np.array([0.3, 0.7]), np.array([0.5, 0.7]), np.array([0.7, 0.7])])
    np.testing.assert_allclose(np.exp(np.array(many)).T, [share, [1 / 3] * 3])


@pytest.mark.rows("E27", "I26", "S07-12", "S15")
def test_what_a_site_sees():
    """2.4e9 TO on 400 GPUs of 6e4 TO/min take 100 minutes, 2.4e7 TO take one, 1e8 TO of 2.5e5 TO/min one."""
    seen = columns(site_view(FACTS, FULL, 0))
    assert [seen[f"price_usd_per_kwh +{h * 3600}s"] for h in (4, 10)] == [0.3, 0.03]
    assert (seen["backlog_jobs llm"], seen["backlog_jobs vae"]) == (4, 6)
    assert (seen["nci_kg_per_kwh"], seen["power_kw"], seen["free_gpu_ratio"]) == (0.3, 250.0, 0.0)
    assert [seen[f"pending_min {c}"] for c in CLASSES] == [100.0, 20.0, 1.0, 0.0]
    assert (seen["deferred_min llm"], seen["queued_jobs search"], seen["running_jobs vae"]) == (1.0, 4, 6)
    assert seen["deferral_carry vae +7200s"] == -0.5


def test_a_site_sees_how_its_gpus_would_usually_be_split():
    """240 min to work training off: LLM 100 + 28.79 / 3 min of the whole site's work are (100 + 9.597) / 240 = 0.4567
    of it, VAE 20 / 240. Inference: (1e8 + 1.02e7 / 3) TO in 2 min of 2.5e5 TO are 206.8, but its 37 + 17 / 3 jobs
    take 43 GPUs; search 3.24e7 / 3 TO would take 22, and its 8 running jobs and 4 queued ones and 36 are 48."""
    seen = columns(site_view(FACTS, FULL, 0))
    share = [math.exp(seen[f"usual_gpus {c}"]) for c in (*CLASSES, "unused")]
    assert share[:2] == pytest.approx([0.45664, 0.08333], abs=1e-4)
    assert share[2:4] == pytest.approx([43 / 400, 22 / 400])
    assert sum(share) == pytest.approx(1.0)
    crowded = dataclasses.replace(SEEN, pending_work_to=[[2.4e10, 4.8e9, 1e8, 0.0]] * 3)
    view = site_view(FACTS, FULL, 0)
    busy = dict(zip([c.name for c in view.columns], view.values(crowded), strict=True))
    llm, vae, unused = (math.exp(busy[f"usual_gpus {c}"]) for c in ("llm", "vae", "unused"))
    assert llm + vae == pytest.approx(1 - 65 / 400)
    assert llm / vae == pytest.approx((1000 + 9.597) / 200, rel=1e-4)
    assert unused == pytest.approx(1e-3)


@pytest.mark.rows("S13-14")
def test_the_context_is_a_sites_own_jobs():
    """Site 1 was sent one LLM job: 6.91e8 TO / (6e4 TO/(GPU min) x 400 GPUs) = 28.79 min."""
    jobs, work = [[0] * 4, [1, 0, 5, 0], [0] * 4], [[0.0] * 4, [6.91e8, 0.0, 1e8, 0.0], [0.0] * 4]
    names = [c.name for c in context_columns(FULL)]
    values = dict(zip(names, np.array(jobs[1] + work[1]) / context_per(FACTS, 1), strict=True))
    assert (values["allocated_jobs llm"], values["allocated_jobs deep_research"]) == (1, 5)
    assert values["allocated_min llm"] == pytest.approx(28.79, abs=0.005)
    assert values["allocated_min deep_research"] == 1.0


@given(st.lists(st.floats(-1e6, 1e9), min_size=3, max_size=3))
def test_the_fast_scaler_is_the_contracts(values):
    some = [Column("a", -0.5, 2.0), Column("b", 0.0, 1e5, "log", 10.0), Column("c")]
    np.testing.assert_allclose(Scaler(some)(values), scaled(values, some), rtol=1e-6)


@pytest.mark.rows("M12")
def test_every_column_has_a_range_that_scales_into_minus_one_to_one():
    for view in (manager_view(FACTS, FULL), site_view(FACTS, FULL, 2)):
        got = Scaler(view.columns)(view.values(SEEN))
        assert got.dtype == np.float32
        assert np.abs(got).max() <= 1.0
        assert len({c.name for c in view.columns}) == len(view.columns)


def test_gpus_start_at_the_offered_load_with_head_room():
    """LLM 0.04095 x 6.91e8 / 6e4 = 471.6 GPUs, VAE 282.2, inference 39.7 and 132 of 1200: 77.1 %; with 25 % more
    96.4 %, so 3.6 % are unused."""
    start = gpu_start(FACTS, [OFFERED[c] for c in CLASSES])
    assert start == pytest.approx((0.491, 0.294, 0.0414, 0.1375, 0.036), abs=5e-4)
    heavy = gpu_start(FACTS, [(2 * rate, work) for rate, work in OFFERED.values()])
    assert sum(heavy) == pytest.approx(1.0)
    assert heavy[0] / heavy[1] == pytest.approx(start[0] / start[1])
    assert min(gpu_start(FACTS, [(0.0, 0.0)] * 4)) > 0.0


@pytest.mark.rows("U14")
def test_ineligible_sites_start_with_nothing():
    assert manager_parts(FACTS, CLASSES)[1].start == (0.5, 0.0, 0.5)
    assert manager_parts(FACTS, CLASSES)[1].eligible == (True, False, True)


@pytest.mark.rows("A01-05", "E26", "E28", "U15")
def test_rows_become_the_decision_they_say():
    """Sizes 12 and 2 x 6 + 5 + 1 = 18: every number of the rows is found again in its place, but the unused share."""
    sizes = [sum(getattr(p, "size", 1) for p in parts)
             for parts in (manager_parts(FACTS, CLASSES), site_parts(FACTS, CLASSES, OFFERED, True))]
    assert sizes == [12, 18]
    decision = decision_of(FACTS, [[100.0 * k + j for j in range(18)] for k in range(4)])
    assert decision.site_share == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [9.0, 10.0, 11.0]]
    operation = decision.operation
    assert operation.deferral_share[1] == [[200.0 + j for j in range(6)], [206.0 + j for j in range(6)]]
    assert operation.gpu_share[2] == [312.0, 313.0, 314.0, 315.0]
    assert operation.supply_temp_degc == [117.0, 217.0, 317.0]


@pytest.mark.rows("E28")
def test_with_shares_of_kinds_a_sites_row_is_shorter():
    """2 x 6 release times, training, inference, unused, temperature: 16 numbers, each found again in its place."""
    parts = site_parts(KINDS, CLASSES, OFFERED, True)
    assert [(part.name, getattr(part, "size", 1)) for part in parts[2:]] == [
        ("gpus by kind", 3), ("supply_temp_degc", 1)]
    start = gpu_start(FACTS, [OFFERED[c] for c in CLASSES])
    assert parts[2].start == pytest.approx((start[0] + start[1], start[2] + start[3], start[4]))
    operation = decision_of(KINDS, [[100.0 * k + j for j in range(16)] for k in range(4)]).operation
    assert operation.gpu_share[2] == [312.0, 0.0, 313.0, 0.0]
    assert operation.supply_temp_degc == [115.0, 215.0, 315.0]


def test_what_a_rule_does_is_summed_per_kind():
    rule = Operation([[[1.0, 0.0]]], [[0.25, 0.125, 0.0625, 0.5]], [21.0])
    assert site_rows(KINDS, rule) == [[1.0, 0.0, 0.375, 0.5625, 0.0625, 21.0]]
    assert site_rows(POOLED, rule) == [[1.0, 0.0, 0.25, 0.125, 0.0625, 0.5, 0.0625, 21.0]]


def test_the_usual_split_is_of_what_is_decided():
    """Sums of the columns of the classes; a fresh team starts around them."""
    of_kinds, of_classes = (
        {c.name: math.exp(x) for c, x in zip(view.columns, view.values(SEEN), strict=True) if "usual_gpus" in c.name}
        for view in (site_view(facts, FULL, 0) for facts in (KINDS, FACTS)))
    names = [f"usual_gpus {name}" for name in ("train", "inf", "unused")]
    assert list(of_kinds) == names
    share = [of_classes[f"usual_gpus {c}"] for c in (*CLASSES, "unused")]
    assert list(of_kinds.values()) == pytest.approx([share[0] + share[1], share[2] + share[3], share[4]])
    assert TeamArrays(KINDS, FULL, OFFERED).spec.types["site"].action[2].around == tuple(names)
    assert TeamArrays(POOLED, FULL, OFFERED).spec == TeamArrays(FACTS, FULL, OFFERED).spec


@given(st.lists(st.floats(0, 1), min_size=18, max_size=18))
@pytest.mark.rows("A01-05", "A07", "E26", "E28")
def test_any_unit_numbers_are_an_action(unit):
    parts = site_parts(FACTS, CLASSES, OFFERED, True)
    row = from_unit(parts, np.array(unit))
    at = 0
    for part in parts[:-1]:
        assert isinstance(part, Simplex)
        assert sum(row[at:at + part.size]) == pytest.approx(1.0)
        assert min(row[at:at + part.size]) >= 0.0
        at += part.size
    assert row[at] == pytest.approx(18.0 + 5.0 * unit[at])
