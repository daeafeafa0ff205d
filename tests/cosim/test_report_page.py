"""Facts of the page that need no browser: contrast, what may not be cut, dates, terms, noise."""

import re
from datetime import UTC, datetime
from importlib.resources import files
from itertools import product

import numpy as np
import pytest

from cosim.reporting.chart import NOISE, Panel, Picture, Series, ranges, without_noise
from cosim.reporting.markup import Terms, cell, table
from cosim.simulators.reporting.data import FleetRun
from cosim.trace import Trace
from cosim.trace.writer import annotate

CSS = files("cosim.reporting").joinpath("page.css").read_text()


def themes():
    """Variables of the stylesheet by theme; the dark one has what it does not change from the light one."""
    def variables(block):
        return dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", block))

    light = variables(re.search(r":root\{(.*?)\}", CSS, re.DOTALL)[1])
    return {"light": light, "dark": {**light, **variables(re.search(r"theme=dark\]\{(.*?)\}", CSS, re.DOTALL)[1])}}


def luminance(colour):
    """Relative luminance by WCAG 2.2."""
    parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def mixed(colour, with_colour, share):
    parts = [round(int(colour[k:k + 2], 16) * share + int(with_colour[k:k + 2], 16) * (1 - share)) for k in (1, 3, 5)]
    return "#" + "".join(f"{v:02x}" for v in parts)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_of_words_stands_out_by_4_5_to_1(theme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    colours = themes()[theme]
    words = ["ink", "soft", "muted", "accent", "good", "bad", "cut", "alarm", *(f"site{k}" for k in range(8))]
    for name, ground in product(words, ("bg", "card")):
        assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["ink"], colours["warnbg"]) >= 4.5
    strongest = mixed(colours["band"], colours["bg"], 0.32)  # the dearest price behind a curve
    assert contrast(colours["soft"], strongest) >= 4.5


def test_paper_is_light_whatever_the_screen_was():
    dark = CSS.index("[data-theme=dark]")
    assert CSS[CSS.rindex("@media", 0, dark):dark].startswith("@media screen{")


def test_on_a_phone_what_is_touched_is_44_pixels_tall():
    rule = re.search(r"@media\(max-width:640px\),\(pointer:coarse\)\{(.*)", CSS)[1]
    assert "button,summary,nav a,.control input{min-height:44px}" in rule


def test_a_table_keeps_its_first_column_and_its_numbers_whole():
    made = table("Waits", ["class", "p50"], [["llm", "15837 s"], ["vae", "0.300 .. 0.435 kg/kWh"]])
    assert re.search(r'<div class="scroll" tabindex="0" role="region" aria-label="Waits">', made)
    assert "15837\u00a0s" in made
    assert "0.300\u00a0..\u00a00.435\u00a0kg/kWh" in made
    assert "th:first-child{" in CSS
    assert re.search(r"th:first-child\{[^}]*position:sticky;left:0", CSS)
    assert re.search(r"\nth,td\{[^}]*white-space:nowrap", CSS)
    assert cell("8.7e-08 kW") == "8.7\u00d710\u207b\u2078\u00a0kW"
    assert cell("bus-1e-05x") == "bus-1e-05x"


def test_a_term_is_explained_where_it_first_stands_and_once():
    terms = Terms([("TO", "10^12 operations"), ("SLO", "service level <objective>")])
    assert terms.explained("TORQUE of a TOP") == ""
    assert "<b>TO</b>: 10^12 operations." in terms.explained("M TO/min")
    assert terms.explained("M TO/min again") == ""
    assert "&lt;objective&gt;" in terms.explained("SLO missed")


def line(title, *values, **options):
    time = np.arange(len(values)) * 60.0
    return Panel(title, "%", (Series("a", time, np.array(values), "ink", 60.0 * len(values)),), **options)


def test_rounding_is_neither_a_curve_nor_an_axis():
    quiet, loud = line("free", 0.0, 3e-14), line("inlet", 27.0, 27.0 + 2e-14)
    (shown,) = without_noise([Picture("air", "", (quiet, loud))])
    assert [p.title for p in shown.panels] == ["inlet"]
    assert "nothing in it exceeds rounding: free" in shown.note
    low, high = ranges([shown])[id(loud)]
    assert high - low > 1.0
    both = without_noise([Picture("air", "", (quiet,)), Picture("air", "", (line("free", 1.0),))])
    assert all(p.panels for p in both), "what one run has is drawn of all"
    assert without_noise([Picture("x", "", (line("gap", 1e-13, log=True),))])[0].panels
    assert NOISE < 1e-8


def test_times_are_dates_of_the_runs_own_calendar(traces, tmp_path):
    path = tmp_path / "dated.h5"
    path.write_bytes(traces["plain"].read_bytes())
    annotate(path, {"start": "2024-02-28T23:00:00+01:00"})
    with Trace(path) as trace:
        run = FleetRun(trace, "", {})
        assert run.start == datetime(2024, 2, 28, 22, tzinfo=UTC)
        assert run.at(3 * 3600.0) == "01:00"
        run.end_s = 3 * 86400.0
        assert run.at(86400.0 + 2 * 3600 + 90) == "1 Mar 00:01:30"
