"""A checkpoint as a policy: it decides what its team decides, and one that does not fit says in what it differs."""

from dataclasses import replace

import numpy as np
import pytest

from cosim.agents.fleet.decision import FleetFacts, Observation
from cosim.agents.fleet.learned import LearnedPolicy
from cosim.agents.fleet.observation_row import ObservationScope
from cosim.agents.fleet.team_arrays import TeamArrays
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.history import with_history
from cosim.agents.learn.team import Team
from cosim.errors import ModelError, ScenarioError

FACTS = FleetFacts(
    kinds=("train", "inf"), gpus=(80, 40), to_per_gpu_min=(6e4, 2.5e5), work_to=(1e6, 3e5), deadline_s=(7200.0, 600.0),
    gpus_per_block=(8, 1), max_blocks=(2, 1), eligible=((True, True), (True, False)), deferrals_s=(0.0, 3600.0),
    classes=("llm", "search"), sites=("north", "south"))
OFFERED = {"llm": (0.1, 1e6), "search": (20.0, 3e5)}


def observation(nci: bool = True) -> Observation:
    return Observation(
        time_s=36_000.0, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1, 0.3],
        nci_kg_per_kwh=[0.3, 0.8] if nci else None, power_kw=[70.0, 40.0], arrivals=[2, 21],
        arrivals_work_to=[2e6, 6.3e6], queued_jobs=[[1, 0], [0, 0]], deferred_jobs=[[3, 0], [0, 0]],
        running_jobs=[[2, 9], [1, 0]], pending_work_to=[[2e6, 1e6], [5e5, 0.0]],
        deferred_work_to=[[3e6, 0.0], [0.0, 0.0]],
        free_gpu_ratio=[0.4, 0.6], site_carry=[[0.2, -0.2], [0.0, 0.0]],
        deferral_carry=[[[0.1, -0.1]], [[0.0, 0.0]]], deferred_by_lead=[[[0, 3]], [[0, 0]]],
        deferred_by_time=[[[1, 2]], [[0, 0]]], late_jobs=[[1, 0], [0, 0]], urgent_jobs=[[0, 0], [2, 0]],
        slack_min=[1440.0, 30.0])


def sight(nci: bool = True, full: bool = True) -> ObservationScope:
    return ObservationScope(FACTS.classes, FACTS.sites, 100.0, {"llm": 0.1, "search": 20.0}, nci, False, full)


def checkpoint(folder, method: str = "mat", nci: bool = True, full: bool = True, seed: int = 3, **options):
    path, config = folder / "team.safetensors", Learning(method=method, **options)
    spec = with_history(TeamArrays(FACTS, sight(nci, full), OFFERED).spec, config.history_steps)
    Team(spec, config, seed).save(path, resumable=False)
    return path


def policy(path, facts: FleetFacts = FACTS, nci: bool = True, explore: bool = False) -> LearnedPolicy:
    explorer = Team.load(path) if explore else None
    if explorer:
        explorer.rng["sampling"] = np.random.default_rng(5)
    return LearnedPolicy(path, facts, nci, explorer)


@pytest.mark.parametrize("method", METHODS)
def test_it_decides_what_its_team_decides(tmp_path, method):
    """The modes of the saved team on the same scaled arrays, taken in two stages with the jobs in between."""
    path = checkpoint(tmp_path, method)
    seen, jobs, work = observation(), [[2, 21], [0, 0]], [[2e6, 6.3e6], [0.0, 0.0]]
    mine = policy(path)
    share = mine.place(seen)
    operation = mine.operate(seen, jobs, work)

    view = TeamArrays(FACTS, sight(), OFFERED)
    told = view.context(jobs, work)[None]
    step, _ = Team.load(path).act(view.observe(seen)[None], lambda _: told, deterministic=True)
    manager, north, south = step.action[0].tolist()
    assert [x for row in share for x in row] == pytest.approx(manager[:4], abs=1e-5)
    assert share[1] == [1.0, 0.0]  # the south may not search (U14)
    for site, row in enumerate((north, south)):
        assert operation.deferral_share[site][0] == pytest.approx(row[:2], abs=1e-5)
        assert operation.gpu_share[site] == pytest.approx(row[2:4], abs=1e-5)
        assert operation.supply_temp_degc[site] == pytest.approx(row[5], abs=1e-4)
    assert all(18.0 <= t <= 23.0 for t in operation.supply_temp_degc)


def test_a_team_with_a_past_decides_by_what_it_was_shown_before(tmp_path):
    """The modes of the saved team on the last three minutes, newest first; at the start the first stands for all."""
    path = checkpoint(tmp_path, "transformer", history_steps=3)
    mine, explorer, view = policy(path), policy(path, explore=True), TeamArrays(FACTS, sight(), OFFERED)
    jobs, work = [[2, 21], [0, 0]], [[2e6, 6.3e6], [0.0, 0.0]]
    told, team, past = view.context(jobs, work)[None], Team.load(path), []
    for minute in range(5):
        seen = replace(observation(), power_kw=[10.0 * minute, 90.0 - 10.0 * minute])
        share = mine.place(seen)
        operation = mine.operate(seen, jobs, work)
        explorer.place(seen)
        explorer.operate(seen, jobs, work)
        past = [view.observe(seen)] * 3 if not past else [view.observe(seen), *past[:2]]
        rows = np.zeros((1, 3, 3 * past[0].shape[1]), np.float32)
        for i in range(3):
            width = len(view.spec.type_of(i).observation)
            rows[0, i, :3 * width] = np.concatenate([x[i, :width] for x in past])
        step, _ = team.act(rows, lambda _: told, deterministic=True)
        assert [x for row in share for x in row] == pytest.approx(step.action[0, 0, :4].tolist(), abs=1e-5)
        assert operation.gpu_share[1] == pytest.approx(step.action[0, 2, 2:4].tolist(), abs=1e-5)


@pytest.mark.rows("L10", "S13-14")
def test_a_site_decides_by_the_jobs_it_was_sent(tmp_path):
    """Decision 10: the same minute, other allocated jobs, other actions; of the manager nothing changes."""
    mine, seen = policy(checkpoint(tmp_path)), observation()
    outcomes = []
    for jobs, work in (([[2, 21], [0, 0]], [[2e6, 6.3e6], [0.0, 0.0]]),
                       ([[0, 21], [2, 0]], [[0.0, 6.3e6], [2e6, 0.0]])):
        share = mine.place(seen)
        outcomes.append((share, mine.operate(seen, jobs, work)))
    assert outcomes[0][0] == outcomes[1][0]
    assert outcomes[0][1] != outcomes[1][1]


@pytest.mark.parametrize(("method", "options", "alone"), [
    *((method, {}, method == "mappo") for method in METHODS), ("mappo", {"context_for_all": True}, True),
    ("transformer", {"history_steps": 2}, True), ("transformer", {"history_steps": 2, "context_for_all": True}, True)])
@pytest.mark.rows("T09", "Z02")
def test_what_another_site_sees_moves_a_sites_operation_unless_it_acts_alone(tmp_path, method, options, alone):
    """The south's power, queues, GPUs and carbon change, the north's and what it was sent do not."""
    seen, path = observation(), checkpoint(tmp_path, method, **options)
    south = dict(power_kw=[70.0, 90.0], nci_kg_per_kwh=[0.3, 0.2], queued_jobs=[[1, 0], [7, 0]],
                 deferred_jobs=[[3, 0], [5, 0]], running_jobs=[[2, 9], [0, 0]],
                 pending_work_to=[[2e6, 1e6], [9e6, 0.0]], deferred_work_to=[[3e6, 0.0], [4e6, 0.0]],
                 free_gpu_ratio=[0.4, 0.0], deferral_carry=[[[0.1, -0.1]], [[0.5, -0.5]]],
                 deferred_by_lead=[[[0, 3]], [[5, 0]]], deferred_by_time=[[[1, 2]], [[0, 5]]],
                 late_jobs=[[1, 0], [4, 0]], urgent_jobs=[[0, 0], [0, 0]], slack_min=[1440.0, -60.0])
    operations = []
    for what in (seen, replace(seen, **south)):
        mine = policy(path)
        mine.place(what)
        operations.append(mine.operate(what, [[2, 21], [0, 0]], [[2e6, 6.3e6], [0.0, 0.0]]))
    north, other = ((o.deferral_share[0], o.gpu_share[0], o.supply_temp_degc[0]) for o in operations)
    assert (north == other) == alone
    assert operations[0].gpu_share[1] != operations[1].gpu_share[1]


@pytest.mark.rows("M12")
def test_the_ranges_are_those_it_was_trained_with(tmp_path):
    """The bus does not know the workload's mean arrivals; the checkpoint does."""
    path = checkpoint(tmp_path)
    scope = ObservationScope(FACTS.classes, FACTS.sites, 1.0, {}, True, False, True)
    ours = TeamArrays(FACTS, scope, {}, Team.load(path).spec)
    assert (ours.observe(observation()) == TeamArrays(FACTS, sight(), OFFERED).observe(observation())).all()


def test_exploring_draws_from_the_given_stream(tmp_path):
    path, seen = checkpoint(tmp_path), observation()
    first, second = policy(path, explore=True), policy(path, explore=True)
    draws = [p.place(seen) for p in (first, second)]
    assert draws[0] == draws[1]
    assert draws[0] != policy(path).place(seen)
    first.operate(seen, [[0, 0], [0, 0]], [[0.0, 0.0], [0.0, 0.0]])
    assert first.place(seen) != draws[0]


@pytest.mark.parametrize(("facts", "nci", "says"), [
    (replace(FACTS, sites=("north", "west")), True, "agents manager, north, south, here are manager, north, west"),
    (replace(FACTS, classes=("llm", "chat")), True, "arrivals search"),
    (replace(FACTS, deferrals_s=(0.0, 7200.0)), True, "+7200s here"),
    (replace(FACTS, supply_temp_high_degc=25.0), True, "('supply_temp_degc', 18.0, 23.0), here it is"),
    (replace(FACTS, eligible=((True, True), (True, True))), True, "site of search"),
    (FACTS, False, "trained in joint mode, this is power mode"),
    (replace(FACTS, gpu_shares="kinds"), True, "gpu_shares = classes or pooled, here it is kinds"),
])
def test_what_does_not_fit_is_named(tmp_path, facts, nci, says):
    path = checkpoint(tmp_path)
    with pytest.raises(ScenarioError) as err:
        policy(path, facts, nci)
    assert says in str(err.value)
    assert "does not fit" in str(err.value)
    assert "\n" not in str(err.value)


@pytest.mark.parametrize("full", [True, False])
def test_a_team_that_decides_shares_of_kinds_does_so_and_fits_no_other_setting(tmp_path, full):
    kinds, path, seen = replace(FACTS, gpu_shares="kinds"), tmp_path / "kinds.safetensors", observation()
    view = TeamArrays(kinds, sight(full=full), OFFERED)
    Team(view.spec, Learning(), 3).save(path, resumable=False)
    mine = policy(path, kinds)
    mine.place(seen)
    operation = mine.operate(seen, [[2, 21], [0, 0]], [[2e6, 6.3e6], [0.0, 0.0]])
    told = view.context([[2, 21], [0, 0]], [[2e6, 6.3e6], [0.0, 0.0]])[None]
    step, _ = Team.load(path).act(view.observe(seen)[None], lambda _: told, deterministic=True)
    for site in (0, 1):
        assert operation.gpu_share[site] == pytest.approx(step.action[0, 1 + site, 2:4].tolist(), abs=1e-5)
    for facts in (FACTS, replace(FACTS, gpu_shares="pooled")):
        with pytest.raises(ScenarioError, match=f"gpu_shares = kinds, here it is {facts.gpu_shares}.*'gpus by kind'"):
            policy(path, facts)


def test_who_uses_the_gpus_of_classes_is_no_part_of_a_team(tmp_path):
    assert policy(checkpoint(tmp_path), replace(FACTS, gpu_shares="pooled")).place(observation())


def test_a_blind_team_is_not_shown_carbon(tmp_path):
    path = checkpoint(tmp_path, nci=False)
    assert policy(path, nci=False).place(observation(nci=False))
    with pytest.raises(ScenarioError, match="trained in power mode, this is joint mode"):
        policy(path, nci=True)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(ScenarioError, match="no checkpoint"):
        policy(tmp_path / "nothing.safetensors")


# --- forecasts --------------------------------------------------------------------------------------------------------

AHEAD = replace(FACTS, horizon_steps=4, horizon_step_s=1800.0)
"""Two hours in half hours, of which the deferral of an hour is entry 2."""


def test_forecasts_are_columns_at_the_deferrals_and_without_them_all_is_as_it_was():
    scope = replace(sight(), forecasts=("nci", "load"))
    view, plain = TeamArrays(AHEAD, scope, OFFERED), TeamArrays(AHEAD, sight(), OFFERED)
    seen = replace(observation(), nci_forecast_kg_per_kwh=[[0.3, 0.6, 0.12, 0.6, 0.6], [0.8, 0.6, 0.48, 0.6, 0.6]],
                   load_forecast_kw=[1e3, 2e3, 1e5, 4e3, 5e3])
    manager, site = (view.spec.types[name] for name in ("manager", "site"))
    assert [c.name for c in manager.observation][-3:] == ["nci_forecast_kg_per_kwh north +3600s",
                                                          "nci_forecast_kg_per_kwh south +3600s",
                                                          "load_forecast_kw +3600s"]
    assert [c.name for c in site.observation][-2:] == ["nci_forecast_kg_per_kwh +3600s", "load_forecast_kw +3600s"]
    found = view.observe(seen)
    width = len(manager.observation)
    assert found[0, width - 3:width] == pytest.approx([2 * 0.1 - 1, 2 * 0.4 - 1, 1.0], abs=1e-6)  # of 0 to 1.2
    assert found[2, len(site.observation) - 2] == pytest.approx(2 * 0.4 - 1, abs=1e-6)
    assert [c.name for c in plain.spec.types["manager"].observation] == [c.name for c in manager.observation][:-3]
    assert plain.observe(seen)[0, :width - 3].tolist() == found[0, :width - 3].tolist()


def test_a_team_that_observes_forecasts_finds_them_by_its_columns_or_says_that_there_are_none(tmp_path):
    path = tmp_path / "team.safetensors"
    spec = TeamArrays(AHEAD, replace(sight(), forecasts=("nci",)), OFFERED).spec
    Team(spec, Learning(), 3).save(path, resumable=False)
    seen = replace(observation(), nci_forecast_kg_per_kwh=[[0.3] * 5, [0.8] * 5])
    assert len(policy(path, AHEAD).place(seen)) == 2
    with pytest.raises(ModelError, match="nci_forecast_kg_per_kwh is to be observed, and none is linked"):
        policy(path, AHEAD).place(observation())
    with pytest.raises(ScenarioError, match=r"observes forecasts of nci: .*controller.horizon_s is null"):
        policy(path, FACTS)
