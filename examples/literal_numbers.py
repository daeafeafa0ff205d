"""What follows from the study's numbers as printed, and from those that stand in their place here.

    python examples/literal_numbers.py

Every figure comes from the functions that the scenarios `paper_literal` and `ieee33` run on.
"""

import numpy as np

from cosim.agents.fleet.allocation import largest_remainder, largest_remainder_carry
from cosim.drivers.resolve import Resolved, resolve
from cosim.run import find
from cosim.simulators.aidc.equations import air_kw_per_k, crac, heat_imbalance_kw, it_power_kw
from cosim.simulators.analysis.metrics import preflight
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.optimal_power_flow import OPTIMAL, Dispatch
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.tariff import price_usd_per_kwh
from cosim.simulators.workload.arrivals import whole_jobs

IT_KW, SUPPLY_DEGC, DAY_MIN = 212.0, 23.0, 1440
SHARES = (0.1, 0.2, 0.7)


def full_it_kw(run: Resolved) -> float:
    """IT power of all sites when every GPU trains, kW."""
    fleet = run.params["aidc"]
    busy = fleet.job_classes["llm"]
    return sum(it_power_kw(site.idle_kw, [site.gpus * busy.to_per_gpu_min / 60.0], [busy.kw_per_to_s])
               for site in fleet.sites.values())


def carried_kw(run: Resolved) -> float:
    """The most that the data centers may draw together, in equal parts, at the network's own load, kW."""
    grid, fleet = run.params["grid"], run.params["aidc"]
    feeder = read_feeder(grid.network)
    limits = Limits(feeder.voltage(grid.v0_pu), grid.vm_min_pu, grid.vm_max_pu, grid.lambda_kw_per_kg_h)
    dispatch = Dispatch(feeder, grid.sources, limits, "clarabel")
    nodes, low, high = [site.node for site in fleet.sites.values()], 0.0, 8000.0
    while high - low > 1.0:
        p_kw, q_kvar, middle = feeder.p_kw.copy(), feeder.q_kvar.copy(), (low + high) / 2.0
        p_kw[nodes] += middle / len(nodes)
        q_kvar[nodes] += 0.2 * middle / len(nodes)
        low, high = (middle, high) if dispatch.solve(p_kw, q_kvar).status == OPTIMAL else (low, middle)
    return low


def jobs_a_day(run: Resolved) -> tuple[str, str]:
    """Training jobs of a day at the mean rates, when each minute's is rounded, and when whole jobs have that mean."""
    rates = [run.params["workload"].arrivals[name].mean_per_min for name in ("llm", "vae")]
    rounded = sum(whole_jobs(np.full(DAY_MIN, rate), "round", np.random.default_rng()).sum() for rate in rates)
    return f"{rounded}", f"{sum(rates) * DAY_MIN:.0f}"


def late_min(run: Resolved, name: str) -> tuple[str, str]:
    """Minutes left to a job after the longest deferral (up to one goes by at its decision), and those it needs."""
    job, fleet = run.params["aidc"].job_classes[name], run.params["aidc"]
    speed_to_per_s = job.top_to_per_s(next(iter(fleet.sites.values())).gpus)
    left_s = job.deadline_s - max(run.params["controller"].deferrals_s)
    return f"{left_s / 60.0 - 1.0:.0f} to {left_s / 60.0:.0f} / {job.work_to / speed_to_per_s / 60.0:.1f}", "clipped"


def peak_minutes(run: Resolved) -> str:
    """Minutes of a day at the dearest price."""
    prices = [price_usd_per_kwh(run.params["tariff"], 60.0 * minute) for minute in range(DAY_MIN)]
    return f"{prices.count(max(prices))}"


def placed(carry: bool) -> str:
    """Where 1000 jobs go that come one by one, at SHARES."""
    got, owed = np.zeros(3, int), [0.0] * 3
    for _ in range(1000):
        jobs, owed = largest_remainder_carry(1, SHARES, owed) if carry else (largest_remainder(1, SHARES), owed)
        got += jobs
    return " ".join(map(str, got))


def main() -> None:
    """A line per figure."""
    printed, ours = (resolve(find(name)) for name in ("paper_literal", "ieee33"))
    plants = [run.params["aidc"].cooling for run in (printed, ours)]
    classes = printed.params["aidc"].job_classes
    rows = [
        ("offered load over the GPUs there are", *(f"{preflight(r).figures['offered_load_ratio']:.2f}"
                                                   for r in (printed, ours))),
        *((f"hours that a block needs for a job of {name}",
           f"{c.work_to / c.to_per_gpu_min / c.gpus_per_block / 60:.0f}", "the same")
          for name, c in classes.items() if c.kind == "train"),
        ("minutes left after 10 h / needed by a job of vae", *late_min(printed, "vae")),
        ("IT power with all GPUs busy, kW", f"{full_it_kw(printed):.0f}", f"{full_it_kw(ours):.0f}"),
        ("what the feeder carries besides its own load, kW", f"{carried_kw(printed):.0f}", "the same"),
        ("heat from nowhere, kW a site", *(f"{heat_imbalance_kw(IT_KW, SUPPLY_DEGC, p):.1f}" for p in plants)),
        ("air warms in full racks by, K", *(f"{full_it_kw(printed) / 3 / air_kw_per_k(p):.0f}" for p in plants)),
        (f"tower fans for {IT_KW:.0f} kW of IT, kW", *(f"{crac(IT_KW, SUPPLY_DEGC, p).tower_kw:.1f}" for p in plants)),
        (f"cooling for {IT_KW:.0f} kW of IT at 18 / 23 degC, kW",
         *(f"{crac(IT_KW, 18.0, p).cooling_kw:.0f} / {crac(IT_KW, 23.0, p).cooling_kw:.0f}" for p in plants)),
        ("1000 single jobs at shares 1:2:7", placed(carry=False), placed(carry=True)),
        ("training jobs a day, at Table I's rates", *jobs_a_day(printed)),
        ("minutes a day at the peak price", peak_minutes(printed), peak_minutes(ours)),
    ]
    for what, there, here in (("", "as printed", "here"), *rows):
        print(f"{what:52} {there:>18} {here:>18}")


if __name__ == "__main__":
    main()
