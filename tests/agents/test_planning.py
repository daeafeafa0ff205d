"""The planner: fluid work and linear programs against brute force, what it knows, what it follows, what it decides."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.agents.fleet.backlog import Backlog
from cosim.agents.fleet.bounding import FluidJobs, least_cost
from cosim.agents.fleet.decision import EnergyModel, FleetFacts, Observation
from cosim.agents.fleet.fluid import lower_hull, possible_gpu_h, required_gpu_h, tangents, thinned
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.linear_program import LinearProgram, before
from cosim.agents.fleet.outlook import Outlook
from cosim.agents.fleet.planner import Mpc
from cosim.agents.fleet.planner_params import PlannerParams
from cosim.agents.fleet.planning import Fleet, InferenceGroup, TrainingGroup, plan
from cosim.errors import ModelError, ScenarioError
from cosim.params import validate

HOUR = 3600.0
# a job of 'fit' is 4 GPU-h and runs on 2 or 4 GPUs; 60 TO/(GPU min)
FACTS = FleetFacts(kinds=("train", "inf"), gpus=(8, 8), to_per_gpu_min=(60.0, 60.0), work_to=(14400.0, 60.0),
                   deadline_s=(6 * HOUR, 600.0), gpus_per_block=(2, 1), max_blocks=(2, 1),
                   eligible=((True, True), (True, True)), deferrals_s=(0.0, HOUR, 2 * HOUR, 4 * HOUR),
                   top_to_per_s=((4.0, 1.0), (4.0, 1.0)), classes=("fit", "chat"), sites=("a", "b"))
LINE = Fleet(np.array([4.0]), np.array([1.0]), [[(1.0, 0.0)]], np.array([9.0]))
"""A site of 4 GPUs that draws what IT draws: 1 kW idle, 1 kW a GPU."""


# --- the linear program ---------------------------------------------------------------------------------------------


def test_rows_of_an_infinite_bound_and_variables_before_the_first_are_left_out():
    lp = LinearProgram()
    x = lp.variables((3,), [-1.0, -2.0, -3.0], high=5.0)
    lp.at_most([(x, 1.0), (before(x), 1.0)], [4.0, np.inf, 6.0])
    assert before(x, 5).tolist() == [-1, -1, -1]
    found = lp.solve()
    assert found.values[x].tolist() == pytest.approx([4.0, 1.0, 5.0])  # x2 takes all that x1 + x2 <= 6 allows
    assert found.cost == pytest.approx(-21.0)


def test_no_solution_says_so():
    lp = LinearProgram()
    lp.equal([(lp.variables((1,), high=1.0), 1.0)], 2.0)
    with pytest.raises(ModelError, match="no solution"):
        lp.solve()


# --- work as a fluid ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.5, 4), st.floats(0, 5)), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_envelopes_are_the_sums_over_jobs(jobs):
    work, gpus, at = (np.array(x) for x in zip(*jobs, strict=True))
    time = np.linspace(0.0, 12.0, 25)
    can = [sum(min(w, g * max(t - a, 0.0)) for w, g, a in jobs) for t in time]
    must = [sum(max(w - g * max(d - t, 0.0), 0.0) for w, g, d in jobs) for t in time]
    assert possible_gpu_h(work, gpus, at, time) == pytest.approx(can, abs=1e-9)
    assert required_gpu_h(work, gpus, at, time) == pytest.approx(must, abs=1e-9)


def test_no_jobs_need_nothing():
    none = np.array([])
    assert possible_gpu_h(none, none, none, [1.0, 2.0]).tolist() == [0.0, 0.0]


def test_lines_stay_below_a_convex_power_and_near_it():
    it = np.linspace(100.0, 400.0, 65)
    drawn = it + 1e-6 * it**3
    for lines in (tangents(lambda x: x + 1e-6 * x**3, 100.0, 400.0), thinned(*lower_hull(it, drawn))):
        top = np.max([s * it + c for s, c in lines], axis=0)
        assert (top <= drawn + 1e-9).all()
        assert (top >= drawn * 0.9979).all()
        assert len(lines) < 12
    assert lower_hull(np.array([0.0, 1.0, 2.0]), np.array([0.0, 5.0, 2.0]))[0].tolist() == [0.0, 2.0]
    assert tangents(lambda x: x, 5.0, 5.0) == [(0.0, 5.0)]


# --- plans and bounds against brute force ---------------------------------------------------------------------------


def cheapest(worth, work, come, due, gpus):
    """Least worth of energy of whole GPU-hours in slots of an hour, by trying all; come, due: first slot, and the slot
    by whose end each job is done."""
    slots, best = len(worth), np.inf
    ways = [[w for w in itertools.product(range(gpus + 1), repeat=d - a) if sum(w) == size]
            for size, a, d in zip(work, come, due, strict=True)]
    for chosen in itertools.product(*ways):
        use = np.zeros(slots)
        for a, hours in zip(come, chosen, strict=True):
            use[a:a + len(hours)] += hours
        if (use <= gpus).all():
            best = min(best, float(worth @ (1.0 + use)))
    return best


CASES = st.tuples(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5]), min_size=4, max_size=4),
                  st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=2))


@given(CASES)
@settings(max_examples=20, deadline=None)
def test_the_bound_is_the_cheapest_schedule_where_jobs_are_fluid_anyway(case):
    """One site, slots of an hour, jobs of whole GPU-hours on any number of GPUs: the polytope has whole corners."""
    worth, jobs = np.array(case[0]), case[1]
    work, come = np.array([j[0] for j in jobs]), [j[1] for j in jobs]
    due = [min(a + n, 4) for _, a, n in jobs]
    exact = cheapest(worth, work, come, due, 4)
    ends, fast = np.arange(1.0, 5.0), np.full(len(jobs), 1e6)
    classes = [FluidJobs(1.0, [True], possible_gpu_h(work, fast, come, ends), required_gpu_h(work, fast, due, ends))]
    if np.isinf(exact):
        with pytest.raises(ModelError):
            least_cost(np.ones(4), worth[None, :], LINE, classes)
    else:
        assert least_cost(np.ones(4), worth[None, :], LINE, classes) == pytest.approx(exact, rel=1e-6)


def test_a_job_is_dropped_where_that_costs_less():
    """4 GPU-h at 0.5 cost 2.0 beyond idle; a drop costs 1.2."""
    worth, needed = np.full((1, 2), 0.5), np.array([0.0, 4.0])
    jobs = FluidJobs(1.0, [True], np.array([4.0, 4.0]), needed, drop_cost=1.2 / 4.0)
    assert least_cost(np.ones(2), worth, LINE, [jobs]) == pytest.approx(0.5 * 2 + 1.2)
    earned = dataclasses.replace(jobs, done_worth=0.3)  # 1.2 are earned by doing it: 2.0 - 1.2 < 1.2
    assert least_cost(np.ones(2), worth, LINE, [earned]) == pytest.approx(0.5 * 2 + 0.8)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_no_schedule_of_whole_jobs_beats_the_bound(seed):
    """Random jobs at two sites with convex power, worth of both signs; a random schedule keeps GPUs, speeds and
    deadlines, or drops."""
    rng = np.random.default_rng(seed)
    slots, n = 6, 2
    worth = rng.uniform(-0.2, 1.0, (n, slots))
    gpus, idle = np.array([6.0, 4.0]), np.array([1.0, 2.0])
    most = 1.05 * (idle + gpus) + 0.02 * (idle + gpus) ** 2

    def drawn(it):
        return it + 0.02 * it**2
    cuts = [[(1.0 + 0.04 * x, -0.02 * x * x) for x in np.linspace(1.0, 8.0, 8)]] * n  # tangents
    size, speed = rng.integers(1, 6, 8).astype(float), rng.integers(1, 4, 8).astype(float)
    come = rng.integers(0, slots - 1, 8)
    due = np.minimum(come + rng.integers(1, 4, 8), slots)
    use, drops = np.zeros((n, slots)), 0
    for w, g, a, d in zip(size, speed, come, due, strict=True):
        site, trial, left = rng.integers(n), use.copy(), w
        for t in range(a, d):
            step = min(left, g, gpus[site] - trial[site, t], rng.uniform(0.5, 1.0) * g if t < d - 1 else g)
            trial[site, t] += step
            left -= step
        if left < 1e-12:
            use = trial
        else:
            drops += 1
    cost = float((worth * drawn(idle[:, None] + use)).sum()) + 0.7 * drops
    ends = np.arange(1.0, slots + 1)
    jobs = FluidJobs(1.0, [True, True], possible_gpu_h(size, speed, come, ends), required_gpu_h(size, speed, due, ends),
                drop_cost=0.7 / size.max())
    assert least_cost(np.ones(slots), worth, Fleet(gpus, idle, cuts, most), [jobs]) <= cost + 1e-9


@pytest.mark.parametrize("worth", [(0.5, 0.1, 0.3, 0.2), (0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)])
def test_a_plan_is_the_cheapest_schedule(worth):
    """Two jobs at the site, of 5 GPU-h due after three slots and of 3 after four, on 4 GPUs each."""
    ends, row = np.arange(1.0, 5.0), np.array([worth])
    work, fast, due = np.array([5.0, 3.0]), np.full(2, 4.0), np.array([3.0, 4.0])
    group = TrainingGroup(1.0, [True], possible_gpu_h(work, fast, np.zeros(2), ends)[None],
                     required_gpu_h(work, fast, due, ends)[None], np.full(4, 1e-9), 0, 4, 100.0)
    found = plan(np.ones(4), row, LINE, [group], [], np.full((1, 4), np.inf), 0.0)
    use = found.training_gpus[0, 0]
    assert use.sum() == pytest.approx(8.0, abs=1e-6)
    assert float(row[0] @ (1.0 + use)) == pytest.approx(cheapest(row[0], [5, 3], [0, 0], [3, 4], 4), abs=1e-6)


def test_a_plan_keeps_caps_and_sends_work_where_it_is_cheap():
    """Site b costs half: inference goes there, and what is to come; its cap leaves 2 GPUs in the first slot."""
    fleet = Fleet(np.array([4.0, 4.0]), np.array([1.0, 1.0]), [[(1.0, 0.0)]] * 2, np.array([9.0, 9.0]))
    worth = np.array([[0.4] * 3, [0.2] * 3])
    nothing = np.zeros((2, 3))
    group = TrainingGroup(1.0, [True, True], nothing, nothing, np.full(3, 1.0), 0, 1, 100.0)
    caps = np.array([[np.inf] * 3, [3.0, np.inf, np.inf]])
    found = plan(np.ones(3), worth, fleet, [group], [InferenceGroup(1.0, [True, True], np.full(3, 2.0))], caps, 0.0)
    assert found.inference_gpus[0].sum(axis=0) == pytest.approx([2.0] * 3)
    assert found.power_kw[1, 0] <= 3.0 + 1e-6
    assert found.training_gpus[0, 1, 1:].sum() == pytest.approx(2.0, abs=1e-6)
    assert found.training_share[0].tolist() == pytest.approx([0.0, 1.0])
    off = plan(np.ones(3), worth, fleet, [], [InferenceGroup(1.0, [True, False], np.full(3, 2.0))], caps, 0.0)
    assert off.inference_gpus[0, 1].tolist() == [0.0] * 3
    assert off.training_share.shape == (0, 2)


# --- what is known --------------------------------------------------------------------------------------------------


def seen(time_s=0.0, **fields):
    zeros = [[0.0, 0.0]] * 2
    return dataclasses.replace(Observation(
        time_s=time_s, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1] * 4, nci_kg_per_kwh=[0.3, 0.6],
        power_kw=[1.0, 1.0], arrivals=[0, 0], arrivals_work_to=[0.0, 0.0], queued_jobs=zeros, deferred_jobs=zeros,
        running_jobs=zeros, pending_work_to=zeros, deferred_work_to=zeros, free_gpu_ratio=[1.0, 1.0], site_carry=zeros,
        deferral_carry=[], late_jobs=zeros, urgent_jobs=zeros, slack_min=[1440.0] * 2,
        event_start_min=[np.nan] * 2, event_end_min=[np.nan] * 2, event_cap_kw=[np.nan] * 2), **fields)


def test_prices_seen_ahead_are_remembered_and_yesterday_stands_for_the_rest():
    outlook = Outlook(HOUR, FACTS.deferrals_s)
    outlook.see(seen(0.0, forecast_usd_per_kwh=[0.1, 0.2, 0.3, 0.5]))
    assert outlook.price_usd_per_kwh(6).tolist() == [0.1, 0.2, 0.3, 0.3, 0.5, 0.5]
    outlook.see(seen(HOUR, price_usd_per_kwh=0.2, forecast_usd_per_kwh=[0.2, 0.3, 0.4, 0.6], nci_kg_per_kwh=[0.1, 0.7]))
    assert outlook.price_usd_per_kwh(5).tolist() == [0.2, 0.3, 0.4, 0.5, 0.6]
    assert outlook.price_usd_per_kwh(24)[23] == 0.1  # of midnight, as of the one before
    assert outlook.intensity_kg_per_kwh("nci", 3).tolist() == [[0.1] * 3, [0.7] * 3]
    assert outlook.intensity_kg_per_kwh("mci", 3) is None
    for hour in range(2, 26):
        outlook.see(seen(hour * HOUR, nci_kg_per_kwh=[hour / 100.0, 0.0]))
    assert outlook.intensity_kg_per_kwh("nci", 3)[0].tolist() == pytest.approx([0.25, 0.02, 0.03])


def test_linked_forecasts_stand_before_yesterday_as_far_as_they_reach():
    """Entries of half an hour, from 1:30 on, for slots of an hour: that of 2 h is the second, of 3 h the fourth."""
    outlook = Outlook(HOUR, FACTS.deferrals_s, 1800.0)
    outlook.see(seen(1.6 * HOUR, price_usd_per_kwh=0.9, price_forecast_usd_per_kwh=[0.9, 0.2, 0.3, 0.4],
                     nci_forecast_kg_per_kwh=[[0.0, 0.5, 0.6, np.nan], [0.0, 0.7, 0.8, 0.9]]))
    assert outlook.price_usd_per_kwh(4).tolist() == [0.9, 0.2, 0.4, 0.1]
    assert outlook.intensity_kg_per_kwh("nci", 4).tolist() == [[0.3, 0.5, 0.3, 0.3], [0.6, 0.7, 0.9, 0.6]]


def test_what_was_done_goes_to_the_earliest_deadline_as_fast_as_it_can():
    """Two jobs of 14400 TO, an hour apart; one does 240 TO a minute at most."""
    backlog = Backlog(FACTS)
    backlog.see(seen(0.0))
    backlog.sent([[1, 0], [0, 0]], [[14400.0, 0.0], [0.0, 0.0]])
    backlog.see(seen(HOUR, pending_work_to=[[14400.0, 0.0], [0.0, 0.0]]))
    backlog.sent([[1, 0], [0, 0]], [[14400.0, 0.0], [0.0, 0.0]])
    backlog.see(seen(HOUR + 60.0, pending_work_to=[[28800.0 - 300.0, 0.0], [0.0, 0.0]]))
    claims = backlog.claims(0, [0])
    assert claims.work_gpu_h.tolist() == pytest.approx([4.0 - 240.0 / 3600.0, 4.0 - 60.0 / 3600.0])
    assert claims.gpus.tolist() == [4.0, 4.0]
    assert claims.due_h.tolist() == pytest.approx([5.0 - 1 / 60, 6.0 - 1 / 60])
    assert not backlog.claims(1, [0]).work_gpu_h.size
    backlog.see(seen(6 * HOUR, pending_work_to=[[100.0, 0.0], [0.0, 0.0]]))  # the first was dropped, or is done
    assert backlog.claims(0, [0]).work_gpu_h.tolist() == pytest.approx([100.0 / 3600.0])


def test_work_that_nobody_sent_is_due_at_once():
    backlog = Backlog(FACTS)
    backlog.see(seen(0.0, pending_work_to=[[7200.0, 0.0], [0.0, 0.0]]))
    claims = backlog.claims(0, [0])
    assert (claims.work_gpu_h.tolist(), claims.due_h.tolist()) == ([2.0], [0.0])


# --- what it decides ------------------------------------------------------------------------------------------------


def mpc(facts=FACTS, **options):
    energy = EnergyModel([1.0, 1.0], [2.0, 2.0], lambda site, it_kw, supply_temp_degc: it_kw + 0.0 * supply_temp_degc)
    given = PlannerParams(horizon_s=8 * HOUR, slot_s=HOUR)
    return Mpc(facts, PolicyOptions(energy=energy, planner=given, **options), np.random.default_rng(0))


ONE = [[1, 0], [0, 0]], [[14400.0, 0.0], [0.0, 0.0]]


def granted(policy, **fields):
    observed = seen(**fields)
    policy.place(observed)
    return policy.operate(observed, *ONE if not observed.pending_work_to[0][0] else ([[0, 0]] * 2, [[0.0] * 2] * 2)
                          ).gpu_share[0][0] * 8


def test_training_waits_for_a_cheap_hour_and_runs_in_it():
    policy = mpc()
    granted(policy, forecast_usd_per_kwh=[0.3, 0.3, 0.03, 0.03], price_usd_per_kwh=0.3)
    pending = [[14400.0, 0.0], [0.0, 0.0]]
    assert granted(policy, time_s=HOUR, forecast_usd_per_kwh=[0.3, 0.03, 0.03, 0.03], price_usd_per_kwh=0.3,
                   pending_work_to=pending) == 0.0
    assert granted(policy, time_s=2 * HOUR, forecast_usd_per_kwh=[0.03] * 4, price_usd_per_kwh=0.03,
                   pending_work_to=pending) == 4.0
    assert policy.plans == 3


@pytest.mark.parametrize(("guard_min", "runs"), [((), False), ((120.0, 120.0), True)])
def test_a_deadline_is_kept_with_the_guards_slack_in_hand(guard_min, runs):
    """Due after 6 h and an hour long, it has to begin after 5 h, or 3 h with two hours in hand, however dear it is."""
    policy = mpc(guard_min=guard_min)
    granted(policy, forecast_usd_per_kwh=[0.3, 0.3, 0.3, 0.1], price_usd_per_kwh=0.3)
    pending = [[14400.0, 0.0], [0.0, 0.0]]
    dear = {"price_usd_per_kwh": 0.3, "pending_work_to": pending}
    for hour, ahead in ((1, [0.3] * 4), (2, [0.3, 0.3, 0.1, 0.3])):
        granted(policy, time_s=hour * HOUR, forecast_usd_per_kwh=ahead, **dear)
    assert (granted(policy, time_s=3 * HOUR, forecast_usd_per_kwh=[0.3, 0.1, 0.3, 0.3], **dear) > 0.0) is runs


def test_an_announced_cap_makes_a_new_plan():
    policy = mpc()
    granted(policy)
    granted(policy, time_s=60.0)
    assert policy.plans == 1
    granted(policy, time_s=120.0, event_start_min=[10.0, np.nan], event_end_min=[130.0, np.nan],
            event_cap_kw=[3.0, np.nan])
    assert policy.plans == 2
    assert (policy.plan.power_kw[0, :3] <= 3.0 + 1e-6).all()


def test_it_needs_a_model_of_the_plant_and_marginal_intensities_only_where_they_count():
    with pytest.raises(ScenarioError, match="policy mpc needs to know what a site draws"):
        Mpc(FACTS, PolicyOptions(), np.random.default_rng(0))
    assert mpc().place(seen(nci_kg_per_kwh=None))[0] == pytest.approx([0.5, 0.5], abs=0.5)


@pytest.mark.parametrize(("given", "says"), [
    ({"slot_s": 700.0}, "does not divide a day"), ({"horizon_s": 600.0}, "makes 0 slots"),
    ({"horizon_s": 172800.0, "slot_s": 60.0}, "makes 2880 slots; it takes 1 to 288")])
def test_slots_that_cannot_be_are_refused_in_one_line(given, says):
    with pytest.raises(ScenarioError, match=says):
        validate(PlannerParams, given, "controller.planner")
