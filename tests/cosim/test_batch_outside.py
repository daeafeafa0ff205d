"""What comes from outside to many worlds at once: read when it changes, by whichever member, and once for twins."""

import numpy as np
import pytest
from test_variation import course
from test_vector import long_tables, random_actions

from cosim.errors import CosimError
from cosim.experiment import Experiment
from cosim.learning.batch import BatchEnvironments, lacking
from cosim.learning.vector import Environments, learning_scenario
from cosim.replay.exchange import replay
from cosim.scenario import Member, override
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.scenarios.ieee33_economic import SCENARIO as ECONOMIC
from cosim.units import HOUR_S

UNIFORM = override(IEEE33, {"controller.policy": "uniform"})
DEAR = [{"start_h": 0.5, "end_h": 0.75, "price_usd_per_kwh": 0.5}, {"start_h": 1.0, "end_h": 1.25,
                                                                    "price_usd_per_kwh": 0.7}]


SAME = {"rtol": 1e-9, "atol": 1e-7}


def both(scenario, twins, steps=65):
    """(observations, rewards) of environments one by one, and of the same at once, by the same random actions; the
    columns' names of the manager's observation. One environment has no twin here."""
    found, names = [], []
    for cls in (Environments, BatchEnvironments):
        env, rng = cls(scenario, indices=range(twins + 1), seed=5, twins=twins), np.random.default_rng(0)
        spec = env.spec
        found.append(course(env, steps, lambda spec=spec, rng=rng: random_actions(spec, twins + 1, rng)))
        names = [column.name for column in spec.type_of(0).observation]
        env.close()
    return *found, names


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Four hours in which prices, like the grid, change every quarter of an hour."""
    path = tmp_path_factory.mktemp("recorded") / "run.h5"
    Experiment(override(UNIFORM, {"tariff.step_s": "900", "tariff.windows": DEAR}), "native", 4 * HOUR_S, path).run()
    return path


@pytest.mark.long(after=2)
@pytest.mark.parametrize("twins", [1, 2])
@pytest.mark.parametrize("member", ["tariff", "grid"])
def test_a_recording_keeps_its_instants_in_days_that_are_no_whole_number_of_them(recorded, member, twins):
    """Days of 20 min: from the second on its samples stand at other minutes than at multiples of its step. What is
    played changes every quarter of an hour of the recording, and at no other minute."""
    scenario = override(replay(UNIFORM, member, str(recorded)), {f"{member}.overflow": "hold"})
    one, many, names = both(learning_scenario(scenario.replace(until_s=1200.0)), twins)
    np.testing.assert_allclose(many[0], one[0], **SAME)
    np.testing.assert_allclose(many[1], one[1], **SAME)
    column = names.index("price_usd_per_kwh" if member == "tariff" else "nci_kg_per_kwh aidc1")
    shown = many[0][:, 0, 0, column]
    assert (np.flatnonzero(np.diff(shown)) + 1).tolist() == ([30, 45, 60] if member == "tariff" else [15, 30, 45, 60])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["series", "table", "recording"])
def test_a_grid_that_nothing_goes_to_is_played_once_for_twins(tmp_path, kind):
    scenario = learning_scenario(long_tables(tmp_path, kind))
    assert not lacking(scenario)
    one, many, _ = both(scenario, twins=2)
    np.testing.assert_allclose(many[0], one[0], **SAME)
    np.testing.assert_allclose(many[1], one[1], **SAME)


def ending_prices(folder):
    """Half an hour of them, and no more."""
    (folder / "prices.csv").write_text("\n".join(["time_s,price_usd_per_kwh", *(f"{60 * k},{0.1 + k / 1000}"
                                                                                for k in range(31))]) + "\n")
    return {"prices": str(folder / "prices.csv"), "prices_overflow": "raise"}


def failure_of(env, steps=60):
    """(step, what was said) when environments all do as they start."""
    env.reset()
    start = (env.envs[0].steering if isinstance(env, Environments) else env._batch.steering).start()
    for k in range(steps):
        try:
            env.step(np.repeat(start[None], env.n_envs, axis=0))
        except CosimError as err:
            env.close()
            return k, str(err)
    return None


@pytest.mark.parametrize("what", ["to the controllers", "also to the grid", "to nobody"])
def test_a_table_that_ends_is_named_with_member_time_and_environment(tmp_path, what):
    """Whether worlds step its member, the first of twins does alone, or no link leaves it."""
    prices = ending_prices(tmp_path)
    scenario = ECONOMIC if what == "also to the grid" else IEEE33
    if what == "to nobody":
        other = Member(simulator="cosim.simulators.tariff:TimeOfUse", step_s=60, entities={"Tariff": ["other"]},
                       params=prices)
        scenario = scenario.replace(members={**scenario.members, "tariff2": other})
    else:
        scenario = override(scenario, {f"tariff.{name}": value for name, value in prices.items()})
    scenario = learning_scenario(scenario.replace(until_s=1200.0))
    one, many = (failure_of(cls(scenario, range(2), seed=1, twins=2)) for cls in (Environments, BatchEnvironments))
    assert one == many
    member = "tariff2" if what == "to nobody" else "tariff"
    assert many[0] == 30
    assert many[1].startswith(f"environment 0 (seed 2000, episode 1): member '{member}' (cosim.simulators.tariff:"
                              "TimeOfUse) failed at 00:11: ")
