"""Demand response: by hand in the smallest loop, baselines, files of events, refusals, both drivers, replay."""

import math

import numpy as np
import pytest
from worlds import run

from cosim.errors import ScenarioError
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import Link, Member, override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.flexibility import calls, caps, settled
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.controller.pipeline import _slack_min
from cosim.simulators.flexibility.adapter import DemandResponse
from cosim.simulators.flexibility.events import BaselineRules, DemandEvent, RandomEvents, read_events
from cosim.trace import Trace
from cosim.trace.compare import first_difference

SITES = {"a": {"node": 1}, "b": {"node": 2}}
CALL = {"start_s": "20min", "length_s": "10min", "notice_s": "5min", "reduce_percent": 25.0,
        "penalty_usd_per_kwh": 2.0, "payment_usd_per_kwh": 0.5}


def two_bus(*events, **cap):
    """`two_bus` (12 GPUs of 1 kW busy, idle 20 kW, a quarter for cooling: 40 kW) with events and caps."""
    small = find("two_bus")
    aidc = small.members["aidc"]
    return small.replace(members={
        **small.members,
        "flexibility": Member(simulator="cosim.simulators.flexibility.adapter:DemandResponse", step_s=60,
                              entities={"Site": "sites"}, params={"events": list(events)}),
        "aidc": aidc.model_copy(update={"simulator": "cosim.simulators.aidc.capped:CappedDataCenters",
                                        "params": {**aidc.params, "cap": cap}})},
        links=(*small.links, Link(source="aidc.p_kw", target="flexibility.p_kw", shift_s="step"),
               Link(source="flexibility.p_cap_kw", target="aidc.p_cap_kw"),
               *(Link(source=f"flexibility.{port}", target=f"controller.{port}")
                 for port in ("event_start_min", "event_end_min", "event_cap_kw"))))


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """45 min with a quarter less from 00:20 to 00:30."""
    return run(two_bus(CALL), tmp_path_factory.mktemp("c") / "called.h5").path


def test_an_event_by_hand(called):
    with Trace(called) as trace:
        p_kw, cap = trace["aidc/Site/p_kw"][:, 0], trace["aidc/Site/p_cap_kw"][:, 0]
        rows = trace.table("demand_response")
        # idle in the first minute (25 kW), then 40 kW; announced at 15 min, from the 15 min before: (25 + 14 x 40) / 15
        base_kw = p_kw[:15].mean()
        assert rows["baseline_kw"].tolist() == [pytest.approx(base_kw)]
        assert (rows["announced_s"][0], rows["start_s"][0], rows["end_s"][0]) == (900.0, 1200.0, 1800.0)
        assert np.isfinite(cap).nonzero()[0].tolist() == list(range(20, 30))
        assert cap[20] == pytest.approx(0.75 * base_kw)
        # of 29 to 30 kW, 20 are idle and 25 with cooling: three or four GPUs of 1.25 kW may be busy. Training gives
        # way, and of ten queries a minute so many run; what ran at 20 min is finished at 21 min
        assert (p_kw[21:30] <= cap[21:30] + 1e-6).all()
        assert (p_kw[21:30] > cap[21:30] - 1.25).all()
        assert trace["aidc/Site/busy_gpus"][21:30, 0, 0].max() == 0.0
        starts = trace["flexibility/Site/event_start_min"][:, 0]
        assert starts[14:22].tolist()[1:] == [5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0]
        assert math.isnan(starts[14])
        (event,) = settled(trace)
        delivered = [min(max(base_kw - p, 0.0), 0.25 * base_kw) for p in p_kw[20:30]]
        assert event.delivered_kwh == pytest.approx(sum(delivered) / 60.0)
        assert event.shortfall_kwh == pytest.approx(0.25 * base_kw / 6.0 - sum(delivered) / 60.0)
        assert event.penalty_usd == pytest.approx(2.0 * event.shortfall_kwh)
        assert event.payment_usd == pytest.approx(0.5 * event.delivered_kwh)
        assert event.rebound_kwh == pytest.approx(np.maximum(p_kw[30:40] - base_kw, 0.0).sum() / 60.0)
        assert event.rebound_kwh > 0.5  # what waited is worked off
        figures = summary(trace).figures
        assert figures["dr_compliance_ratio"] == pytest.approx(event.compliance_ratio)
        excess = trace["aidc/Site/cap_excess_kw"][:, 0]
        assert excess.nonzero()[0].tolist() == ([20] if p_kw[20] > cap[20] else [])


def test_its_laws_hold_and_a_tampered_cap_is_found(called):
    with Trace(called) as trace:
        digest = verify(trace)
        assert not digest.broken
        held = {row[0][:12] for row in digest.tables[0].rows if row[3] == "holds"}
        assert {"beyond a cap", "called = ann"} <= held


class Tampered:
    """A trace in which one series is another."""

    def __init__(self, trace, path, change):
        self._trace, self._path, self._change = trace, path, change

    def __getattr__(self, name):
        return getattr(self._trace, name)

    def __getitem__(self, path):
        return self._trace[path] + (self._change if path == self._path else 0.0)


@pytest.mark.parametrize("path", ["aidc/Site/cap_excess_kw", "aidc/Site/p_cap_kw", "flexibility/Site/p_cap_kw",
                                  "flexibility/Site/called_kw", "flexibility/Site/baseline_kw", "aidc/Site/p_kw"])
def test_what_is_changed_breaks_a_law(called, path):
    with Trace(called) as trace:
        assert all(law(trace).worst <= law(trace).allowed for law in (caps, calls))
        changed = Tampered(trace, path, 0.5)
        assert any(law(changed).worst > law(changed).allowed for law in (caps, calls))


@pytest.mark.long
def test_both_drivers_write_the_same(called, tmp_path):
    assert first_difference(called, run(two_bus(CALL), tmp_path / "m.h5", "mosaik").path) is None


@pytest.mark.long(after=1)
@pytest.mark.parametrize("member", ["flexibility", "aidc", "workload", "tariff"])
def test_a_played_member_changes_nothing(called, tmp_path, member):
    path = run(replay(two_bus(CALL), member, called), tmp_path / "t.h5").path
    with Trace(called) as one, Trace(path) as two:
        for model in {*one.models()} & {*two.models()}:
            for port in two.ports(model):
                assert one[f"{model}/{port}"].tobytes() == two[f"{model}/{port}"].tobytes(), (model, port)
        if member == "flexibility":
            assert any("no event is settled" in warning for warning in summary(two).warnings)


def test_a_site_that_may_not_touch_what_runs_says_so(tmp_path):
    scenario = two_bus({**CALL, "reduce_percent": 60.0}, gives_way=["inf"], running="keep")
    result = run(scenario, tmp_path / "t.h5")
    assert any("aidc1: drew more than its cap for 00:10" in note for note in result.notes), result.notes
    assert result.digest.figures["dr_shortfall_kwh"] > 0.0


# --- targets and baselines ------------------------------------------------------------------------------------------


def called_of(events, power_kw, minutes, **params):
    """Outputs of a member that is fed constant or given power, minute by minute: [{site: values}]."""
    member = DemandResponse()
    member.init("flexibility", 60.0, step_s=60.0, sites=SITES, events=events, **params)
    member.create(2, "Site", ["a", "b"])
    member.setup_done()
    return [member.advance(60.0 * k, {s: {"p_kw": power_kw(s, k - 1)} for s in SITES}) for k in range(minutes)]


@pytest.mark.parametrize(("target", "called", "cap"), [
    ({"reduce_percent": 50.0}, (150.0, 50.0), (150.0, 50.0)),
    ({"reduce_kw": 100.0}, (75.0, 25.0), (225.0, 75.0)),
    ({"reduce_kw": 800.0}, (600.0, 200.0), (0.0, 0.0)),  # more than they draw is a shortfall, and no smaller call
    ({"cap_kw": 100.0}, (225.0, 75.0), (75.0, 25.0)),
    ({"cap_kw": 800.0}, (0.0, 0.0), (600.0, 200.0)),
    ({"site": "b", "reduce_kw": 30.0}, (0.0, 30.0), (math.nan, 70.0))])
def test_a_fleets_target_is_shared_by_baselines(target, called, cap):
    event = {"start_s": 1800.0, "length_s": 60.0, **target}
    now = called_of([event], lambda site, _: 300.0 if site == "a" else 100.0, 31)[-1]
    assert [now[s]["called_kw"] for s in SITES] == pytest.approx(called)
    assert [now[s]["p_cap_kw"] for s in SITES] == pytest.approx(cap, nan_ok=True)


def test_the_baseline_of_meter_before_is_the_mean_until_the_announcement():
    event = {"start_s": 1800.0, "length_s": 60.0, "notice_s": 600.0, "site": "a", "reduce_percent": 10.0}
    now = called_of([event], lambda _, k: float(k), 31, baseline={"before_s": "5min"})[-1]["a"]
    assert now["baseline_kw"] == np.mean([15, 16, 17, 18, 19])  # minutes 15 to 20


def test_the_baseline_of_same_hours_leaves_days_with_events_out():
    day = 86400.0
    events = [{"start_s": d * day + 3600.0, "length_s": 120.0, "site": "a", "reduce_percent": 10.0} for d in (2, 4)]
    events.append({"start_s": 4 * day + 3660.0, "length_s": 60.0, "site": "b", "reduce_percent": 10.0})
    power = {60: 10.0, 61: 20.0}
    out = called_of(events, lambda _, k: power.get(k % 1440, 0.0) * (1 + k // 1440), 4 * 1440 + 62,
                    baseline={"kind": "same_hours", "days": 2})
    # site a on day 4: days 3 and 1 (day 2 has an event), of 15 kW x (1 + day); site b: days 3 and 2
    assert out[2 * 1440 + 60]["a"]["baseline_kw"] == np.mean([15.0 * 2, 15.0])
    assert out[-1]["a"]["baseline_kw"] == np.mean([15.0 * 4, 15.0 * 2])
    assert out[-1]["b"]["baseline_kw"] == np.mean([20.0 * 4, 20.0 * 3])


def test_drawn_events_repeat_with_the_seed_and_never_overlap():
    rules, drawn = BaselineRules(), RandomEvents(per_day=6, length_s=1800.0)
    starts = []
    for seed in (1, 1, 2):
        member = DemandResponse()
        member.init("flexibility", 60.0, step_s=60.0, seed=seed, sites=SITES, random={"per_day": 6, "length_s": 1800.0})
        member.create(2, "Site", ["a", "b"])
        member.setup_done()
        for k in range(2880):
            member.advance(60.0 * k, {s: {"p_kw": 100.0} for s in SITES})
        starts.append([(e.start_s, e.end_s) for e in member._events])
    assert starts[0] == starts[1] != starts[2]
    assert len(starts[0]) > 4
    for (_, end_s), (begin_s, _) in zip(starts[0], starts[0][1:], strict=False):
        assert begin_s - drawn.notice_s >= end_s
        assert begin_s % 60.0 == 0.0
    assert starts[0][0][0] >= rules.before_s + drawn.notice_s


def test_the_guard_counts_the_rest_of_an_announced_event_as_standing_still():
    class Seen:
        slack_min = (300.0, 300.0, 300.0)
        event_start_min, event_end_min = (math.nan, 10.0, 0.0), (math.nan, 190.0, 60.0)

    assert [_slack_min(Seen, i) for i in range(3)] == [300.0, 120.0, 240.0]


# --- files and refusals ---------------------------------------------------------------------------------------------

HEAD = "start_h,length_min,notice_min,site,reduce_percent,reduce_kw,penalty_usd_per_kwh\n"


def test_a_file_of_events(tmp_path):
    (tmp_path / "e.csv").write_text(HEAD + "1,30,10,fleet,25,,0.5\n2.5,15,0,a,,40,\n")
    one, two = (placed.event for placed in read_events(str(tmp_path / "e.csv"), "flexibility.events"))
    assert one == DemandEvent(3600.0, 1800.0, 600.0, None, None, 25.0, penalty_usd_per_kwh=0.5)
    assert two == DemandEvent(9000.0, 900.0, 0.0, "a", 40.0)


@pytest.mark.parametrize(("rows", "said"), [
    ("1,30,10,,25,,\n1.25,30,10,a,25,,\n", r"e.csv, line 3: the event at 01:15 overlaps the one of .*line 2,"),
    ("1,0,10,,25,,\n", r"e.csv, line 2: event.length_s = 0.0: input should be greater than 0"),
    ("1,-5,10,,25,,\n", r"e.csv, line 2: event.length_s = -300.0: input should be greater than 0"),
    ("-1,30,10,,25,,\n", r"e.csv, line 2: event.start_s = -3600.0: input should be greater than or equal to 0"),
    ("0.1,30,10,,25,,\n", r"line 2: the event at 00:06 is announced 00:04 before the run starts; let it"),
    ("0.3,30,10,,25,,\n", r"line 2: the event at 00:18 is announced at 00:08, before there is a baseline of 00:15"),
    ("1,30,10,aa,25,,\n", r"line 2: unknown site 'aa'; did you mean 'a'"),
    ("1,30,10,,25,40,\n", r"line 2: event = .*an event has one target.*this one has reduce_kw and reduce_percent"),
    ("1,30,10,,,,\n", r"line 2: .*an event has one target, .*this one has none"),
    ("1,30,10,,125,,\n", r"line 2: event.reduce_percent = 125.0: input should be less than or equal to 100"),
    ("1,x,10,,25,,\n", r"line 2: length_min = 'x' is no number"),
    ("1,nan,10,,25,,\n", r"line 2: event.length_s = nan"),
    ("1,0.5,10,,25,,\n", r"line 2: length_s = 30 is not a whole number of steps \(60 s\)"),
    ("1,30,10\n", r"line 2: the row has not as many cells as there are columns"),
    ("1,30,10,,25,,,9\n", r"line 2: the row has not as many cells as there are columns")])
def test_rows_that_cannot_be_are_refused_before_the_run(tmp_path, rows, said):
    (tmp_path / "e.csv").write_text(HEAD + rows)
    given = DemandResponse.PARAMS(sites=SITES, events=str(tmp_path / "e.csv"))
    with pytest.raises(ScenarioError, match=said) as refused:
        DemandResponse.check_horizon("flexibility", given, 60.0, 86400.0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("event", "said"), [
    ({"start_s": "13h", "length_s": "0s", "reduce_percent": 25}, r"events.1.length_s = '0s': input should be greater"),
    ({"start_s": "13h", "length_s": "1h", "reduce_percent": 0}, r"events.1.reduce_percent = 0: input should be"),
    ({"start_s": "13h", "length": "1h", "reduce_percent": 5},
     r"unknown field of flexibility.events.1 'length'; did you mean"),
    ({"start_s": "13h", "length_s": "1h"}, r"an event has one target")])
def test_an_event_of_the_scenario_that_cannot_be_is_named(event, said, tmp_path):
    good = {"start_s": "2h", "length_s": "1h", "reduce_percent": 25}
    with pytest.raises(ScenarioError, match=said) as refused:
        run(two_bus(good, event), tmp_path / "t.h5")
    assert "flexibility.events" in str(refused.value)


def test_other_refusals(tmp_path):
    for head, said in (("start_h,reduce_percent\n", "no column for the length"),
                       ("start_h,length_d,x\n", "unknown column"),
                       ("start_h,start_min,length_h\n", "two columns for start_s")):
        (tmp_path / "e.csv").write_text(head)
        with pytest.raises(ScenarioError, match=said):
            read_events(str(tmp_path / "e.csv"), "flexibility.events")
    with pytest.raises(ScenarioError, match=r"flexibility.events: no file at"):
        read_events(str(tmp_path / "none.csv"), "flexibility.events")
    one = DemandEvent(3600.0, 60.0, cap_kw=1.0)
    two = DemandResponse.PARAMS(sites=SITES, events=[one], random=RandomEvents(per_day=1))
    with pytest.raises(ScenarioError, match="has events and random ones"):
        DemandResponse.check_horizon("flexibility", two, 60.0, 86400.0)
    old = DemandResponse.PARAMS(sites=SITES, events=[one], baseline=BaselineRules(kind="same_hours"))
    with pytest.raises(ScenarioError, match="has no earlier day without an event in its hours"):
        DemandResponse.check_horizon("flexibility", old, 60.0, 86400.0)


def test_the_shipped_scenario_complies(tmp_path):
    """-25 % for 3 h at 10 min notice; here the same of a quarter of an hour, early in the night."""
    short = {"start_s": "45min", "length_s": "15min", "notice_s": "10min", "reduce_percent": 25.0}
    result = run(override(find("ieee33_flex"), {"flexibility.events": [short], "controller.policy": "uniform"}),
                 tmp_path / "t.h5", until_s=4500.0)
    assert result.digest.figures["dr_compliance_ratio"] > 0.98
