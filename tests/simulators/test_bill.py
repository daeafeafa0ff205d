"""What sites pay: demand charges and prices of single sites, by hand, in the summary and in the laws."""

import numpy as np
import pytest
from worlds import run

from cosim.errors import ScenarioError
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.bill import bill, demand_charges
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.controller.steering import Steering
from cosim.trace import Trace
from cosim.trace.compare import first_difference

CHARGED = {"tariff.demand_charge_usd_per_kw": 12.0, "tariff.entities.Site": "sites", "tariff.site_prices": {
    "aidc1": {"adder_usd_per_kwh": 0.02}, "aidc2": {"base_usd_per_kwh": 0.5, "demand_charge_usd_per_kw": 0.0}}}


@pytest.fixture(scope="module")
def charged(tmp_path_factory):
    """50 min of ieee33 with prices of two sites and a demand charge."""
    scenario = override(find("ieee33"), {"controller.policy": "uniform", **CHARGED})
    return run(scenario, tmp_path_factory.mktemp("b") / "t.h5", until_s=3000.0).path


def test_sites_pay_by_hand(charged):
    with Trace(charged) as trace:
        p_kw = trace["aidc/Site/p_kw"]
        # night: 0.10 USD/kWh in common, 0.02 more at aidc1, 0.50 at aidc2; 50 of the 31 x 1440 min of January
        prices = trace["tariff/Site/site_price_usd_per_kwh"]
        assert np.allclose(prices, [0.12, 0.5, 0.1], rtol=1e-12)
        energy = (p_kw / 60.0 * [0.12, 0.5, 0.1]).sum(axis=0)
        peaks = [max(p_kw[k:k + 15, s].mean() for k in range(0, 50, 15)) for s in range(3)]  # the last has 5 min
        share = 50.0 / (31 * 1440.0)
        demand = [12.0 * peaks[0] * share, 0.0, 12.0 * peaks[2] * share]
        assert [(d.site, d.period) for d in demand_charges(trace)] == [(f"aidc{k}", "2026-01") for k in (1, 2, 3)]
        assert [d.usd for d in demand_charges(trace)] == pytest.approx(demand)
        figures = summary(trace).figures
        assert figures["demand_charge_usd"] == pytest.approx(sum(demand))
        assert figures["cost_usd"] == pytest.approx(energy.sum() + sum(demand))
        assert bill(trace).worst <= bill(trace).allowed


@pytest.mark.long
def test_a_day_is_a_period_of_its_own(tmp_path):
    scenario = override(find("two_bus"), {"tariff.demand_charge_usd_per_kw": 1.0, "tariff.billing": "day",
                                          "tariff.metering_s": 60.0, "start": "2026-03-31"})
    with Trace(run(scenario.replace(warmup_s=84600.0), tmp_path / "t.h5", until_s=3600.0).path) as trace:
        p_kw = trace["aidc/Site/p_kw"][1410:, 0]
        got = [(d.period, d.peak_kw, d.share) for d in demand_charges(trace)]
        assert got == [("2026-03-31", p_kw[:30].max(), 30 / 1440), ("2026-04-01", p_kw[30:].max(), 30 / 1440)]
        assert bill(trace).worst <= bill(trace).allowed


class Tampered:
    def __init__(self, trace, path):
        self._trace, self._path = trace, path

    def __getattr__(self, name):
        return getattr(self._trace, name)

    def __getitem__(self, path):
        return self._trace[path] * (1.01 if path == self._path else 1.0)


@pytest.mark.parametrize("path", ["aidc/Site/p_kw", "tariff/Site/site_price_usd_per_kwh"])
def test_a_bill_that_does_not_follow_is_found(charged, path):
    with Trace(charged) as trace:
        changed = bill(Tampered(trace, path))
        assert changed.worst > changed.allowed


@pytest.mark.long
def test_prices_of_sites_change_nothing_else_and_both_drivers_agree(charged, tmp_path):
    plain = override(find("ieee33"), {"controller.policy": "uniform"})
    with Trace(charged) as one, Trace(run(plain, tmp_path / "p.h5", until_s=3000.0).path) as two:
        for model in two.models():
            assert all(one[f"{model}/{p}"].tobytes() == two[f"{model}/{p}"].tobytes() for p in two.ports(model)), model
        assert "tariff/Site" not in two.models()
        assert "demand_charge_usd" not in summary(two).figures
    scenario = override(find("ieee33"), {"controller.policy": "uniform", **CHARGED})
    assert first_difference(charged, run(scenario, tmp_path / "m.h5", "mosaik", until_s=3000.0).path) is None


@pytest.mark.parametrize(("settings", "said"), [
    ({"tariff.site_prices.aidc1.adder_usd_per_kwh": 0.1}, r"--set tariff.entities.Site=sites"),
    ({"tariff.site_prices.aidc9.adder_usd_per_kwh": 0.1, "tariff.entities.Site": "sites"}, r"unknown site 'aidc9'"),
    ({"tariff.site_prices.aidc1.windows": [{"start_h": 1, "end_h": 2, "price_usd_per_kwh": 1}]}, "need its own base"),
    ({"tariff.demand_charge_usd_per_kw": -1}, "greater than or equal to 0"),
    ({"tariff.billing": "year"}, "tariff.billing = 'year'"),
    ({"tariff.metering_s": 7000.0}, "does not divide a day")])
def test_what_cannot_be_is_refused(settings, said, tmp_path):
    with pytest.raises(ScenarioError, match=said):
        run(override(find("ieee33"), settings), tmp_path / "t.h5", until_s=60.0)


def test_learners_whose_reward_counts_neither_are_refused():
    with pytest.raises(ScenarioError, match=r"tariff.demand_charge_usd_per_kw is set, and the reward counts one price"):
        Steering.prepare(override(find("ieee33"), {"tariff.demand_charge_usd_per_kw": 5.0}), True)
