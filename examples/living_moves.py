"""Follow the average or the marginal intensity through a day whose carbon lives: what a move of 100 kW saves, and when.

    python examples/living_moves.py

The grid of the scenario ieee33_living with 270 kW at each of its three data centers. Every two hours 100 kW move from
the site with the highest to the one with the lowest intensity, by NCI and by MCI, and the feeder is dispatched anew:
kg/h that the sites are attributed, and that all sources emit at the intensity of one more kWh of each.
"""

import numpy as np

from cosim.params import validate
from cosim.scenarios._study import SITES
from cosim.scenarios.ieee33_living import SCENARIO
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.mci import MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.source_series import SourceSeries
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.params import GridParams
from cosim.simulators.profile import SHAPES

BUSES, ETA, SITE_KW, MOVED_KW = [site["node"] for site in SITES.values()], 0.2, 270.0, 100.0
FEEDER = read_feeder("case33bw")
HEAD = "hour  NCI of the sites   MCI of the sites   " + "  ".join(
    f"{f'by {name}':>6} {'attributed':>10} {'system':>7}" for name in ("NCI", "MCI"))


class Day:
    """The feeder of the scenario at any time of its day."""

    def __init__(self) -> None:
        params = validate(GridParams, SCENARIO.members["grid"].params, "grid")
        limits, q_per_p = Limits(1.0, 0.9, 1.1, params.lambda_kw_per_kg_h), np.zeros(FEEDER.n_bus)
        q_per_p[BUSES] = ETA
        self.series = SourceSeries(params.sources, "grid", None)
        steady, moves = self.series.steady(), self.series.varying["p_max_kw"]
        self.dispatch = Dispatch(FEEDER, steady, limits, "clarabel", moves=moves)
        self.mci = MciOfDispatch(FEEDER, steady, limits, q_per_p, BUSES, moves)

    def go_to(self, hour: float) -> None:
        """Sources and base load as they are then."""
        now = self.series.at(hour * 3600.0, {})
        for of in (self.dispatch, self.mci):
            of.recolour(now.kg_per_kwh, now.marginal_kg_per_kwh)
            of.make_available(now.p_max_kw / FEEDER.base_kw)
        self.factor = SHAPES["ieee33_light"][int(hour * 4)]

    def at(self, site_kw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """NCI and MCI of the sites, and kg/h: (attributed, emitted at marginal intensities)."""
        p_kw, q_kvar = FEEDER.p_kw * self.factor, FEEDER.q_kvar * self.factor
        p_kw[BUSES] += site_kw
        q_kvar[BUSES] += ETA * site_kw
        result = self.dispatch.solve(p_kw, q_kvar)
        nci, mci = result.nci_kg_per_kwh[BUSES], self.mci.of(result).up_kg_per_kwh[BUSES]
        return nci, mci, np.array([nci @ site_kw, result.p_source_kw @ result.sources.marginal_kg_per_kwh])


def moved(intensity: np.ndarray) -> tuple[np.ndarray, str]:
    """Power of the sites after the move, and from which to which."""
    site_kw, worst, best = np.full(3, SITE_KW), int(intensity.argmax()), int(intensity.argmin())
    site_kw[worst] -= MOVED_KW
    site_kw[best] += MOVED_KW
    return site_kw, f"{worst + 1} to {best + 1}"


def main() -> None:
    """A line every two hours, and the sums of the day."""
    day, sums = Day(), np.zeros(4)
    print(HEAD)
    for hour in range(0, 24, 2):
        day.go_to(hour)
        nci, mci, before = day.at(np.full(3, SITE_KW))
        text, changes = "", []
        for intensity in (nci, mci):
            site_kw, way = moved(intensity)
            change = day.at(site_kw)[2] - before
            changes += change.tolist()
            text += f"  {way:>6} {change[0]:10.1f} {change[1]:7.1f}"
        sums += changes
        print(f"{hour:4}  {' '.join(f'{w:5.3f}' for w in nci)}  {' '.join(f'{w:5.3f}' for w in mci)}{text}")
    own_nci, system_nci, own_mci, system_mci = sums * 2.0
    print(f"kg a day, each hour like the one before: by NCI {own_nci:.0f} attributed, {system_nci:.0f} system; "
          f"by MCI {own_mci:.0f} attributed, {system_mci:.0f} system")


if __name__ == "__main__":
    main()
