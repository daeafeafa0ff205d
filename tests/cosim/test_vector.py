"""Environments side by side: stops of the native driver, days that go on, saved states, worker processes."""

import numpy as np
import pytest
from gridless import RANDOM_TWO_BUS
from gridless import SCENARIO as GRIDLESS

from cosim.adapter import Adapter
from cosim.agents.train import beginning
from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld
from cosim.drivers.resolve import at, resolve
from cosim.errors import ModelError, ScenarioError
from cosim.experiment import Experiment
from cosim.learning.environment import scenario_of, vector_env
from cosim.learning.vector import Environment, learning_scenario, seed_of
from cosim.learning.workers import parts_of
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import override
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.scenarios.two_bus import SCENARIO as TWO_BUS


def random_actions(spec, n_envs, rng):
    """Valid joint actions: shares from a flat Dirichlet, temperatures from their box."""
    out = np.zeros((n_envs, len(spec.agents), spec.widths[2]), np.float32)
    for b in range(n_envs):
        for k in range(len(spec.agents)):
            row = []
            for part in spec.type_of(k).action:
                row += rng.dirichlet([1.0] * part.size).tolist() if hasattr(part, "size") else [
                    rng.uniform(part.low, part.high)]
            out[b, k, :len(row)] = row
    return out


def world_of(scenario, seen, **options):
    resolved = resolve(scenario)
    control = Control(resolved.clock, resolved.until, on_record=lambda member, data: seen.append((member, data)))
    world = NativeWorld(resolved, control, **options)
    world.start()
    return world, resolved.until


def test_stops_before_a_member_change_nothing():
    whole, parts = [], []
    world, until = world_of(RANDOM_TWO_BUS, whole)
    world.run(until)
    stopping, _ = world_of(RANDOM_TWO_BUS, parts)
    stops = []
    while (time := stopping.run_to("controller", until)) is not None:
        stops.append(time)
    assert stops == list(range(45))
    assert repr(parts) == repr(whole)


def test_at_a_stop_the_member_has_heard_everything_of_its_step():
    seen = []
    world, until = world_of(RANDOM_TWO_BUS, seen)
    for minute in range(3):
        assert world.run_to("controller", until) == minute
        heard = world.pending("controller")
        before = dict(seen[-8:])  # of this minute, but for the data center: its last one
        assert heard["manager"]["jobs"]["workload.workload"] is before["workload"]["workload"]["jobs"]
        if minute:
            assert heard["aidc1"]["p_kw"]["aidc.aidc1"] == before["aidc"]["aidc1"]["p_kw"]
        assert [member for member, _ in seen].count("controller") == minute


def test_a_world_can_be_finished_after_stops():
    whole, mixed = [], []
    world, until = world_of(RANDOM_TWO_BUS, whole)
    world.run(until)
    other, _ = world_of(RANDOM_TWO_BUS, mixed)
    for _ in range(7):
        other.run_to("controller", until)
    other.run(until)
    assert repr(mixed) == repr(whole)


@pytest.mark.rows("M16")
def test_an_episode_has_its_own_random_numbers():
    resolved = resolve(RANDOM_TWO_BUS)
    assert at(resolved, 0, 0).init_params == resolved.init_params
    written = resolve(RANDOM_TWO_BUS.replace(seed=4, episode=3))
    assert at(resolved, 4, 3).init_params == written.init_params
    arrivals = []
    for episode in (0, 0, 1):
        seen = []
        world, until = world_of(RANDOM_TWO_BUS.replace(episode=episode), seen)
        world.run(until)
        arrivals.append([data["workload"]["arrived_jobs"] for member, data in seen if member == "workload"])
    assert arrivals[0] == arrivals[1] != arrivals[2]


def test_a_pinned_seed_stays_pinned():
    resolved = resolve(RANDOM_TWO_BUS.replace(seeds={"workload": 9}))
    assert at(resolved, 4, 3).init_params["workload"]["seed"] == 9
    assert at(resolved, 4, 3).init_params["controller"]["seed"] == 4


def test_a_simulator_that_knows_no_carry_refuses_one():
    assert Adapter.carry(None) == {}
    Adapter.resume(None, {})
    with pytest.raises(ModelError, match=r"cannot go on from load_kw; give it resume\(\)"):
        Adapter.resume(None, {"load_kw": np.zeros(3)})


def test_the_same_seed_gives_the_same_days_and_another_gives_others():
    runs = []
    for seed in (1, 1, 2):
        env, rng = vector_env(RANDOM_TWO_BUS, n_envs=2, workers=0, seed=seed), np.random.default_rng(0)
        seen = [env.reset()]
        ends = []
        for _ in range(100):
            step = env.step(random_actions(env.spec, 2, rng))
            seen += [step.observation, step.reward]
            ends.append(step.truncated.tolist())
            assert not step.terminated.any()
            assert step.final_observation is step.observation
        assert [k for k, end in enumerate(ends) if all(end)] == [44, 89]
        runs.append(seen)
        assert not np.array_equal(seen[0][0], seen[-2][1])
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_no_two_runs_share_a_seed_and_none_has_one_below_1000():
    seeds = [seed_of(seed, b) for seed in range(5) for b in range(1000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) == 1000


@pytest.mark.rows("I18")
def test_jobs_are_conserved_over_days():
    """Over three days of 2 h: what arrived (drawn again, independently, the last minute of each day included) has been
    received, but for the minute that is still under way; and all received = finished + dropped + inside."""
    prepared = learning_scenario(override(IEEE33.replace(until_s="2h"),
                                          {"shared.job_classes.deep_research.deadline_s": "1min"}))
    env, rng = Environment(resolve(prepared), seed=5), np.random.default_rng(1)
    names = ("received_jobs", "finished_jobs", "dropped_jobs", "backlog_jobs", "running_jobs")
    totals = dict.fromkeys(names[:3], 0.0)
    inside_before = None
    for minute in range(3 * 120):
        world = env._world  # the last step of a day exchanges it
        env.step(random_actions(env.steering.spec, 1, rng)[0])
        fleet = world.simulators["aidc"].get_data({site: list(names) for site in ("aidc1", "aidc2", "aidc3")})
        for name in totals:
            totals[name] += sum(sum(site[name]) for site in fleet.values())
        inside = sum(sum(site["backlog_jobs"]) + sum(site["running_jobs"]) for site in fleet.values())
        assert totals["received_jobs"] == totals["finished_jobs"] + totals["dropped_jobs"] + inside, minute
        inside_before = inside
    assert inside_before > 0
    assert totals["dropped_jobs"] > 0
    arrived = 0.0
    for episode in range(3):
        world = NativeWorld(at(resolve(prepared), 5, episode), Control(env._resolved.clock, 999))
        world.start()
        workload = world.simulators["workload"]
        for minute in range(121 if episode < 2 else 120):
            arrived += sum(workload.advance(60.0 * minute, {})["workload"]["arrived_jobs"])
    assert totals["received_jobs"] == arrived


@pytest.mark.rows("I18", "L03")
def test_a_day_goes_on_where_the_last_one_ended():
    env, rng = Environment(resolve(learning_scenario(RANDOM_TWO_BUS)), seed=1), np.random.default_rng(2)
    names = [c.name for c in env.steering.spec.types["site"].observation]
    for _ in range(45):
        controller = env._world.simulators["controller"]
        fleet = env._world.simulators["aidc"]
        *_, ended = env.step(random_actions(env.steering.spec, 1, rng)[0])
    assert ended
    assert env.episode == 1
    assert env.steering.controller is not controller
    for owed in ("deferral_carry", "site_carry"):
        assert getattr(env.steering.controller.state, owed) == getattr(controller.state, owed)
    last = fleet.get_data({"aidc1": ["p_kw", "free_gpu_ratio"]})["aidc1"]
    assert env.steering._seen.power_kw == [last["p_kw"]]
    assert env.observation[1][names.index("free_gpu_ratio")] == np.float32(2.0 * last["free_gpu_ratio"] - 1.0)


def long_tables(folder, kind):
    """A scenario of half an hour with tables of 90 minutes: prices, and carbon intensities as a series, as a table in
    the grid's place, or as a recording there. Rows of 20 minutes, of which no world is a whole number."""
    for name, column, first in (("prices", "price_usd_per_mwh", 100), ("nci", "nci_g_per_kwh", 500)):
        rows = [f"2026-01-01T{k // 3:02d}:{k % 3 * 20:02d}Z,{first + k}" for k in range(5)]
        (folder / f"{name}.csv").write_text("\n".join([f"time,{column}", *rows]) + "\n")
    series = override(find("intensity_series"), {
        "tariff.prices": str(folder / "prices.csv"), "grid.path": str(folder / "nci.csv"), "until_s": "30min",
        "grid.time_column": "time", "grid.column": "nci_g_per_kwh", "controller.policy": "uniform"})
    if kind == "series":
        return series
    if kind == "table":
        return replay(series, "grid", str(folder / "nci.csv"))
    recorded = folder / "t.h5"
    Experiment(series, "native", 90 * 60.0, recorded).run()
    return override(replay(series, "grid", str(recorded)), {"grid.overflow": "hold"})


@pytest.mark.long(after=1)
@pytest.mark.parametrize("kind", ["series", "table", "recording"])
def test_tables_go_on_from_day_to_day(tmp_path, kind):
    env = Environment(resolve(learning_scenario(long_tables(tmp_path, kind))), seed_of(0, 0))
    start, seen, saved = env.steering.start(), [], {}

    def outside():
        inputs = env._world.pending("controller")
        return (*inputs["manager"]["price_usd_per_kwh"].values(), *inputs["aidc1"]["nci_kg_per_kwh"].values())

    for minute in range(90):
        seen.append(outside())
        if minute == 65:
            saved = env.state()
        env.step(start)
    grid = [minute // 15 * 15 for minute in range(90)]
    want = [(0.1 + 1e-3 * (minute // 20), 0.5 + 1e-3 * (grid[minute] // 20)) for minute in range(90)]
    assert np.array(seen) == pytest.approx(np.array(want))
    env.restore(saved)
    assert outside() == seen[65]
    env.close()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("steps", [10, 45, 70])
def test_a_saved_state_goes_on_bit_for_bit(steps):
    env, rng = vector_env(RANDOM_TWO_BUS, n_envs=2, workers=0), np.random.default_rng(3)
    actions = [random_actions(env.spec, 2, rng) for _ in range(steps + 30)]
    env.reset()
    for action in actions[:steps]:
        last = env.step(action)
    state = env.state()
    assert all(array.dtype.kind in "iufb" for array in state.values())
    assert len(state["0/actions"]) == steps % 45
    other = vector_env(RANDOM_TWO_BUS, n_envs=2, workers=0)
    assert np.array_equal(other.restore(state), last.observation)
    for action in actions[steps:]:
        a, b = env.step(action), other.step(action)
        assert np.array_equal(a.observation, b.observation)
        assert np.array_equal(a.reward, b.reward)
    with pytest.raises(ScenarioError, match="no environment 2; restore it with the same number"):
        vector_env(RANDOM_TWO_BUS, n_envs=3, workers=0).restore(state)


def test_staggered_environments_are_spread_over_the_day():
    """Days of 45 minutes: of three environments the second begins at minute 15, the third at 30."""
    env = vector_env(RANDOM_TWO_BUS, n_envs=3, workers=0, stagger=True)
    env.reset()
    assert [e.steering._seen.time_s for e in env.envs] == [0.0, 900.0, 1800.0]
    ends = [env.step(np.stack([e.steering.start() for e in env.envs])).truncated for _ in range(45)]
    assert [int(np.argmax([end[b] for end in ends])) for b in range(3)] == [44, 29, 14]


@pytest.mark.parametrize(("n_envs", "twins", "days"), [(3, 1, "1"), (6, 2, "2"), (2, 2, None)])
def test_training_says_how_many_days_are_played_before_its_first_update(n_envs, twins, days):
    """Days of 45 minutes in thirds, counted by the actions that were executed."""
    env = vector_env(RANDOM_TWO_BUS, n_envs=n_envs, workers=0, stagger=True, twins=twins)
    env.reset()
    said = beginning({"env": None, "envs": n_envs}, twins)
    played = sum(len(e.state()["actions"]) for e in env.envs) / 45
    if days is None:
        assert (said, played) == ("beginning the first episodes", 0)
    else:
        assert played == float(days)
        assert f"{n_envs} environments play {days} days " in said


def test_twins_meet_the_same_world_and_differ_by_what_is_done():
    """Four environments in two pairs, equal actions for three steps, then others for the second of each pair: a pair
    is equal until then and different afterwards. Staggered, a pair begins at the same minute."""
    env = vector_env(GRIDLESS, n_envs=4, workers=0, twins=2, stagger=True)
    days, rng = [env.reset()], np.random.default_rng(0)
    for k in range(12):
        action = random_actions(env.spec, 1, rng).repeat(4, axis=0)
        if k >= 3:
            action[[1, 3]] = random_actions(env.spec, 1, rng)
        days.append(env.step(action).observation)
    day = np.array(days)
    for pair in (0, 2):
        assert np.array_equal(day[:4, pair], day[:4, pair + 1])
        assert not np.array_equal(day[4:, pair], day[4:, pair + 1])
    assert not np.array_equal(day[:, 0], day[:, 2])
    assert [e.seed for e in env.envs] == [1000, 1000, 1001, 1001]
    with pytest.raises(ScenarioError, match="twins = 3 must be >= 1 and divide n_envs = 4"):
        vector_env(GRIDLESS, n_envs=4, twins=3)


@pytest.mark.long
def test_workers_give_the_numbers_of_one_process_and_a_dead_one_is_named():
    here, there = (vector_env(GRIDLESS, n_envs=3, workers=workers, seed=7) for workers in (0, 2))
    try:
        assert there.spec == here.spec
        assert np.array_equal(here.reset(), there.reset())
        rng = np.random.default_rng(4)
        for _ in range(50):
            action = random_actions(here.spec, 3, rng)
            assert np.array_equal(here.context(action[:, :1]), there.context(action[:, :1]))
            a, b = here.step(action), there.step(action)
            for name in ("observation", "reward", "terminated", "truncated", "final_observation"):
                assert np.array_equal(getattr(a, name), getattr(b, name))
            assert all(np.array_equal(a.terms[name], b.terms[name]) for name in a.terms)
        state, mine = there.state(), here.state()
        assert state.keys() == mine.keys()
        assert all(np.array_equal(state[key], mine[key], equal_nan=mine[key].dtype.kind == "f") for key in mine)
        action[2, 1] = np.nan
        with pytest.raises(ModelError, match=r"environment 2 \(seed 8002, episode 1\): member 'controller'.*finite"):
            there.step(action)
        assert np.array_equal(there.restore(state), a.observation)
        there._workers[1]._process.kill()
        with pytest.raises(ModelError, match=r"worker 1 \(environments 1\) ended by itself with signal 9"):
            there.step(random_actions(here.spec, 3, rng))
    finally:
        there.close()


def test_an_optional_link_is_left_out_where_its_source_is_missing():
    """two_bus links its grid's mci; a grid without that port is still a grid, and the controller hears NaN."""
    link = next(link for link in TWO_BUS.links if link.source == "grid.mci_kg_per_kwh")
    elsewhere = link.model_copy(update={"source": "grid.no_such_kg_per_kwh"})
    others = [other for other in TWO_BUS.links if other != link]
    world, until = world_of(TWO_BUS.replace(links=[*others, elsewhere]), [])
    world.run_to("controller", until)
    assert "mci_kg_per_kwh" not in world.pending("controller")["aidc1"]
    assert np.isnan(world.simulators["controller"].read(world.pending("controller"))["aidc1"]["mci_kg_per_kwh"])
    strict = elsewhere.model_copy(update={"optional": False})
    with pytest.raises(ScenarioError, match="unknown out port of member 'grid' 'no_such_kg_per_kwh'"):
        world_of(TWO_BUS.replace(links=[*others, strict]), [])


@pytest.mark.parametrize("plant", [{}, {"aidc.thermal": "first_order"}])
def test_a_lean_world_spares_outputs_and_works_them_out_when_asked(plant):
    """Every out port of the fleet, asked for after some minutes, is what a world with a trace has there; but the row of
    p_kw, which a link carries, is there at once and inlet_degc, which none does, is not."""
    scenario = override(RANDOM_TWO_BUS, plant)
    (whole, _), (lean, _) = world_of(scenario, []), world_of(scenario, [], linked_only=True)
    for minute in (20, 40):
        whole.run(minute)
        lean.run(minute)
        full, spared = (world.simulators["aidc"]._outputs["aidc1"] for world in (whole, lean))
        assert "p_kw" in spared
        assert "inlet_degc" in full
        assert "inlet_degc" not in spared
        names = {"aidc1": list(full)}
        asked, told = (world.simulators["aidc"].get_data(names)["aidc1"] for world in (whole, lean))
        assert repr(asked) == repr(told)
        with pytest.raises(KeyError, match="no_such_port"):
            spared["no_such_port"]


def test_workers_share_out_the_hours_of_the_day():
    """Neighbours stand at similar hours, so each worker has every second or third of them."""
    assert [list(part) for part in parts_of(5, 2)] == [[0, 2, 4], [1, 3]]
    assert parts_of(2, 7) == [range(0, 2, 2), range(1, 2, 2)]


def test_what_cannot_be_learnt_on_is_said():
    with pytest.raises(ScenarioError, match="names no environment"):
        vector_env(TWO_BUS.replace(environment=None), workers=0)
    with pytest.raises(ScenarioError, match="n_envs = 0 must be >= 1"):
        vector_env(TWO_BUS, n_envs=0)
    with pytest.raises(ScenarioError, match="unknown scenario 'two_buses'; did you mean 'two_bus'"):
        scenario_of("two_buses")
