"""What the paper's evaluation claims, as a table of data: where it stands, in our words, and what is measured for it.

A claim names a measure of `cosim.agents.study.measures` and what it takes; the verdict follows from that by the rules
of `cosim.agents.study.verdicts`. No result is an input here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ONE = ("ieee33", "table2")
DAYS = ("ieee33", "table2", "living")
BY_LOAD = ("arrivals fixed", "arrivals grow with N")
SMALL = 0.1
"""Percent: a difference up to which two figures count as the same."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the paper.

    key, where  its name here; the table or figure (a part of the study)
    about       the claim in our words
    measure     function of `cosim.agents.study.measures`; takes: its further arguments
    worlds      in which it is judged, one by one
    trained     it compares learners, which no rule can stand in for
    apart       (figure of Table II, percent): where all rows of the table agree within that, the claim is impossible
                here; why: the reason
    printed     the figures that the paper prints for it
    no_policy   no policy plays a part in it
    """

    key: str
    where: str
    about: str
    measure: str
    worlds: tuple[str, ...] = ONE
    takes: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False
    apart: tuple[str, float] | None = None
    why: str = ""
    printed: str = ""
    no_policy: bool = False


_NO_DROPS = ("the jobs that arrive fit the GPUs that there are, and a deferral is never a certain drop, so that hardly "
             "a job is dropped, whoever decides; the printed job sizes would need eight times the GPUs")
_ONE_PUE = ("supply air has no trade-off in (19)-(24): the warmest is always best, and PUE is then a constant of the "
            "plant, whatever its load")
_LESS, _MORE = {"sign": -1}, {"sign": +1}


def _modes(key: str, says: str, metric: str, sign: int, printed: str, **more: Any) -> Claim:
    """A claim about joint mode less power mode, for each method."""
    return Claim(key, "table2", says, "joint_less_power", takes={"metric": metric, "sign": sign}, printed=printed,
                 **more)


def _best(key: str, says: str, metric: str, sign: int, printed: str, **more: Any) -> Claim:
    """A claim that in joint mode the proposed method has more (or less) of something than each other method."""
    return Claim(key, "table2", says, "team_less_others", takes={"metric": metric, "sign": sign}, trained=True,
                 printed=printed, **more)


CLAIMS = (
    _modes("modes-carbon", "joint mode emits less than power mode, with every method", "co2_t", -1,
           "MAT 9.77 and 12.09 t"),
    _modes("modes-efficiency", "joint mode draws more energy per tonne, with every method", "mwh_per_t", +1,
           "MAT 1.69 and 1.67 MWh/t"),
    _modes("modes-throughput", "power mode does more work, with every method", "throughput", -1,
           "MAT 65.67 and 70.69 M TO/min"),
    _modes("modes-cost", "power mode pays more, as it does more work", "cost_usd", -1, "MAT 2085 and 2555 USD"),
    _modes("modes-drops", "power mode drops fewer jobs", "dropped", +1, "MAT 419 and 45 jobs",
           apart=("dropped", 0.0), why=_NO_DROPS),
    _best("best-carbon", "in joint mode MAT emits least", "co2_t", -1, "9.77 t; others 10.01 to 10.58"),
    _best("best-efficiency", "in joint mode MAT draws most energy per tonne", "mwh_per_t", +1,
          "1.69; others 1.65 to 1.68"),
    _best("best-throughput", "in joint mode MAT does most work", "throughput", +1,
          "65.67; others 54.24 to 64.60 M TO/min"),
    _best("best-drops", "in joint mode MAT drops fewest jobs", "dropped", -1, "419; others 6207 to 14885",
          apart=("dropped", 0.0), why=_NO_DROPS),
    Claim("best-pue", "table2", "MAT in joint mode has the lowest PUE of all", "team_less_all",
          takes={"metric": "pue", "sign": -1}, printed="1.08; others 1.13 to 1.39", apart=("pue", 1.0), why=_ONE_PUE),
    Claim("magnitudes", "table2", "the figures of a day, as printed", "printed_day", ("table2",),
          printed="65.67 M TO/min, 2085 USD, 9.77 t, 1.69 MWh/t, PUE 1.08",
          why="energy, carbon, throughput and PUE of one printed row do not fit together, and the printed parameters "
              "need eight times the GPUs: no figure is compared, orders are"),
    Claim("sizes", "table3", "the sizes of flat and hierarchical action spaces for 2 to 5 sites", "action_spaces",
          ("formulas",), no_policy=True, printed="4.29e25 to 4.67e65, 1.08e11 to 1.27e12"),
    Claim("reward-autoregressive", "fig6", "MAT and MAT-Dec end with more reward than Transformer and MAPPO",
          "objective_order", ("ieee33",), {"better": ("mat", "mat-dec"), "worse": ("transformer", "mappo")}, True),
    Claim("reward-joint-decoder", "fig6", "MAT ends with more reward than MAT-Dec", "objective_order", ("ieee33",),
          {"better": ("mat",), "worse": ("mat-dec",)}, True),
    Claim("nci-order", "fig7", "NCI is lowest at AIDC 1 and highest at AIDC 3", "site_order", DAYS,
          {"figure": "nci_kg_per_kwh", **_LESS}, printed="0.420 and 0.841"),
    Claim("jobs-order", "fig7", "AIDC 1 is sent most training jobs and AIDC 3 fewest", "site_order", DAYS,
          {"figure": "train_jobs_share", **_MORE}),
    Claim("inference-order", "fig7", "AIDC 1 is sent most inference jobs and AIDC 3 fewest", "site_order", DAYS,
          {"figure": "inf_jobs_share", **_MORE}),
    Claim("power-nci", "fig7", "where and when NCI is higher, less power is drawn", "site_figure", DAYS,
          {"figure": "nci_power_rank_correlation", **_LESS}),
    Claim("power-nci-beyond-uniform", "fig7",
          "and more so than under equal shares, where load lowers NCI all by itself", "site_less_uniform", DAYS,
          {"figure": "nci_power_rank_correlation", **_LESS}),
    Claim("power-nci-open", "fig7", "the same with intensities that the team's own load cannot move (those of a run of "
          "uniform, replayed)", "site_figure_open", ("ieee33",), {"figure": "nci_power_rank_correlation", **_LESS}),
    Claim("pue-order", "fig7", "AIDC 1 has the best PUE and AIDC 3 the worst", "site_order", DAYS,
          {"figure": "pue", **_LESS, "nothing": 0.005}, apart=("pue", 1.0), why=_ONE_PUE),
    Claim("share-up", "fig8", "AIDC 1's share of training jobs is above a third and AIDC 3's below",
          "site_shares", DAYS),
    Claim("share-same", "fig8", "AIDC 2's share hardly changes: within 0.05 of a third", "middle_share", DAYS),
    Claim("peak-deferred", "fig8", "training jobs that arrive at the peak price start at the lowest one: most of them",
          "site_figure", DAYS, {"figure": "peak_to_off_peak", "band": (0.5, 1.0)}, printed="11-15 h to 19-23 h"),
    Claim("waits-alike", "fig8", "mean waits of the three sites are alike: within 0.5 h of one another", "waits_alike",
          DAYS, printed="3.62, 3.61 and 3.64 h"),
    Claim("share-nci", "fig9", "where and when NCI is lower, the share of jobs is larger", "site_figure", DAYS,
          {"figure": "nci_share_rank_correlation", **_LESS}),
    Claim("share-nci-within", "fig9", "the same within each site, over the hours of the day", "within_site", DAYS,
          {"figure": "nci_share_within_site"}),
    Claim("dynamic-carbon", "fig10", "dynamic shares emit less than both static ones", "team_less_fixed",
          takes={"metric": "co2_t", **_LESS}),
    Claim("dynamic-carbon-served", "fig10", "the same per work served, as who drops work saves its emission",
          "team_less_fixed", takes={"metric": "kg_per_gto", **_LESS}),
    Claim("dynamic-drops", "fig10", "dynamic shares drop fewer jobs than both static ones", "team_less_fixed",
          takes={"metric": "dropped", **_LESS}),
    Claim("imbalance-carbon", "fig10", "the more imbalanced the static shares, the more is emitted", "fixed_order",
          takes={"metric": "co2_t", **_MORE}),
    Claim("imbalance-carbon-served", "fig10", "the same per work served", "fixed_order",
          takes={"metric": "kg_per_gto", **_MORE}),
    Claim("imbalance-drops", "fig10", "the more imbalanced the static shares, the more jobs are dropped", "fixed_order",
          takes={"metric": "dropped", **_MORE}),
    Claim("ratio-cost", "fig11a", "a larger c2/c3 lowers the cost", "over_ratio", ("ieee33",),
          {"metric": "usd_per_gto", **_LESS}),
    Claim("ratio-carbon", "fig11a", "a larger c2/c3 raises the emission", "over_ratio", ("ieee33",),
          {"metric": "kg_per_gto", **_MORE}),
    Claim("lambda-flat", "fig11b", "up to lambda = 0.1 losses stay as they are: within 1 % of those at 0",
          "loss_growth", ("load 1", "load 0.75", "load 0.4"), {"at": 0.1, "band": (-0.1, 1.0)}, no_policy=True),
    Claim("lambda-beyond", "fig11b", "beyond 0.1 emission falls and losses rise", "lambda_trade",
          ("load 1", "load 0.75", "load 0.4"), {"low": 0.1, "high": 1.0}, no_policy=True),
    Claim("lambda-threshold", "fig11b", "the trade-off begins at about 0.1 (a tenth of what can be saved: 0.05 to 0.2)",
          "lambda_threshold", ("load 1", "load 0.75", "load 0.4"), {"band": (0.05, 0.2)}, no_policy=True),
    Claim("lambda-chosen", "fig11b", "at lambda = 0.01 the losses are those at 0: within 1 %", "loss_growth",
          ("load 1", "load 0.75", "load 0.4"), {"at": 0.01, "band": (-0.1, 1.0)}, no_policy=True),
    Claim("reward-sites", "fig12", "the reward rises with the number of sites", "over_sites", BY_LOAD, {**_MORE}),
    Claim("benefit-cost", "fig13", "joint mode costs less than power mode, with 3, 4 and 5 sites", "benefit", BY_LOAD,
          {"metric": "cost_usd"}),
    Claim("benefit-carbon", "fig13", "joint mode emits less than power mode, with 3, 4 and 5 sites", "benefit", BY_LOAD,
          {"metric": "co2_t"}),
    Claim("benefit-cost-grows", "fig13", "the relative saving of cost grows with the number of sites", "benefit_grows",
          BY_LOAD, {"metric": "cost_usd"}),
    Claim("benefit-carbon-grows", "fig13", "the relative saving of carbon grows with the number of sites",
          "benefit_grows", BY_LOAD, {"metric": "co2_t"}),
)

TABLE3 = {2: ("4.29e25", "1.08e11", "3.96e14"), 3: ("3.01e39", "1.62e11", "1.85e28"),
          4: ("5.75e52", "2.23e11", "2.57e41"), 5: ("4.67e65", "1.27e12", "3.67e53")}
"""Table III as printed: sites -> flat, hierarchical, ratio."""

TABLE2 = {
    ("mappo", "joint"): (59.86, 1886.47, 10.54, 10627, 1.65, 1.16),
    ("mappo", "power"): (63.73, 1960.69, 10.80, 6196, 1.60, 1.15),
    ("transformer", "joint"): (54.24, 1859.21, 10.58, 14885, 1.68, 1.15),
    ("transformer", "power"): (55.62, 1866.52, 10.67, 7617, 1.62, 1.14),
    ("mat-dec", "joint"): (64.60, 2142.61, 10.01, 6207, 1.67, 1.13),
    ("mat-dec", "power"): (69.65, 2249.08, 10.94, 401, 1.62, 1.18),
    ("mat", "joint"): (65.67, 2084.77, 9.77, 419, 1.69, 1.08),
    ("mat", "power"): (70.69, 2554.95, 12.09, 45, 1.67, 1.39),
}
"""Table II as printed: (method, mode) -> the figures of `TABLE2_METRICS`."""
TABLE2_METRICS = {"throughput": ("throughput, M TO/min", 2), "cost_usd": ("cost, USD/day", 0),
                  "co2_t": ("CO2, t/day", 2), "dropped": ("dropped jobs/day", 1), "mwh_per_t": ("MWh/t", 3),
                  "pue": ("PUE", 3)}
"""Figure -> how it is called, and how many digits it has."""
FURTHER_METRICS = {"energy_mwh": ("energy, MWh/day", 2), "system_co2_t": ("CO2 of all sources, t/day", 2),
                   "served_gto": ("work served, 1e9 TO/day", 1), "usd_per_gto": ("USD per 1e9 TO served", 2),
                   "kg_per_gto": ("kg CO2 per 1e9 TO served", 1), "objective": ("objective (32) per day", 2)}
"""What stands beside them, since a policy that drops or postpones work also saves power."""
