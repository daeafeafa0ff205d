"""What a request may ask for, and messages that stay short however long what they speak of is."""

import time
from pathlib import Path

import pytest

from cosim import limits
from cosim.drivers.resolve import resolve
from cosim.errors import LONGEST, CosimError, ScenarioError, first_line, listed, shown, unknown
from cosim.experiment import Experiment
from cosim.run import find, main
from cosim.scenario import Scenario, override
from cosim.tables.table import DataTable, TableOptions
from cosim.units import LONGEST_S, parse_duration, split_unit

DEEP = "[" * 900 + "]" * 900


def refused(capsys, *arguments: str) -> str:
    """The one line with which a command line is refused."""
    assert main([*arguments, "--quiet"]) in (2, 5)
    said = capsys.readouterr().err
    assert said.startswith("cosim: ")
    assert said.count("\n") == 1
    assert "internal error" not in said
    assert len(said) <= LONGEST + len("cosim: \n")
    return said


@pytest.mark.parametrize("driver", ["native", "mosaik"])
@pytest.mark.parametrize(("arguments", "says"), [
    (["--until", "1e300d"], "'1e300d' is too long; a duration is at most 366000d"),
    (["--until", "1e9d"], "'1e9d' is too long"),
    (["--until", "366000d"], "5.27e+08 steps of 60 s, at most 1e+08"),
    (["--until", "1e-300s"], "is not a whole number of bus steps of 60 s; nearest: 60 s"),
    (["--until", "1e-9s"], "is not a whole number of bus steps"),
    (["--until", "1h", "--set", "warmup_s=1e300"], "warmup_s = 1e+300: input should be less than or equal to"),
    (["--set", "resolution_s=1e-300"], "resolution_s = 1e-300: input should be greater than or equal to 0.001"),
    (["--set", "resolution_s=0.001", "--until", "10d"], "8.64e+08 steps of 0.001 s"),
    (["--rt-factor", "1e300"], "rt_factor = 1e+300"),
    (["--set", "start=9999-12-31"], "a year from 1900 to 2200"),
    (["--set", "start=2026-01-01T00:00:00+02:00"], "leave out the offset"),
    (["--set", "tariff.deferrals_s=[1e300]"], "tariff.deferrals_s.0 = 1e+300"),
])
def test_times_are_checked_before_a_run(driver, arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "two_bus", "--driver", driver, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("setting", "says"), [
    ("aidc.trace_step_s=1e-9", "aidc.trace_step_s = 1e-09: input should be greater than or equal to 0.001"),
    ("shared.sites.aidc1.racks=1000000000", "racks = 1000000000: input should be less than or equal to 100000"),
    ("shared.sites.aidc1.idle_kw=1e300", "idle_kw = 1e+300: a number here lies within +-1e+09 kW"),
    ("aidc.initial_supply_temp_degc=1e300", "a number here lies within +-10000 degC"),
    ("workload.bursts={'x'", "workload.bursts"),
    ('workload.bursts={"chat":{"ratio":2,"mean_burst_s":1e-9,"mean_calm_s":1}}', "mean_burst_s = 1e-09"),
    ("aidc.rack_mean_up_s=1e-9", "greater than or equal to 60"),
    (f"tariff.base_usd_per_kwh={DEEP}", "nested"),
    (f"tariff.base_usd_per_kwh={DEEP * 100}", "tariff"),
    ("tariff.base_usd_per_kwh=" + "[" * 100_000, "nested at most 32 levels"),
    ("tariff." + "a." * 2000 + "b=1", "a path has at most 32 dots"),
    ("tariff." + "b" * 100_000 + "=1", "unknown field of tariff 'bbb"),
    ("x" * 100_000 + ".a=1", "unknown member 'xxx"),
    ("x" * 100_000, "write member.field=value"),
    ('tariff.prices="\\ud800"', "is no Unicode text"),
    ('tariff={"\\ud800": 1}', "name a field"),
    ('shared.sites={"\\ud800": {"node": 1}}', "is no Unicode text"),
    ("tariff.prices=\udcff", "is no UTF-8 text"),
    ("tariff.base_usd_per_kwh=" + "9" * 4000, "number here lies within"),
    ("tariff.base_usd_per_kwh=" + "x" * 149_000, "input should be a valid number"),
    ("grid.network=" + "n" * 100_000, "unknown network"),
    ("controller.policy=" + "n" * 100_000, "policy"),
    ("aidc.simulator=" + "n" * 100_000, "is not an import string"),
    ("tariff.scenario_start=2020-01-01", "has no effect, as the run fills it in: it is 2026-01-01T00:00:00, by start"),
])
def test_settings_are_refused_in_a_short_line(setting, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "two_bus", "--until", "1min", "--driver", "native", "--set", setting)
    assert not list(tmp_path.iterdir())


def test_memory_is_checked_against_what_is_free_and_says_the_figures(monkeypatch):
    """two_bus records at most some hundred numbers a minute: a day takes less than 1 GiB, and more than 64 KiB."""
    scenario = find("two_bus").replace(until_s=86400.0, flush_s=86400.0)
    monkeypatch.setattr(limits, "free_bytes", lambda: 1 << 16)
    with pytest.raises(ScenarioError, match=r"flush_s = 86400 s: \S+ numbers take \S+ GiB of memory, \S+ GiB are free; "
                                            r"write more often: --set flush_s=1h"):
        Experiment(scenario, "native", 86400.0, out=Path("never.h5")).run()
    assert not Path("never.h5").exists()
    with pytest.raises(ScenarioError, match=r"aidc.trace_step_s = 0.001: 2\.88e\+07 numbers take 0\.858 GiB"):
        resolve(override(find("two_bus"), {"aidc.trace_step_s": 0.001, "flush_s": "1h"}))  # 3.6e6 rows x 8 x 32 B
    monkeypatch.setattr(limits, "free_bytes", lambda: 1 << 40)
    assert resolve(override(find("two_bus"), {"aidc.trace_step_s": 0.001})).until > 0


def test_a_value_is_shown_short_however_deep_and_long():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, list(range(10**6)), {k: k for k in range(10**5)}, 10**5000, b"x" * 10**6):
        assert len(shown(value)) <= 80
    while deep:
        deep = deep.pop()  # from within: Python frees a deep list by recursion
    assert shown("a") == "'a'"
    assert shown(1.5) == "1.5"
    assert shown({"a": [1, 2]}) == "{'a': [1, 2]}"


def test_names_are_listed_as_far_as_there_is_room():
    assert listed(["a", "b"]) == "a, b"
    assert listed([]) == "none"
    many = listed(f"bus{k}" for k in range(10**5))
    assert len(many) < 300
    shown_names, _, rest = many.partition(" and ")
    assert shown_names.count(",") + 1 + int(rest.split()[0]) == 10**5
    assert len(unknown("bus", "b" * 10**6, ["a" * 10**6] * 5)) <= LONGEST
    assert len(str(CosimError("x" * 10**6))) == LONGEST
    assert str(CosimError("x" * 10**6 + "what to do")).endswith("what to do")
    assert str(CosimError("short")) == "short"


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', "[" * 10**5, '{"a":' * 10**5, '{"self": 1}', "{", "\x00",
                                  '{"name": "\\ud800", "about": "x", "members": {"a": {}}}'])
def test_what_is_no_scenario_is_said_so(text):
    with pytest.raises(ScenarioError):
        Scenario.from_json(text)


def test_a_unit_is_found_without_looking_at_all_of_a_long_name():
    begin = time.process_time()
    assert split_unit("a_" * 10**5 + "kw_per_kg_h")[1].symbol == "kW/(kg/h)"
    assert time.process_time() - begin < 5.0  # each length of suffix in turn would take hours


def test_a_thousand_years_is_a_duration_and_more_is_not():
    assert parse_duration("366000d") == LONGEST_S
    with pytest.raises(ScenarioError, match="too long"):
        parse_duration("366001d")


@pytest.mark.long
def test_a_table_of_a_hundred_thousand_columns_is_read(tmp_path):
    """Each column is looked up once: what looked through all of them for each took minutes."""
    wide = tmp_path / "wide.csv"
    count = 100_000
    names = [f"bus{k}.p_kw" for k in range(count)]
    wide.write_text(f"time_s,{','.join(names)}\n" + "".join(f"{t}{',1.5' * count}\n" for t in (0, 60)))
    table = DataTable(wide, TableOptions("grid.", None))
    assert table.entities("p_kw") == [f"bus{k}" for k in range(count)]
    assert table.values("p_kw", table.entities("p_kw")).shape == (2, count)
    with pytest.raises(ScenarioError, match="unknown column") as err:
        table.values("q_kw", ["bus1"])
    assert len(str(err.value)) <= LONGEST


def test_a_run_again_elsewhere_in_time_is_no_contradiction():
    """What the run fills in is not stored with what was asked for, so that another start can be set on a trace."""
    scenario = resolve(find("two_bus")).scenario
    assert "scenario_start" not in scenario.members["tariff"].params
    assert resolve(override(scenario, {"start": "2025-03-01"})).params["tariff"].scenario_start == "2025-03-01T00:00:00"


@pytest.mark.parametrize(("err", "said"), [
    (OSError("Unable to open file\nbad symbol\ntable"), "Unable to open file"), (OSError(2, "No such file"),
    "[Errno 2] No such file"), (KeyError("port 'a'"), "port 'a'"), (KeyError(), "KeyError"), (ValueError("\n"),
    "ValueError"), (RuntimeError("\n  late\n"), "  late"), (ValueError("x" * 200), "x" * 115 + " ...")])
def test_a_librarys_error_is_one_short_line(err, said):
    assert first_line(err) == said
