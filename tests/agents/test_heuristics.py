"""The rule policies: every decision is valid, and each does what its name says."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.agents.fleet.decision import EnergyModel, FleetFacts, Observation, decide
from cosim.agents.fleet.heuristics import GpuRule, PolicyOptions, share_blocks
from cosim.agents.fleet.planner_params import PlannerParams
from cosim.agents.fleet.policies import POLICIES, make_policy
from cosim.errors import ModelError, ScenarioError

HOUR = 3600.0
# Table I: llm, vae (train), deep_research, search (inf) on three sites of 400 GPUs
TABLE1 = FleetFacts(
    kinds=("train", "train", "inf", "inf"), gpus=(400, 400, 400), to_per_gpu_min=(6e4, 6e4, 2.5e5, 2.5e5),
    work_to=(6.91e8, 2.88e8, 6.02e5, 3e5), deadline_s=(12 * HOUR, 12 * HOUR, 1800.0, 900.0),
    gpus_per_block=(16, 8, 1, 1), max_blocks=(6, 5, 1, 1), eligible=((True,) * 3,) * 4,
    deferrals_s=tuple(h * HOUR for h in (0, 2, 4, 6, 8, 10)), top_to_per_s=((96e3, 40e3, 2.5e5 / 60, 2.5e5 / 60),) * 3)
# another fleet: unequal sites, classes in another order, site 1 may not train llm, no time without deferral
ODD = FleetFacts(
    kinds=("inf", "train", "inf"), gpus=(96, 1000), to_per_gpu_min=(1e5, 6e4, 2e5), work_to=(1e5, 1e8, 1e6),
    deadline_s=(60.0, 6 * HOUR, 600.0), gpus_per_block=(4, 32, 1), max_blocks=(1, 3, 1),
    eligible=((True, True), (True, False), (True, True)), deferrals_s=(HOUR, 3 * HOUR),
    top_to_per_s=((4e5 / 60, 96e3, 2e5 / 60),) * 2)
FLEETS = {"table1": TABLE1, "odd": ODD}


def policy_of(name, facts, **options):
    weights = tuple(range(1, facts.n_sites + 1)) if name == "static" else None
    busy, idle = [0.7] * len(facts.kinds), [100.0] * facts.n_sites
    energy = EnergyModel(busy, idle, lambda site, it_kw, supply_temp_degc: it_kw + 0.0 * supply_temp_degc)
    short = PlannerParams(horizon_s=HOUR)
    return make_policy(name, facts, PolicyOptions(weights=weights, energy=energy, planner=short, **options),
                       np.random.default_rng(5))


def observe(facts, **fields):
    """A quiet minute; `fields` replace what the test is about."""
    n, m, h = facts.n_sites, len(facts.kinds), len(facts.deferrals_s)
    zeros = [[0.0] * m for _ in range(n)]
    return dataclasses.replace(Observation(
        time_s=0.0, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1] * h, nci_kg_per_kwh=[0.5] * n,
        mci_kg_per_kwh=[0.5] * n,
        power_kw=[100.0] * n, arrivals=[0] * m, arrivals_work_to=[0.0] * m, queued_jobs=zeros, deferred_jobs=zeros,
        running_jobs=zeros, pending_work_to=zeros, deferred_work_to=zeros, free_gpu_ratio=[1.0] * n,
        site_carry=[[0.0] * n] * m, deferral_carry=[[[0.0] * h] * len(facts.train)] * n), **fields)


@st.composite
def observations(draw, facts):
    n, m, h = facts.n_sites, len(facts.kinds), len(facts.deferrals_s)

    def matrix(values):
        return [[draw(values) for _ in range(m)] for _ in range(n)]

    def work_of(jobs):
        return [[k * w * draw(st.floats(0.01, 1)) for k, w in zip(row, facts.work_to, strict=True)] for row in jobs]

    number = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2000))
    arrivals = [draw(number) for _ in range(m)]
    queued, running, deferred = matrix(number), matrix(number), matrix(number)
    inside = [[q + r for q, r in zip(*rows, strict=True)] for rows in zip(queued, running, strict=True)]
    return observe(
        facts, time_s=draw(st.floats(0, 1e6)), nci_kg_per_kwh=[draw(st.floats(0, 1)) for _ in range(n)],
        forecast_usd_per_kwh=[draw(st.sampled_from([-0.1, 0.03, 0.1, 0.3])) for _ in range(h)],
        arrivals=arrivals, arrivals_work_to=[k * w for k, w in zip(arrivals, facts.work_to, strict=True)],
        queued_jobs=queued, running_jobs=running, deferred_jobs=deferred, pending_work_to=work_of(inside),
        deferred_work_to=work_of(deferred))


def assert_valid(decision, facts):
    n, m, h = facts.n_sites, len(facts.kinds), len(facts.deferrals_s)
    assert len(decision.site_share) == m
    for row, eligible in zip(decision.site_share, facts.eligible, strict=True):
        assert len(row) == n
        assert sum(row) == pytest.approx(1.0)
        assert all(x >= 0 and (ok or x == 0) for x, ok in zip(row, eligible, strict=True))
    operation = decision.operation
    assert len(operation.deferral_share) == len(operation.gpu_share) == len(operation.supply_temp_degc) == n
    for site in operation.deferral_share:
        assert len(site) == len(facts.train)
        for row in site:
            assert len(row) == h
            assert sum(row) == pytest.approx(1.0)
            assert min(row) >= 0
    for row in operation.gpu_share:
        assert len(row) == m
        assert min(row) >= 0
        assert sum(row) <= 1 + 1e-12
    assert all(facts.supply_temp_low_degc <= t <= facts.supply_temp_high_degc for t in operation.supply_temp_degc)


@pytest.mark.long(after=4)
@pytest.mark.parametrize("facts", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_decision_is_valid(name, facts, data):
    assert_valid(decide(policy_of(name, facts), data.draw(observations(facts))), facts)


@pytest.mark.parametrize("facts", FLEETS.values(), ids=FLEETS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_gpu_rule_serves_what_it_can(facts, data):
    seen = data.draw(observations(facts))
    rule, classes = GpuRule(facts, 2.0), range(len(facts.kinds))
    for i, capacity in enumerate(facts.gpus):
        jobs = [seen.queued_jobs[i][m] + seen.running_jobs[i][m] for m in classes]
        shares = rule(capacity, seen.running_jobs[i], jobs, seen.pending_work_to[i])
        gpus = [round(s * capacity) for s in shares]
        assert [s * capacity for s in shares] == pytest.approx(gpus)
        assert all(g % b == 0 for g, b in zip(gpus, facts.gpus_per_block, strict=True))
        useful = [facts.max_blocks[m] * facts.gpus_per_block[m] * jobs[m] for m in classes]
        assert all(g <= u for g, u in zip(gpus, useful, strict=True))
        # no GPU idles while a training class could use a block of it
        free = capacity - sum(gpus)
        assert all(free < facts.gpus_per_block[m] or gpus[m] == useful[m] for m in facts.train)
        held = [facts.gpus_per_block[m] * seen.running_jobs[i][m] for m in facts.inf]
        if sum(held) <= capacity:  # running inference keeps its GPUs: no overhang
            assert all(gpus[m] >= h for m, h in zip(facts.inf, held, strict=True))


def test_gpu_rule_by_hand():
    # deep_research: 10 jobs of 6.02e5 TO left = 6.02e6 / 2.5e5 = 24.08 GPU-min, in 2 min: 13 GPUs, but 10 jobs: 10
    # search: 100 jobs of 3e5 TO = 120 GPU-min: 60 GPUs; 330 remain for training
    # llm: 3 jobs, at most 3 * 6 * 16 = 288; vae: 2 jobs, at most 80; work 3 : 1 -> 247.5 : 82.5, vae is capped at 80,
    # llm gets floor(250 / 16) = 15 blocks = 240
    rule = GpuRule(TABLE1, 2.0)
    shares = rule(400, [2, 2, 0, 0], [3, 2, 10, 100], [9e8, 3e8, 6.02e6, 3e7])
    assert [round(400 * s, 9) for s in shares] == [240, 80, 10, 60]


def test_gpu_rule_meets_short_deadlines():
    # class 0 of ODD must start within 1 min, so its queue is drained in half of that: 8 jobs of 1e5 TO need
    # 8e5 / (1e5 * 0.5 * 4) = 4 jobs' GPUs at once
    assert round(96 * GpuRule(ODD, 2.0)(96, [0, 0, 0], [8, 0, 0], [8e5, 0.0, 0.0])[0]) == 16


def test_inference_in_excess_is_shared_and_running_jobs_stay():
    # 300 running and 700 waiting search jobs need 1e3 * 3e5 / 5e5 = 600 GPUs, 50 deep_research jobs 50: more than 400
    shares = GpuRule(TABLE1, 2.0)(400, [0, 0, 0, 300], [5, 0, 50, 1000], [5e8, 0.0, 5e8, 3e8])
    gpus = [round(400 * s) for s in shares]
    assert gpus[:2] == [0, 0]
    assert sum(gpus) == 400
    assert gpus[3] >= 300
    # beyond the 300 in use: 100 GPUs in proportion to 300 and 50 missing ones
    assert gpus[2:] == [14, 386]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12), st.floats(0, 1e6)), max_size=5), st.integers(0, 900))
def test_share_blocks_fits_and_wastes_nothing(classes, gpus):
    blocks = [b for b, _, _ in classes]
    room = [b * k for b, k, _ in classes]
    weights = [w for _, _, w in classes]
    given_gpus = share_blocks(gpus, blocks, room, weights)
    assert sum(given_gpus) <= gpus
    for g, b, r, w in zip(given_gpus, blocks, room, weights, strict=True):
        assert g % b == 0
        assert 0 <= g <= r
        assert w > 0 or g == 0
        assert w == 0 or g == r or gpus - sum(given_gpus) < b


@pytest.mark.rows("B05", "B06")
def test_uniform_and_static_shares():
    quiet = observe(TABLE1)
    assert policy_of("uniform", TABLE1).place(quiet) == [[1 / 3] * 3] * 4
    weights = PolicyOptions(weights=(1, 2, 7))
    assert make_policy("static", TABLE1, weights, np.random.default_rng()).place(quiet) == [[0.1, 0.2, 0.7]] * 4
    weights = PolicyOptions(weights=(1, 1, 8))
    assert make_policy("static", TABLE1, weights, np.random.default_rng()).place(quiet) == [[0.1, 0.1, 0.8]] * 4
    # site 1 may not run class 1
    assert policy_of("uniform", ODD).place(observe(ODD)) == [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]


def arrivals(facts, *numbers):
    return {"arrivals": numbers, "arrivals_work_to": [n * w for n, w in zip(numbers, facts.work_to, strict=True)]}


def test_nci_priority_fills_the_cleanest_site_and_follows_the_intensities():
    minute = arrivals(TABLE1, 1, 1, 16, 110)
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        nci = [0.0] * 3
        for rank, site in enumerate(order):
            nci[site] = (0.33, 0.55, 0.84)[rank]
        share = policy_of("nci_priority", TABLE1).place(observe(TABLE1, nci_kg_per_kwh=nci, **minute))
        expected = [0.0] * 3
        expected[order[0]] = 1.0
        assert share == [expected] * 4


def test_nci_priority_goes_on_when_a_site_is_full():
    # full is 120 min * 400 GPUs = 48000 GPU-min. Site 0 has 2.88e9 / 6e4 = 48000, deferred work included: full.
    # site 1 has 46000: room for 2000. 16 deep_research and 110 search jobs are 16 * 2.408 + 110 * 1.2 = 170.5 GPU-min,
    # so 1829.5 remain for one llm job of 691e6 / 6e4 = 11516.7 GPU-min: 15.9 % of it; the rest goes to site 2
    pending = [[1.8e9, 0, 0, 0], [2.76e9, 0, 0, 0], [0, 0, 0, 0]]
    deferred = [[1.08e9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    share = policy_of("nci_priority", TABLE1).place(observe(
        TABLE1, nci_kg_per_kwh=[0.3, 0.5, 0.8], pending_work_to=pending, deferred_work_to=deferred,
        **arrivals(TABLE1, 1, 0, 16, 110)))
    assert share[2] == share[3] == [0.0, 1.0, 0.0]
    assert share[0] == pytest.approx([0.0, 1829.472 / 11516.667, 1 - 1829.472 / 11516.667], abs=1e-6)
    assert share[1] == [0.0, 0.0, 1.0]  # no vae job this minute; the next would go to site 2


def test_nci_priority_spreads_by_gpus_when_all_are_full():
    pending = [[0, 1e12, 0], [0, 0, 1e12]]
    share = policy_of("nci_priority", ODD).place(observe(ODD, pending_work_to=pending, **arrivals(ODD, 5, 1, 5)))
    assert share[0] == share[2] == pytest.approx([96 / 1096, 1000 / 1096])
    assert share[1] == [1.0, 0.0]


def test_tou_shift_waits_for_the_lowest_price_the_earliest_of_equals():
    policy = policy_of("tou_shift", TABLE1)
    for forecast, lead in (([0.1, 0.3, 0.1, 0.1, 0.03, 0.03], 4), ([0.1] * 6, 0), ([0.3, 0.1, 0.1, 0.3, 0.3, 0.1], 1)):
        operation = decide(policy, observe(TABLE1, forecast_usd_per_kwh=forecast)).operation
        row = [float(k == lead) for k in range(6)]
        assert operation.deferral_share == [[row, row]] * 3
        assert policy.place(observe(TABLE1)) == [[1 / 3] * 3] * 4


def test_deferred_jobs_get_no_gpus_yet():
    new = [[1, 0, 0, 0]] * 3, [[6.91e8, 0.0, 0.0, 0.0]] * 3
    now = policy_of("uniform", TABLE1).operate(observe(TABLE1), *new)
    assert now.gpu_share == [[96 / 400, 0.0, 0.0, 0.0]] * 3
    later = policy_of("tou_shift", TABLE1).operate(observe(TABLE1, forecast_usd_per_kwh=[1, 1, 0, 1, 1, 1]), *new)
    assert later.gpu_share == [[0.0] * 4] * 3


def test_random_is_random_but_repeatable():
    quiet = observe(TABLE1)
    first, again = policy_of("random", TABLE1), policy_of("random", TABLE1)
    decisions = [decide(first, quiet) for _ in range(3)]
    assert decisions == [decide(again, quiet) for _ in range(3)]
    assert decisions[0] != decisions[1]
    # means of the simplex: 1/3 per site; 1/5 of the GPUs per class with one part left idle; 20.5 degC of the box
    many = [decide(first, quiet) for _ in range(400)]
    assert np.mean([d.site_share for d in many]) == pytest.approx(1 / 3)
    assert np.mean([d.operation.gpu_share for d in many], axis=(0, 1)) == pytest.approx([0.2] * 4, abs=0.03)
    assert np.mean([d.operation.supply_temp_degc for d in many]) == pytest.approx(20.5, abs=0.3)


def test_supply_temperature_is_that_of_the_options():
    assert decide(policy_of("uniform", TABLE1), observe(TABLE1)).operation.supply_temp_degc == [23.0] * 3
    cold = policy_of("nci_priority", TABLE1, supply_temp_degc=19.0)
    assert decide(cold, observe(TABLE1)).operation.supply_temp_degc == [19.0] * 3


def test_errors_name_what_is_wrong():
    rng = np.random.default_rng()
    with pytest.raises(ScenarioError, match="unknown policy 'nci_prioritty'; did you mean 'nci_priority'"):
        make_policy("nci_prioritty", TABLE1, PolicyOptions(), rng)
    with pytest.raises(ScenarioError, match="power mode hides.*myopic_oracle, random, static, .*tou_shift, uniform"):
        make_policy("nci_priority", TABLE1, PolicyOptions(), rng, sees_nci=False)
    for weights in (None, (1, 2), (1, 2, -1)):
        with pytest.raises(ScenarioError, match=r"needs one weight >= 0 per site \(3\).*weights=1:1:1"):
            make_policy("static", TABLE1, PolicyOptions(weights=weights), rng)
    with pytest.raises(ScenarioError, match="leave nothing for the eligible sites"):
        make_policy("static", ODD, PolicyOptions(weights=(0, 1)), rng)
    allowed = make_policy("static", ODD, PolicyOptions(weights=(1, 0)), rng)
    assert allowed.place(observe(ODD)) == [[1.0, 0.0]] * 3


def test_mci_priority_orders_by_marginal_intensity():
    """The averages say site 1, the margins site 3: jobs go where one more kWh emits least, even less than nothing."""
    seen = observe(TABLE1, nci_kg_per_kwh=[0.3, 0.5, 0.9], mci_kg_per_kwh=[0.3, 0.6, -0.1], arrivals=[1, 0, 5, 5],
                   arrivals_work_to=[1e6] * 4)
    assert policy_of("mci_priority", TABLE1).place(seen) == [[0.0, 0.0, 1.0]] * 4
    assert policy_of("nci_priority", TABLE1).place(seen) == [[1.0, 0.0, 0.0]] * 4
    policy, unknown = policy_of("mci_priority", TABLE1), dataclasses.replace(seen, mci_kg_per_kwh=None)
    assert policy.place(seen) == policy.place(unknown)  # an interval in which the grid can carry no more has none
    with pytest.raises(ModelError, match="hears none: --set grid.mci=true"):
        policy_of("mci_priority", TABLE1).place(dataclasses.replace(seen, mci_kg_per_kwh=None))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.rows("Z02")
def test_a_sites_operation_does_not_depend_on_another_sites_state(name):
    """Given what it was sent, a rule operates a site by what is there, whatever stands at the others."""
    quiet = observe(TABLE1, time_s=HOUR, queued_jobs=[[2, 3, 40, 50]] * 3, pending_work_to=[[1e9, 5e8, 2e7, 1e7]] * 3)
    busy = dataclasses.replace(
        quiet, power_kw=[100.0, 300.0, 400.0], nci_kg_per_kwh=[0.5, 0.1, 0.9], mci_kg_per_kwh=[0.5, 0.1, 0.9],
        queued_jobs=[[2, 3, 40, 50], [9, 9, 900, 900], [0] * 4], free_gpu_ratio=[1.0, 0.0, 0.3],
        pending_work_to=[[1e9, 5e8, 2e7, 1e7], [9e9, 5e9, 2e8, 1e8], [0.0] * 4])
    jobs, work = [[1, 0, 5, 30]] * 3, [[6.91e8, 0.0, 3e6, 9e6]] * 3
    first, second = (policy_of(name, TABLE1).operate(seen, jobs, work) for seen in (quiet, busy))
    for row in ("deferral_share", "gpu_share", "supply_temp_degc"):
        assert getattr(first, row)[0] == getattr(second, row)[0], row
