"""The controller as a member: whole jobs, release times, commands, and the closed loop with real data centres."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.agents.fleet.decision import Operation
from cosim.errors import ModelError, ScenarioError
from cosim.scenario import override
from cosim.scenarios.llm_day import SCENARIO as LLM_DAY
from cosim.simulation import simulate
from cosim.simulators.aidc.adapter import DataCenters
from cosim.simulators.controller.adapter import Controller
from cosim.simulators.tariff import TimeOfUse
from cosim.simulators.workload.adapter import Arrivals

CLASSES = {
    "llm": {"kind": "train", "work_to": 6.91e8, "deadline_s": "12h", "to_per_gpu_min": 6e4, "kw_per_to_s": 7e-4,
            "gpus_per_block": 16, "max_blocks": 6},
    "vae": {"kind": "train", "work_to": 2.88e8, "deadline_s": "12h", "to_per_gpu_min": 6e4, "kw_per_to_s": 7e-4,
            "gpus_per_block": 8, "max_blocks": 5},
    "deep_research": {"kind": "inf", "work_to": 3.01e7, "deadline_s": "30min", "to_per_gpu_min": 2.5e5,
                      "kw_per_to_s": 1.68e-4},
    "search": {"kind": "inf", "work_to": 1.5e7, "deadline_s": "15min", "to_per_gpu_min": 2.5e5, "kw_per_to_s": 1.68e-4},
}
ARRIVALS = {
    "llm": {"mean_per_min": 0.0585, "amplitude_per_min": 0.0117, "period_min": 120, "sigma_per_min": 0.0062},
    "vae": {"mean_per_min": 0.0840, "amplitude_per_min": 0.0210, "period_min": 90, "sigma_per_min": 0.0168},
    "deep_research": {"mean_per_min": 16.5, "amplitude_per_min": 1.65, "period_min": 60, "phase": 10.0,
                      "sigma_per_min": 0.825},
    "search": {"mean_per_min": 110.0, "amplitude_per_min": 8.25, "period_min": 30, "phase": 5.0, "sigma_per_min": 2.75},
}
SITES = {"aidc1": {"node": 8}, "aidc2": {"node": 28}, "aidc3": {"node": 32}}
SPEED_TO_PER_S = {"llm": 6 * 16 * 6e4 / 60, "vae": 5 * 8 * 6e4 / 60}
DEADLINE_S = {"llm": 43200.0, "vae": 43200.0, "deep_research": 1800.0, "search": 900.0}
STATE = ("p_kw", "queued_jobs", "deferred_jobs", "running_jobs", "pending_work_to", "deferred_work_to", "late_jobs",
         "urgent_jobs", "slack_min", "free_gpu_ratio")
NOT_LINKED = dict.fromkeys(("event_start_min", "event_end_min", "event_cap_kw", "nci_forecast_kg_per_kwh",
                            "mci_forecast_kg_per_kwh"), math.nan)
NO_FORECAST = dict.fromkeys(("price_forecast_usd_per_kwh", "p_load_forecast_kw", "renewable_forecast_kw"), math.nan)
LEADS_S = [3600.0 * h for h in (0, 2, 4, 6, 8, 10)]
NAMES = list(CLASSES)


def started(sites=SITES, classes=CLASSES, agents=None, **params):
    simulator = Controller()
    simulator.init("controller", 60.0, step_s=60.0, job_classes=classes, sites=sites, **params)
    simulator.create(1, "Manager", ["manager"])
    simulator.create(len(agents or sites), "Agent", agents or list(sites))
    simulator.setup_done()
    return simulator


def idle(nci=(0.3, 0.5, 0.8), **manager):
    """Inputs of a minute in which all sites are empty."""
    zeros = [0.0] * 4
    scalars = {"p_kw": 120.0, "free_gpu_ratio": 1.0, "slack_min": 1440.0}
    state = {**scalars, **{name: zeros for name in STATE if name not in scalars}}
    return {"manager": {"jobs": {}, "price_usd_per_kwh": 0.1, "forecast_usd_per_kwh": [0.1] * 6, **NO_FORECAST,
                        **manager},
            **{name: {"nci_kg_per_kwh": w, "mci_kg_per_kwh": math.nan, **state, **NOT_LINKED}
               for name, w in zip(SITES, nci, strict=True)}}


def batch(names, first_id=0, end_s=60.0):
    n = len(names)
    arrival_s = [end_s - 60.0 + 60.0 * k / n for k in range(n)]
    return {"id": list(range(first_id, first_id + n)), "job_class": list(names), "arrival_s": arrival_s,
            "work_to": [CLASSES[c]["work_to"] for c in names],
            "deadline_s": [t + DEADLINE_S[c] for t, c in zip(arrival_s, names, strict=True)]}


def tick(simulator, time_s, inputs):
    """One tick through the base's own output check."""
    outputs = simulator.advance(time_s, inputs)
    simulator._check(outputs)
    return outputs


names_lists = st.lists(st.sampled_from(NAMES), max_size=40)


@settings(max_examples=25, deadline=None)
@given(minutes=st.lists(names_lists, min_size=1, max_size=6), policy=st.sampled_from(["random", "static", "tou_shift"]),
       rounding=st.sampled_from(["carry", "stateless"]),
       prices=st.lists(st.sampled_from([0.03, 0.1, 0.3]), min_size=6, max_size=6))
@pytest.mark.rows("A06", "U10", "U22")
def test_every_job_leaves_once_in_its_minute_with_its_columns(minutes, policy, rounding, prices):
    simulator = started(policy=policy, weights="1:2:7", rounding=rounding)
    first = 0
    for k, names in enumerate(minutes, 1):
        now_s = 60.0 * k
        jobs = batch(names, first, now_s) if names else {}
        out = tick(simulator, now_s, idle(jobs=jobs, forecast_usd_per_kwh=prices))
        left = []
        for site in SITES:
            mine = out[site]["jobs"]
            if mine:
                assert list(mine) == [*jobs, "release_s"]
                assert mine["id"] == sorted(mine["id"])  # arrival order
            rows = list(zip(*mine.values(), strict=True))
            left += rows
            assert Counter(mine.get("job_class", ())) == Counter(
                {c: int(n) for c, n in zip(NAMES, out[site]["allocated_jobs"], strict=True) if n})
            trained = [r for r in rows if r[1] in ("llm", "vae")]
            deferrals = [r[-1] - now_s for r in trained]
            for r, deferral in zip(trained, deferrals, strict=True):  # ten hours leave too little: clipped
                latest_s = r[4] - CLASSES[r[1]]["work_to"] / SPEED_TO_PER_S[r[1]] - 60.0
                assert deferral in LEADS_S[:-1] or r[-1] == pytest.approx(latest_s)
            assert all(r[-1] == now_s for r in rows if r[1] not in ("llm", "vae"))
            mean = out[site]["mean_deferral_s"]
            assert mean == pytest.approx(sum(deferrals) / len(deferrals)) if deferrals else math.isnan(mean)
            assert sum(out[site]["gpus"]) <= 400
            assert all(g % CLASSES[c].get("gpus_per_block", 1) == 0
                       for g, c in zip(out[site]["gpus"], NAMES, strict=True))
        assert sorted(r[:-1] for r in left) == list(zip(*jobs.values(), strict=True))
        for m in range(4):
            assert sum(out[site]["site_share"][m] for site in SITES) == pytest.approx(1.0)
        first += len(names)


def test_release_times_under_tou_shift():
    # noon: 12, 14, 16, 18, 20, 22 h; the off-peak window is reached after 8 h
    forecast = [0.3, 0.3, 0.1, 0.1, 0.03, 0.03]
    out = tick(started(policy="tou_shift"), 43200.0,
               idle(jobs=batch(["llm", "search", "vae"], 0, 43200.0), forecast_usd_per_kwh=forecast))
    released = {c: t for site in SITES for c, t in zip(out[site]["jobs"].get("job_class", ()),
                                                       out[site]["jobs"].get("release_s", ()), strict=True)}
    assert released == {"llm": 43200.0 + 8 * 3600.0, "vae": 43200.0 + 8 * 3600.0, "search": 43200.0}
    sites = [s for s in SITES if {"llm", "vae"} & set(out[s]["jobs"].get("job_class", ()))]
    assert all(out[s]["mean_deferral_s"] == 8 * 3600.0 for s in sites)


def placed(simulator, minutes, names, **inputs):
    """Jobs per site after `minutes` ticks with the same arrivals."""
    total = dict.fromkeys(SITES, 0)
    for k in range(1, minutes + 1):
        out = tick(simulator, 60.0 * k, idle(jobs=batch(names, 0, 60.0 * k), **inputs))
        for site in SITES:
            total[site] += int(sum(out[site]["allocated_jobs"]))
    return list(total.values())


@pytest.mark.rows("I13")
def test_rounding_carries_or_degenerates():
    """I13: single training jobs follow 1:2:7 only if the remainder is carried."""
    assert placed(started(policy="static", weights="1:2:7"), 100, ["llm"]) == [10, 20, 70]
    assert placed(started(policy="static", weights="1:2:7", rounding="stateless"), 100, ["llm"]) == [0, 0, 100]
    assert placed(started(), 99, ["llm"]) == [33, 33, 33]
    assert placed(started(rounding="stateless"), 99, ["llm"]) == [99, 0, 0]


def test_permuted_intensities_send_the_jobs_elsewhere():
    for nci, expected in (((0.3, 0.5, 0.8), [6, 0, 0]), ((0.8, 0.5, 0.3), [0, 0, 6]), ((0.5, 0.3, 0.8), [0, 6, 0])):
        assert placed(started(policy="nci_priority"), 1, ["llm", "search"] * 3, nci=nci) == expected


class Watching:
    """A policy that keeps what it was shown."""

    needs_nci = False

    def __init__(self):
        self.seen = []

    def place(self, observation):
        self.seen.append(observation)
        return [[3.0, -1.0, 1.0]] * 4  # no shares yet: 3/4, 0, 1/4

    def operate(self, observation, allocated_jobs, allocated_work_to):
        self.seen.append((allocated_jobs, allocated_work_to))
        return Operation([[[0, 1, 1, 0, 0, 0]] * 2] * 3, [[2.0, 0.0, 0.0, 2.0]] * 3, [17.0, 20.0, 99.0])


def test_deferred_jobs_are_seen_until_they_are_released():
    """Half of the jobs 2 h, half 4 h later, on one site: after 1 h all wait and are due within 2 and 4 h; after 3 h
    those of 4 h, within 2 h; after 4 h none. A world that goes on from there at 3 h knows the same."""
    share = {"place": [[1.0, 0.0, 0.0]] * 4}

    class Halves(Watching):
        def place(self, observation):
            self.seen.append(observation)
            return share["place"]

    simulator, policy = started(), Halves()
    simulator.policy = policy
    tick(simulator, 0.0, idle(jobs=batch(["llm"] * 4 + ["vae"] * 2)))
    nothing = [[0] * 6] * 2
    for hours, by_lead, by_time in (
            (1, [[0, 2, 2, 0, 0, 0], [0, 1, 1, 0, 0, 0]], [[0, 2, 2, 0, 0, 0], [0, 1, 1, 0, 0, 0]]),
            (3, [[0, 0, 2, 0, 0, 0], [0, 0, 1, 0, 0, 0]], [[0, 2, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]),
            (4, nothing, nothing)):
        tick(simulator, 3600.0 * hours, idle())
        seen, _ = policy.seen[-2:]
        assert seen.deferred_by_lead == [by_lead, nothing, nothing]
        assert seen.deferred_by_time == [by_time, nothing, nothing]
        if hours == 3:  # the next tick would be a minute later: that is time 0 of the world that goes on
            later = started()
            later.resume(simulator.carry())
            assert later.observe(0.0, idle()).observation.deferred_by_time == seen.deferred_by_time
            assert later.observe(3540.0, idle()).observation.deferred_by_time[0] == nothing


@pytest.mark.rows("B08", "I22", "Z02")
def test_power_mode_is_blind_to_carbon():
    decisions = []
    for nci in ((0.3, 0.5, 0.8), (0.8, 0.3, 0.5)):
        simulator = started(mode="power", policy="static", weights=[3, 2, 1])
        decisions.append([tick(simulator, 60.0 * k, idle(nci, jobs=batch(NAMES * 5, 0, 60.0 * k))) for k in (1, 2, 3)])
    assert str(decisions[0]) == str(decisions[1])  # as text: NaN equals NaN
    watching = started(mode="power")
    watching.policy = Watching()
    tick(watching, 60.0, idle())
    assert watching.policy.seen[0].nci_kg_per_kwh is None
    with pytest.raises(ScenarioError, match="power mode hides"):
        started(mode="power", policy="nci_priority")


@pytest.mark.rows("A07", "U22")
def test_any_policy_is_made_valid():
    """A07: raw outputs become shares, blocks and set points in their boxes before anything acts on them."""
    simulator = started(rounding="stateless")
    simulator.policy = Watching()
    out = tick(simulator, 60.0, idle(jobs=batch(["llm"] * 4 + ["search"] * 4)))
    assert [out[s]["allocated_jobs"] for s in SITES] == [[3, 0, 0, 3], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert out["aidc1"]["site_share"] == [0.75] * 4
    assert [out[s]["supply_temp_degc"] for s in SITES] == [18.0, 20.0, 23.0]
    assert out["aidc1"]["gpus"] == [192.0, 0.0, 0.0, 200.0]  # half of 400 each; 200 are 12 blocks of 16
    # three llm jobs on 2 h and 4 h: 1.5 each, the tie goes to the earlier; the earlier arrivals leave first
    mine = out["aidc1"]["jobs"]
    assert [t - 60.0 for t, c in zip(mine["release_s"], mine["job_class"], strict=True) if c == "llm"] == [
        7200.0, 7200.0, 14400.0]
    assert out["aidc1"]["mean_deferral_s"] == 9600.0
    observation, (jobs, work_to) = simulator.policy.seen
    assert list(observation.arrivals) == [4, 0, 0, 4]
    assert list(observation.arrivals_work_to) == [4 * 6.91e8, 0, 0, 4 * 1.5e7]
    assert jobs == [[3, 0, 0, 3], [0, 0, 0, 0], [1, 0, 0, 1]]  # what the site was really given
    assert work_to[0] == [3 * 6.91e8, 0, 0, 3 * 1.5e7]


class Resting:
    """Gives training nothing and search half of the GPUs."""

    needs_nci = False

    def place(self, observation):
        return [[1 / 3] * 3] * 4

    def operate(self, observation, allocated_jobs, allocated_work_to):
        return Operation([[[1.0] + [0.0] * 5] * 2] * 3, [[0.0, 0.0, 0.0, 0.5]] * 3, [23.0] * 3)


@pytest.mark.parametrize(("guard", "slack_min", "gpus"), [
    (60.0, 60.0, [0, 0, 0, 200]),       # an hour to spare: the policy decides
    (60.0, 59.0, [272, 128, 0, 0]),     # work 691:288 is 282:118 of 400, in blocks of 16 and 8
    (60.0, -20.0, [272, 128, 0, 0]),
    (None, -20.0, [0, 0, 0, 200]),
])
def test_while_deadlines_are_close_training_gets_what_inference_leaves(guard, slack_min, gpus):
    simulator = started(guard_slack_min=guard)
    simulator.policy = Resting()
    inputs = idle()
    inputs["aidc2"] |= {"slack_min": slack_min, "queued_jobs": [4.0, 4.0, 0.0, 0.0],
                        "pending_work_to": [4 * 6.91e8, 4 * 2.88e8, 0.0, 0.0]}
    out = tick(simulator, 60.0, inputs)
    assert out["aidc1"]["gpus"] == [0, 0, 0, 200]
    assert out["aidc2"]["gpus"] == gpus
    assert bool([note for note in simulator.notes() if "guard_slack_min = 60" in note]) == (gpus[0] > 0)


@pytest.mark.parametrize(("sites", "gpus"), [
    (SITES, [0, 0, 100, 300]),                                  # 200 are spare: as many for either class
    ({"aidc1": {**SITES["aidc1"], "racks": 1, "gpus_per_rack": 5}}, [0, 0, 2, 3])])  # of 5 search has 2
def test_spare_gpus_are_free_for_inference(sites, gpus):
    simulator = started(sites=sites, spare_gpus="inference")
    simulator.policy = Resting()
    simulator.policy.place = lambda observation: [[1 / len(sites)] * len(sites)] * 4
    simulator.policy.operate = lambda *_: Operation(
        [[[1.0] + [0.0] * 5] * 2] * len(sites), [[0.0, 0.0, 0.0, 0.5]] * len(sites), [23.0] * len(sites))
    out = tick(simulator, 60.0, {name: values for name, values in idle().items() if name in ("manager", *sites)})
    assert out["aidc1"]["gpus"] == gpus


def test_replicas_of_language_models_take_no_spare_gpus(tmp_path):
    scenario = override(LLM_DAY, {"controller.spare_gpus": "inference"})
    with pytest.raises(ScenarioError, match="spare_gpus = inference: all inference is of language models"):
        simulate(scenario, until="1min", out=tmp_path / "o.h5", progress=False)


@pytest.mark.rows("M13", "U14")
def test_ineligible_sites_get_no_job():
    classes = {**CLASSES, "llm": {**CLASSES["llm"], "eligible_sites": ["aidc2", "aidc3"]}}
    for policy in ("uniform", "random", "nci_priority"):
        simulator = started(classes=classes, policy=policy)
        sent = [0.0, 0.0, 0.0]
        for k in range(1, 41):
            out = tick(simulator, 60.0 * k, idle(jobs=batch(["llm", "vae"] * 2, 0, 60.0 * k)))
            sent = [n + out[s]["allocated_jobs"][0] for n, s in zip(sent, SITES, strict=True)]
        assert sent[0] == 0
        assert sum(sent) == 80


def test_works_without_tariff_and_carbon():
    """Ports nobody is linked to take their defaults, also the one with an axis."""
    simulator = started(policy="tou_shift")
    empty = {name: {p: {"src": v} for p, v in values.items() if p in STATE} for name, values in idle().items()}
    simulator.step(1, {**empty, "manager": {"jobs": {"src": batch(["llm"])}}}, 2)
    assert simulator.get_data({"aidc1": ["allocated_jobs", "mean_deferral_s"]})["aidc1"] == {
        "allocated_jobs": [1.0, 0.0, 0.0, 0.0], "mean_deferral_s": 0.0}


def test_wrong_shapes_and_names_are_refused():
    with pytest.raises(ModelError, match=r"manager.forecast_usd_per_kwh has 2 values, 6 are expected"):
        tick(started(), 60.0, idle(forecast_usd_per_kwh=[0.1, 0.1]))
    inputs = idle()
    inputs["aidc2"]["queued_jobs"] = [0.0] * 3
    with pytest.raises(ModelError, match=r"aidc2.queued_jobs has 3 values, 4 are expected"):
        tick(started(), 60.0, inputs)
    jobs = {**batch(["llm"]), "job_class": ["lm"]}
    with pytest.raises(ModelError, match="unknown job class 'lm'; did you mean 'llm'"):
        tick(started(), 60.0, idle(jobs=jobs))


@pytest.mark.parametrize(("params", "message"), [
    ({"policy": "uniforn"}, "unknown policy 'uniforn'; did you mean 'uniform'"),
    ({"policy": "static"}, "needs one weight >= 0 per site"),
    ({"policy": "static", "weights": "1:2"}, "needs one weight >= 0 per site"),
    ({"weights": "1:two:7"}, "controller.weights.1 = 'two'"),
    ({"mode": "both"}, "controller.mode = 'both'"),
    ({"deferrals_s": [0, "13h"]}, "past the deadline of llm"),
    ({"deferrals_s": [7200, 0]}, "must ascend"),
    ({"deferrals_s": [0, 90]}, "90 s, which is no whole number of steps"),
    ({"supply_temp_degc": 30.0}, "supply_temp_degc = 30 must lie in its box, 18 to 23"),
    ({"agents": ["aidc1", "aidc2", "adic3"]}, "unknown site 'adic3'; did you mean 'aidc3'"),
    ({"agents": ["aidc1", "aidc2"]}, "no agent for site aidc3"),
    ({"classes": {"llm": {**CLASSES["llm"], "eligible_sites": ["aidc9"]}}}, "unknown site 'aidc9'"),
    ({"classes": {"llm": {**CLASSES["llm"], "eligible_sites": []}}}, "eligible_sites is empty"),
])
def test_errors_name_what_is_wrong(params, message):
    with pytest.raises(ScenarioError, match=message):
        started(**params)


def close_the_loop(policy, minutes, nci=(0.33, 0.55, 0.84)):
    """Workload, tariff, controller and data centres at 77 % load, states one minute old; returns totals."""
    workload, tariff, controller, aidc = members = Arrivals(), TimeOfUse(), started(policy=policy), DataCenters()
    workload.init("workload", 60.0, job_classes=CLASSES, arrivals=ARRIVALS, train_rate_scale=0.7, inf_size_scale=0.02)
    tariff.init("tariff", 60.0)
    aidc.init("aidc", 60.0, job_classes=CLASSES, sites=SITES)
    workload.create(1, "Arrivals", ["w"])
    tariff.create(1, "Tariff", ["t"])
    aidc.create(3, "Site", list(SITES))
    for member in members:
        member.setup_done()
    state = aidc.initial()
    total = {name: [0.0] * 4 for name in ("arrived", "allocated", "finished", "dropped")}
    busy = [0.0] * 3

    def add(name, values):
        total[name] = [a + b for a, b in zip(total[name], values, strict=True)]

    for k in range(minutes):
        now_s = 60.0 * k
        new, price = workload.advance(now_s, {})["w"], tariff.advance(now_s, {})["t"]
        orders = tick(controller, now_s, {
            "manager": {"jobs": new["jobs"], **price, **NO_FORECAST},
            **{s: {"nci_kg_per_kwh": w, "mci_kg_per_kwh": math.nan, **{p: state[s][p] for p in STATE}, **NOT_LINKED}
               for s, w in zip(SITES, nci, strict=True)}})
        state = aidc.advance(now_s, {s: {"wet_bulb_degc": math.nan, "dry_bulb_degc": math.nan, **{
            p: orders[s][p] for p in ("jobs", "gpus", "supply_temp_degc")}} for s in SITES})
        add("arrived", new["arrived_jobs"])
        for i, s in enumerate(SITES):
            add("allocated", orders[s]["allocated_jobs"])
            add("finished", state[s]["finished_jobs"])
            add("dropped", state[s]["dropped_jobs"])
            busy[i] += sum(state[s]["busy_gpus"]) / 400 / minutes
    inside = [sum(state[s][p][m] for s in SITES for p in ("queued_jobs", "running_jobs", "deferred_jobs"))
              for m in range(4)]
    assert total["allocated"] == total["arrived"]
    assert [f + d + i for f, d, i in zip(total["finished"], total["dropped"], inside, strict=True)] == total["arrived"]
    return total, busy


@pytest.mark.long(after=1)
@pytest.mark.parametrize("policy", ["uniform", "nci_priority"])
def test_nothing_is_dropped_at_77_percent_load(policy):
    """16 hours: longer than the 12 h deadline of training, so that a backlog would show."""
    total, busy = close_the_loop(policy, 960)
    assert total["dropped"] == [0.0] * 4
    if policy == "uniform":
        assert max(busy) - min(busy) < 0.05
    else:
        assert busy[0] > 0.9
        assert busy[0] > busy[1] > busy[2]
