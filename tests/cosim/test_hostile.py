"""Names and texts of a trace by hand are shown as they stand: on the page, on a terminal, in pictures and tables."""

import base64
import csv
import gzip
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_report import unpacked
from worlds import boxes, run

from cosim import report
from cosim.clock import Clock
from cosim.console import one_line, print_digest
from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.experiment import Experiment
from cosim.plaintext import cell, file_name, file_names, text_of, visible
from cosim.reporting.live import LiveBoard, RunSpeed, line, picture
from cosim.run import default_out, find
from cosim.scenario import Link, override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.flows import demand
from cosim.simulators.analysis.receipts import main as receipts
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.grid import feeder_map
from cosim.simulators.reporting.sections import REPORT
from cosim.tables.files import read_columns, write_table
from cosim.trace import Trace
from cosim.trace.command import main

EVERY = "".join(hostile.ALL)
FORMULA = "=cmd|'/C'!A0"


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("honest") / "run.h5"
    scenario = override(find("two_bus"), {"workload.rate_scale": "12", "grid.mci": "false", "grid.ac_check": "false"})
    Experiment(scenario, "native", 1800.0, out=path).run()
    return path


@pytest.fixture(scope="module")
def poisoned(honest):
    path = honest.with_name("poisoned.h5")
    hostile.poisoned(honest, path, EVERY + hostile.TERMINAL)
    return path


class Structure(HTMLParser):
    """Tags with the names of their attributes, in order, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data):
        self.text += data


@pytest.mark.long
def test_the_page_has_the_same_tags_whatever_names_hold(honest, poisoned, tmp_path):
    tame = tmp_path / "tame.h5"
    hostile.poisoned(honest, tame, "x")
    pages = [report.write_page([path], tmp_path / f"{path.stem}.html").read_text() for path in (tame, poisoned)]
    one, other = map(Structure, pages)
    assert one.tags == other.tags
    assert other.text.count(visible(EVERY + hostile.TERMINAL)) > 30
    assert "\x1b" not in pages[1]
    head, _ = unpacked(pages[1])
    names = [s["name"] for s in head["maps"][0]["marks"] if s["shape"] == "ring"]
    assert names == [f"aidc{visible(EVERY + hostile.TERMINAL)}1"]


def called(name, out):
    """The page of half an hour with a battery and a source of that name."""
    battery = {"node": 1, "energy_max_kwh": 100.0, "p_charge_max_kw": 40.0, "p_discharge_max_kw": 40.0,
               "energy_start_kwh": 50.0, "start_kg_per_kwh": 0.35}
    two = find("two_bus")
    grid = two.members["grid"]
    grid = grid.model_copy(update={"entities": {**grid.entities, "Battery": [name]}, "params": {
        **grid.params, "batteries": {name: battery}, "lookahead_steps": 2,
        "sources": {**grid.params["sources"], name: {"node": 1, "kg_per_kwh": 0.9, "p_max_kw": 5.0}}}})
    links = (*two.links, Link(source="profile.p_ahead_kw", target="grid.p_ahead_kw"),
             Link(source="profile.q_ahead_kvar", target="grid.q_ahead_kvar"))
    profile = two.members["profile"].model_copy(update={"simulator": "cosim.simulators.profile:ForecastProfile"})
    world = two.replace(members={**two.members, "grid": grid, "profile": profile}, links=links,
                        shared={**two.shared, "lookahead_steps": 2})
    Experiment(world, "native", 1800.0, out=out).run()
    return report.write_page([out], out.with_suffix(".html")).read_text()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("name", ["<img src=x onerror=pwned=1>", "\"'><svg onload=pwned=1>[red]", "<b>x<b>{{7*7}}%{y}"])
def test_a_battery_and_a_source_called_like_markup(name, tmp_path):
    tame, other = (Structure(called(word, tmp_path / f"{k}.h5")) for k, word in enumerate(("plainly", name)))
    assert tame.tags == other.tags
    assert other.text.count(name) == tame.text.count("plainly") > 2


@pytest.mark.long
def test_pages_side_by_side_too(honest, poisoned, tmp_path):
    tame = tmp_path / "tame.h5"
    hostile.poisoned(honest, tame, "x")
    two, other = (Structure(report.write_page([tame, path], tmp_path / f"{k}.html").read_text())
                  for k, path in enumerate((tame, poisoned)))
    assert {tag for tag, _ in other.tags} == {tag for tag, _ in two.tags} | {"strong"}
    assert {name for _, names in other.tags for name in names} == {name for _, names in two.tags for name in names}


def test_the_policy_names_exactly_the_scripts_of_the_page(honest, tmp_path):
    page = report.write_page([honest], tmp_path / "page.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"  # blob: a chart on its way to a PNG file; pages make them, no address can
    assert page.index("Content-Security-Policy") < page.index("<style") < page.index("<script")
    plotly = gzip.decompress(base64.b64decode(re.search(r'id="plotly-gz">([^<]+)<', page).group(1)))
    scripts = [re.search(r"<script>(.*)</script></body>", page, re.DOTALL).group(1).encode(), plotly]
    assert rules["script-src"].split() == [
        f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'" for code in scripts]
    assert not re.search(r"<[^>]* on\w+=", page)


@pytest.mark.long
def test_a_picture_typesets_no_name(poisoned, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    written = report.write_figures([poisoned], tmp_path, ["svg"])
    found = "".join(path.read_text() for path in written if path.suffix == ".svg")
    assert "&lt;img/src=x" in found
    assert "<img" not in found
    captions = next(path for path in written if path.suffix == ".txt").read_text()
    assert hostile.MATHS in captions
    assert "\x1b" not in captions + found
    assert "mathdefault" not in found


@pytest.mark.long
def test_dollars_stay_dollars_in_a_picture(honest, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    hostile.poisoned(honest, tmp_path / "t.h5", "$x^2$_")
    written = report.write_figures([tmp_path / "t.h5"], tmp_path, ["svg"])
    assert any("aidc$x^2$_1" in path.read_text() for path in written if path.suffix == ".svg")


def test_listing_it_prints_names_as_they_are_and_no_escape_sequence(poisoned, capsys):
    assert main(["ls", str(poisoned)]) == 0
    said = capsys.readouterr().out
    assert hostile.MARKS in said
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert r"\x1b[31mred" in said


def test_a_class_called_like_markup_goes_through_all_tables(honest, tmp_path, capsys):
    path = tmp_path / "t.h5"
    hostile.poisoned(honest, path, "[/b]")
    assert receipts([str(path)]) == 0
    assert "quer[/b]y" in capsys.readouterr().out
    text = io.StringIO()
    table = Table("[/b]", ("[/i]", ":smile:"), [("[bold]x", "[/b]\x1b[2J")], "[/u]")
    print_digest(Console(file=text, width=80), Digest(tables=[table], warnings=["[/b]"]))
    for words in ("[/b]", "[/i]", ":smile:", "[bold]x", r"[/b]\x1b[2J", "[/u]", "warning: [/b]"):
        assert words in text.getvalue()


def test_the_live_view_shows_names_as_they_are():
    board, text = LiveBoard(REPORT.live), io.StringIO()
    board.update("aidc", {"[/b]\x1b[2J": {"p_kw": 12.0}})
    board.update("[/red]\x07", {"x": {"[/b]": 1.0}})
    pace = RunSpeed(Clock(60.0), 90, time=45)
    Console(file=text, width=100).print(picture("[/b]\x1b[2J", board, None, pace))
    assert text.getvalue().count(r"[/b]\x1b[2J") == 2
    assert r"[/red]\x07: [/b] 1" in text.getvalue()
    assert "\x1b" not in text.getvalue()
    assert "[/b]" in line("[/b]", board, None, pace)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("text", [".", "a.b.c", "..", "-", " b - c ", " #2", "/", ":", ".p_kw", "nci_kg_per_kwh."])
def test_signs_of_our_own_syntax_in_names_lose_no_site_and_no_bus(honest, tmp_path, text):
    """Dots part an end of a connection, dashes a line's nodes: the page finds the site's intensity, price and map, the
    laws of the grid its demand."""
    path = tmp_path / "t.h5"
    names = hostile.poisoned(honest, path, text)
    with Trace(path) as trace, Trace(honest) as before:
        run, plain = (FleetRun(t, "", dict.fromkeys(t.names("aidc/Site"), "site0")) for t in (trace, before))
        (site,), (tame,) = run.sites, plain.sites
        assert site == names[tame]
        assert run.bus_of(site) == names[plain.bus_of(tame)]
        assert run.intensity_of(site) == plain.intensity_of(tame)
        assert (run.nci(site) == plain.nci(tame)).all()
        drawn, expected = feeder_map(run)[1], feeder_map(plain)[1]
        np.testing.assert_array_equal(drawn.lines, expected.lines)
        np.testing.assert_array_equal(drawn.flow_kw, expected.flow_kw)
        np.testing.assert_array_equal(drawn.level("nci_kg_per_kwh"), expected.level("nci_kg_per_kwh"))
        rings, same = ([s.node for s in network.marks if s.shape == "ring"] for network in (drawn, expected))
        assert rings == same != []
        assert (demand(trace).total == demand(before).total).all()
        assert demand(before).of_sites.any()
        assert verify(trace).broken == []


# --- files ------------------------------------------------------------------------------------------------------------


def test_export_writes_into_its_folder_only_and_says_what_is_called_otherwise(tmp_path, capsys):
    path, out = tmp_path / "t.h5", tmp_path / "a" / "csv"
    run(boxes(), path)
    names = ("..", "..\\x", "con", "GRID", ".hidden", "a\\..\\b", "-rf", "n" * 300, "a\nb", "src.Box")
    with h5py.File(path, "r+") as file:
        for name in names:
            file.create_group(name)["z"] = np.arange(3)
    with Trace(path) as trace:
        count = len(trace.models()) + len(trace.tables()) + 1  # and the table of what each column is
    assert main(["export", str(path), "--out", str(out)]) == 0
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.csv"))
    assert len(written) == count > len(names)
    assert all(name.startswith("a/csv/") and "/" not in name[6:] and name[6] not in ".-" for name in written)
    assert len({name.casefold() for name in written}) == count
    said = capsys.readouterr().out
    assert "con is in _con.csv" in said


@pytest.mark.parametrize("name", ["../../../x", "/etc/x", "..", ".", "", ".hidden", "a/b", "x" * 500, "\x1b[31m",
                                  "a\\b", "C:x", "nul", "LPT1.txt", "x.", "-rf", "a\x00b", "\ud800", "~"])
def test_a_name_is_a_file_in_its_folder(name, tmp_path):
    made = file_name(name)
    assert Path(made).name == made
    assert 0 < len(made) <= 100
    assert made[0] not in ".-~"
    (tmp_path / f"{made}.csv").write_text("")
    assert [p.name for p in tmp_path.iterdir()] == [f"{made}.csv"]
    if name.isprintable():
        assert default_out(find("two_bus").replace(name=name or "x")).parent.parent == Path("results")


def test_no_two_names_share_a_file():
    made = file_names(["a/b", "a:b", "A_B", "a_b~2", "a.b"])
    assert len({name.casefold() for name in made.values()}) == 5
    assert (made["a/b"], made["a.b"]) == ("a.b", "a.b~2")


# --- spreadsheets -----------------------------------------------------------------------------------------------------

WILD = st.text(st.sampled_from("=+-@\t\r\n'\"; ,.1e\uff1dx"), max_size=8)


@given(WILD)
@settings(max_examples=200, deadline=None)
def test_no_cell_begins_like_a_formula_and_each_is_read_back(text):
    written = cell(text)
    assert text_of(written) == text
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text):
        for part in re.split(r"[;\t\r\n]", written):
            assert not re.match(r"[=+\-@\uff1d]", part.lstrip("\" "))
        assert not re.match(r"[\t\r\n]", written.lstrip("\" "))
    else:
        assert written == text


@given(st.lists(WILD, min_size=1, max_size=4, unique_by=str.strip), st.lists(WILD, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_table_is_read_as_it_was_written(tmp_path_factory, names, cells):
    names = [f"{name}x" for name in dict.fromkeys(name.strip() for name in names)]
    path = tmp_path_factory.mktemp("t") / "t.csv"
    write_table(path, {"n": np.arange(len(cells)) - 1.5, **dict.fromkeys(names, cells)})
    table = read_columns(path)
    assert table.names == ["n", *names]
    assert table.numbers("n").tolist() == [k - 1.5 for k in range(len(cells))]
    assert all(list(table._cells[name]) == cells for name in names)


def test_export_and_receipts_hold_no_formula(honest, tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(hostile_copy(honest, path), "r+") as file:
        file["aidc/Site/entity"][...] = [FORMULA]
        del file["jobs/site"]
        file["jobs"]["site"] = np.array([FORMULA.encode()] * len(file["jobs/id"]))
    assert main(["export", str(path), "--out", str(tmp_path / "csv")]) == 0
    for name in ("aidc.Site", "jobs"):
        with (tmp_path / "csv" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        texts = [text for row in (rows[0], rows[-1]) for text in row if not re.fullmatch(r"[-+.\deinaf]+", text)]
        assert any(FORMULA in text for text in texts)
        assert not [text for text in texts if text[0] in "=+-@\t\r"]
    columns = read_columns(tmp_path / "csv" / "aidc.Site.csv")
    with Trace(path) as trace:
        assert columns.numbers(f"{FORMULA}.p_kw").tolist() == trace["aidc/Site/p_kw"][:, 0].tolist()
    assert min(columns.numbers("time_s")) == 0


def hostile_copy(source, target):
    target.write_bytes(Path(source).read_bytes())
    return target


def test_a_table_that_begins_with_id_is_no_sylk_file(tmp_path):
    write_table(tmp_path / "t.csv", {"ID": [1], "b": [2]})
    assert (tmp_path / "t.csv").read_text().startswith('"ID"')
    assert read_columns(tmp_path / "t.csv").names == ["ID", "b"]


def test_two_columns_of_one_name_are_not_one(honest, tmp_path, capsys):
    with h5py.File(hostile_copy(honest, tmp_path / "t.h5"), "r+") as file:
        file["grid/Bus/entity"][...] = ["b", "b"]
    assert main(["export", str(tmp_path / "t.h5"), "--out", str(tmp_path / "csv")]) == TraceError.exit_code
    assert "two columns of grid/Bus would be called 'b." in capsys.readouterr().err


def test_an_error_is_one_line_of_what_is_seen():
    assert one_line("a\x1b[2J\nb\u202e") == r"a\x1b[2J b\u202e"
    assert visible("1\u202f234\u00a0kW") == "1\u202f234\u00a0kW"
