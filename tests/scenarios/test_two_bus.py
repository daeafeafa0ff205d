"""`two_bus`, three intervals, every number derived by hand.

Jobs      a minute brings 10 queries of 60 000 TO and one training job of 120 000 TO; a GPU does 60 000 TO/min; nothing
          arrives before minute 1. So in minute 0 no GPU is busy, and from minute 1 on 10 + 2 GPUs are, all minute.
Power     IT = 20 + 1.0 kW x busy GPUs = 20, then 32 kW; chiller = IT / 4; so 25, then 40 kW, and a fifth of it in kvar.
Grid      what it sees: idle 25 kW at t = 0; then the means of the intervals, (25 + 14 x 40)/15 = 39 and 40 kW. Beside
          it 60 kW + 20 kvar of base load and a turbine of 50 kW at 0.2 kg/kWh, always full (cheaper in carbon and
          nearer). The line delivers P = 35, 49, 50 kW and Q = 25, 27.8, 28 kvar.
Line      r = 1/100, x = 2/100 p.u. With a = 1 - 2 (rP + xQ) and z2 = r2 + x2: u (1 p.u. at the substation) falls to
          a - z2 l, and l u = P2 + Q2, so z2 l2 - a l + P2 + Q2 = 0.
NCI       (0.3 P + 0.2 x 50) / (P + 50): 20.5/85, 24.7/99, 25/100.
"""

from math import sqrt

import pytest
from worlds import run

from cosim.run import find
from cosim.trace import Trace

P_MW, Q_MVAR = (0.035, 0.049, 0.050), (0.025, 0.0278, 0.028)
R, X = 0.01, 0.02


def line(p: float, q: float) -> tuple[float, float]:
    """(squared current, voltage at bus 1), both p.u., by the quadratic above."""
    a, z2 = 1 - 2 * (R * p + X * q), R * R + X * X
    current = (a - sqrt(a * a - 4 * z2 * (p * p + q * q))) / (2 * z2)
    return current, sqrt(a - z2 * current)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    result = run(find("two_bus"), tmp_path_factory.mktemp("two_bus") / "t.h5")
    with Trace(result.path) as trace:
        yield result, trace


@pytest.mark.rows("E05", "E12", "E13")
def test_jobs_and_power(done):
    _, trace = done
    assert trace["aidc/Site/busy_gpus"][:, 0].tolist() == [[0.0, 0.0]] + [[2.0, 10.0]] * 44
    assert trace["aidc/Site/finished_jobs"][:, 0].tolist() == [[0.0, 0.0]] + [[1.0, 10.0]] * 44
    assert trace["aidc/Site/work_to"][:, 0].tolist() == [[0.0, 0.0]] + [[1.2e5, 6.0e5]] * 44
    assert trace["aidc/Site/it_kw"][:, 0] == pytest.approx([20.0] + [32.0] * 44, rel=1e-12)
    assert trace["aidc/Site/p_kw"][:, 0] == pytest.approx([25.0] + [40.0] * 44, rel=1e-12)
    assert trace["aidc/Site/q_kvar"][:, 0] == pytest.approx([5.0] + [8.0] * 44, rel=1e-12)
    assert trace["aidc/Site/p_window_kw"][[14, 29, 44], 0] == pytest.approx([39.0, 40.0, 40.0], rel=1e-12)
    assert trace["aidc/Site/inlet_degc"][:, 0].tolist() == [27.0] * 45


def test_job_table(done):
    _, trace = done
    jobs = trace.table("jobs")
    assert len(jobs["id"]) == 44 * 11
    assert sorted(jobs["id"].tolist()) == list(range(484))
    assert set(jobs["outcome"]) == {"finished"}
    assert (jobs["end_s"] - jobs["start_s"] == pytest.approx(60.0))
    assert (jobs["start_s"] % 60 == 0).all(), "every job starts at the minute's decision"
    assert ((jobs["start_s"] - jobs["arrival_s"] > 0) & (jobs["start_s"] - jobs["arrival_s"] <= 60)).all()


@pytest.mark.rows("E01-06", "E09", "K08", "M03", "M10")
def test_grid(done):
    _, trace = done
    for k, (p, q) in enumerate(zip(P_MW, Q_MVAR, strict=True)):
        current, voltage = line(p, q)
        loss_kw = R * current * 1e3
        assert trace["grid/Bus/vm_pu"][k] == pytest.approx([1.0, voltage], abs=1e-9)
        assert trace["grid/Grid/loss_kw"][k, 0] == pytest.approx(loss_kw, rel=1e-6)
        assert trace["grid/Grid/p_source_kw"][k, 0] == pytest.approx([p * 1e3 + loss_kw, 50.0], rel=1e-6)
        assert trace["grid/Grid/q_source_kvar"][k, 0] == pytest.approx([(q + X * current) * 1e3, 0.0], rel=1e-6)
        assert trace["grid/Grid/p_to_kw"][k, 0, 0] == pytest.approx(-p * 1e3, rel=1e-6)
        emission = 0.3 * (p * 1e3 + loss_kw) + 0.2 * 50.0
        assert trace["grid/Grid/emission_kg_per_h"][k, 0] == pytest.approx(emission, rel=1e-6)
        assert trace["grid/Bus/nci_kg_per_kwh"][k] == pytest.approx([0.3, (20.5, 24.7, 25.0)[k] / (85, 99, 100)[k]],
                                                                   rel=1e-7)


@pytest.mark.rows("I05", "I20", "K01-03", "R02", "R03", "K05", "U17", "U20")
def test_accounts(done):
    """Energy (25 + 44 x 40)/60 kWh, at 0.1 USD/kWh; attributed: each interval's energy at its NCI."""
    result, _ = done
    figures = result.digest.figures
    intervals_kwh = (25 + 14 * 40) / 60, 15 * 40 / 60, 15 * 40 / 60
    assert figures["energy_kwh"] == pytest.approx(sum(intervals_kwh), rel=1e-12)
    assert figures["it_energy_kwh"] == pytest.approx(sum(intervals_kwh) / 1.25, rel=1e-12)
    assert figures["cost_usd"] == pytest.approx(0.1 * sum(intervals_kwh), rel=1e-12)
    carbon = sum(e * w for e, w in zip(intervals_kwh, (20.5 / 85, 24.7 / 99, 0.25), strict=True))
    assert figures["co2_attributed_kg"] == pytest.approx(carbon, rel=1e-7)
    assert figures["mwh_per_t"] == pytest.approx(sum(intervals_kwh) / carbon, rel=1e-7)
    # An interval's system account is what it drew, which is what the next one is dispatched for; the last one's is
    # never heard of and stands as dispatched.
    came = [*zip(P_MW[1:], Q_MVAR[1:], strict=True), (P_MW[-1], Q_MVAR[-1])]
    system = sum(0.25 * (0.3 * (p * 1e3 + R * line(p, q)[0] * 1e3) + 10.0) for p, q in came)
    assert figures["co2_system_kg"] == pytest.approx(system, rel=1e-6)
    assert figures["throughput_to_per_min"] == pytest.approx(44 * 7.2e5 / 45, rel=1e-12)
