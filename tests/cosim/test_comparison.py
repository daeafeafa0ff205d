"""Several runs: groups of seeds, headline figures with intervals, one axis for a signal, and the list of a folder."""

import json
import math
import shutil

import numpy as np
import pytest
from scipy import stats

from cosim import report
from cosim.campaign.statistics import interval
from cosim.errors import ScenarioError
from cosim.reporting.chart import Panel, Picture, Series
from cosim.reporting.comparison import board, each_run, groups_of, overlaid, titled
from cosim.reporting.definition import Headline
from cosim.simulators.reporting.sections import REPORT
from cosim.trace import Trace
from cosim.trace.writer import annotate


def scenario(policy, seed):
    return {"name": "day", "seed": seed, "members": {"controller": {"params": {"policy": policy}}}}


FOUR = [scenario(policy, seed) for policy in ("uniform", "green") for seed in (2, 1)]


def test_runs_that_differ_in_their_seed_alone_are_one_group():
    groups = groups_of(FOUR, ["a", "b", "c", "d"])
    assert [(g.label, g.runs, g.seeds) for g in groups] == [("uniform", (1, 0), (1, 2)), ("green", (3, 2), (1, 2))]
    assert titled(groups) == "uniform and green, 2 seeds each"
    assert titled(groups_of(FOUR[:2], ["a", "b"])) == "2 seeds of day"
    again = groups_of([FOUR[0], FOUR[0]], ["a", "b"])
    assert [g.runs for g in again] == [(0,), (1,)], "the same run twice is no second seed"


def test_figures_are_means_with_t_intervals_and_differences_go_seed_by_seed():
    groups = groups_of(FOUR, list("abcd"))
    # by seed 1, 2: uniform 2.0, 4.0 and green 3.0, 5.5: differences 1.0 and 1.5
    made = board([[Headline("cost", v, "USD")] for v in (4.0, 2.0, 5.5, 3.0)], groups)
    assert made.columns == ["", "cost, USD"]
    half = stats.t.ppf(0.975, 1) * np.std([2.0, 4.0], ddof=1) / math.sqrt(2)
    assert interval([2.0, 4.0]) == pytest.approx((3.0, half))
    assert made.rows[0] == ["uniform (2 seeds)", f"3.00 \u00b1 {half:.2f}"]
    paired = 100 * interval([1.0, 1.5])[1] / 3.0
    assert made.changes == [[""], [f"+42 \u00b1 {paired:.0f}\u202f%"]]


def test_a_column_has_one_unit_and_what_a_run_lacks_is_a_dash():
    made = each_run([[Headline("energy", 900.0, "kWh"), Headline("peak", 1e-13, "kW")],
                     [Headline("energy", 1100.0, "kWh")]], ["small", "large"])
    assert made.columns == ["", "energy, MWh", "peak, kW"]
    assert [row[1:] for row in made.rows] == [["0.900", "0"], ["1.100", "-"]]


def picture(*values, area=False):
    lines = tuple(Series(name, np.array([0.0, 60.0]), np.array(y), "ink", 120.0, area=area)
                  for name, y in zip(("a", "b"), values, strict=False))
    return Picture("p", "says", (Panel("Power", "kW", lines, axis="kw"),))


def test_the_same_signal_of_all_runs_is_on_one_axis():
    groups = groups_of(FOUR, list("abcd"))
    one = overlaid([picture((1.0, 2.0)), picture((3.0, 8.0)), picture((5.0, 5.0)), picture((5.0, 6.0))], groups)
    (panel,) = one.panels
    assert panel.title == "Power"
    first, second = panel.series
    assert first.y.tolist() == [2.0, 5.0]
    assert [edge.tolist() for edge in first.reach] == [[1.0, 2.0], [3.0, 8.0]]
    assert second.y.tolist() == [5.0, 5.5]
    assert [name for _, _, name in one.legend] == ["uniform", "green"]
    two = overlaid([picture((1.0, 2.0), (3.0, 4.0))] * 4, groups)
    assert [p.title for p in two.panels] == ["Power: a", "Power: b"]
    stack = overlaid([picture((1.0, 2.0), (3.0, 4.0), area=True)] * 4, groups)
    assert stack.panels[0].series[0].y.tolist() == [4.0, 6.0], "of a stack the sum"


def test_fifty_groups_have_colours_in_order_and_no_legend_of_fifty():
    groups = groups_of([scenario(f"p{k:02d}", 0) for k in range(50)], [str(k) for k in range(50)])
    shares = [int(g.colour.removeprefix("ramp/")) for g in groups]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(overlaid([picture((1.0, 2.0))] * 50, groups).legend) == 2


def test_the_headline_has_both_carbons_the_peak_drops_waits_and_work(traces):
    with Trace(traces["crowded"]) as trace:
        figures = json.loads(trace.attrs["summary"])["figures"]
        peak = trace["aidc/Site/p_kw"].sum(axis=1).max()
    found = {h.words: h.value for h in REPORT.headline(figures)}
    assert found["peak power"] == pytest.approx(peak)
    assert found["dropped"] == sum(v for n, v in figures.items() if n.startswith("dropped_"))
    assert found["p99 wait query"] == pytest.approx(figures["wait_p99_query_s"] / 60)
    assert {"energy", "cost", "CO2 attributed", "CO2 system", "energy per 1e9 TO served"} <= found.keys()


@pytest.mark.long
def test_seeds_of_one_policy_are_a_group_on_the_page(traces, tmp_path):
    paths = []
    for seed in range(4):
        paths.append(tmp_path / f"{seed}.h5")
        shutil.copy(traces["plain"], paths[-1])
        with Trace(paths[-1]) as trace:
            data = json.loads(trace.attrs["scenario"])
        annotate(paths[-1], {"scenario": json.dumps({**data, "seed": seed})})
    page = report.write_page(paths, tmp_path / "p.html").read_text()
    assert "4 seeds of two_bus" in page
    assert "(4\u00a0seeds)" in page
    assert "The map is that of the first of 4 runs." in page
    assert page.count("<svg") == 0


def test_a_folder_is_a_list_that_opens_any(traces, tmp_path, capsys):
    for name in ("plain", "crowded"):
        shutil.copy(traces[name], tmp_path / f"{name}.h5")
    (tmp_path / "torn.h5").write_text("nothing")
    assert report.main([str(tmp_path), "--pick", "2"]) == 0
    assert (tmp_path / "plain.html").exists()
    assert report.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 crowded.h5" in said
    index = (tmp_path / "index.html").read_text()
    assert "cannot be read" in index
    assert '<a href="plain.html">2  plain.h5</a>' in index
    assert "CO2 attributed" in index
    assert "<script" not in index
    for words in (["--pick", "4"], ["--pick", "0"], ["--figures", str(tmp_path / "f")]):
        assert report.main([str(tmp_path), *words]) == ScenarioError.exit_code
    assert report.main([str(tmp_path / "plain.h5"), "--pick", "1"]) == ScenarioError.exit_code
    assert len(capsys.readouterr().err.splitlines()) == 4
