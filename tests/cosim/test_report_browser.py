"""The page as a person meets it: a real browser, at desktop and phone width, light and dark."""

import os
import shutil
from pathlib import Path

import hostile
import pytest

from cosim.experiment import Experiment
from cosim.report import write_page
from cosim.run import find
from cosim.scenario import override

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser' (playwright)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    # twelve times the jobs: queues and drops, so that there are events to click
    scenario = override(find("two_bus"), {"workload.rate_scale": "12"})
    Experiment(scenario, "native", 5400.0, out=folder / "run.h5").run()
    return write_page([folder / "run.h5"])


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, page_file):
    """Opens the page; afterwards: no request left it, no console error."""
    errors, requests, contexts = [], [], []

    def go(width, scheme):
        context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", lambda r: requests.append(r.url))
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield go
    for context in contexts:
        context.close()
    assert errors == []
    assert [r for r in requests if r != page_file.as_uri() and not r.startswith(("data:", "blob:"))] == []


def drawn(page):
    """Scroll through; how many of how many graphs are drawn."""
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for top in range(0, page.evaluate("document.documentElement.scrollHeight"), 500):
        page.evaluate(f"scrollTo(0, {top})")
        page.wait_for_timeout(40)
    return page.locator(".plot .main-svg").count() > 0, page.evaluate(
        "DATA.plots.length - DATA.plots.filter(p => p.drawn).length")


def until(page, expression):
    """Wait for an expression; `wait_for_function` would evaluate it in the page, where the page's policy forbids it."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_picture_is_drawn_and_nothing_is_wider_than_the_screen(visit, width, scheme):
    page = visit(width, scheme)
    assert drawn(page) == (True, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == scheme


def test_the_slider_moves_the_map_and_the_modes_recolour_it(visit):
    page = visit(1280, "light")
    words = page.locator(".readout").first.inner_text()
    page.locator("#time").focus()
    page.keyboard.press("Home")
    assert page.locator("#clock").inner_text() == "00:00"
    assert page.locator(".readout").first.inner_text() != words
    page.keyboard.press("ArrowRight")
    assert page.locator("#clock").inner_text() == "00:15"
    fills = page.eval_on_selector_all("circle.dot", "dots => dots.map(d => d.getAttribute('fill'))")
    page.locator("#mode-vm_pu").click()
    assert page.locator("#mode-vm_pu").get_attribute("aria-selected") == "true"
    assert page.eval_on_selector_all("circle.dot", "dots => dots.map(d => d.getAttribute('fill'))") != fills
    assert "p.u." in page.locator("#scale").inner_text()


def test_an_event_leads_to_its_time_on_the_map_and_in_the_pictures(visit):
    page = visit(1280, "light")
    button = page.locator(".events button").first
    button.click()
    assert page.locator("#clock").inner_text() == button.locator("time").inner_text()
    page.locator("#signal").scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('#signal .cursor')].some(c => c.style.display === 'block')")


def test_the_theme_button_redraws_in_the_other_theme(visit):
    page = visit(1280, "light")
    drawn(page)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    until(page, "state.dirty.size === DATA.plots.filter((p, k) => state.dirty.has(k) && !p.visible).length")


def test_zooming_one_picture_zooms_all(visit):
    page = visit(1280, "light")
    drawn(page)
    page.evaluate("zoomAll([START + 600e3, START + 1200e3])")
    page.locator("#signal .plot").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('#signal .plot')._fullLayout.xaxis.r2l("
          "document.querySelector('#signal .plot')._fullLayout.xaxis.range[0]) === START + 600e3")
    page.evaluate("zoomAll(null)")
    until(page, "document.querySelector('#signal .plot')._fullLayout.xaxis.r2l("
          "document.querySelector('#signal .plot')._fullLayout.xaxis.range[0]) === START")
    assert page.evaluate("document.querySelector('#signal .plot')._fullLayout.xaxis.r2l("
                         "document.querySelector('#signal .plot')._fullLayout.xaxis.range[0]) === START")


def test_a_name_stands_at_the_last_value_in_view(visit):
    page = visit(1280, "light")
    drawn(page)
    page.evaluate("zoomAll([START + 600e3, START + 1200e3])")
    page.locator("#signal .plot").first.scroll_into_view_if_needed()
    until(page, "!state.dirty.has(0)")
    places = page.evaluate("""() => { const p = DATA.plots[0], full = el("plot0")._fullLayout, s = p.series[0];
      const at = array(s.t), y = array(s.y), k = at.findLastIndex(t => t <= 1200);
      const note = full.annotations.find(a => a.text === s.label), [low, high] = full.yaxis.range;
      return [note.y, (y[k] - low) / (high - low)]; }""")
    assert places[0] == pytest.approx(places[1], abs=0.08)
    page.locator("#reset").click()
    assert page.locator("#reset").is_hidden()
    assert page.evaluate("state.range") is None


def test_a_chart_is_saved_as_csv_and_png(visit):
    page = visit(1280, "light")
    files = {}
    for kind, of in (("csv", "#signal"), ("png", "#signal"), ("csv", "#map"), ("png", "#map")):
        with page.expect_download() as saved:
            page.locator(f"{of} [data-get={kind}]").first.click()
        files[of, kind] = Path(saved.value.path()).read_bytes()
    rows = files["#signal", "csv"].decode("utf-8-sig").splitlines()
    assert rows[0] == "time_s,time_utc,aidc1 [kg/kWh]"
    assert rows[2].startswith("900,2026-01-01T00:15:00Z,")
    assert files["#map", "csv"].decode("utf-8-sig").startswith("time_s,time_utc,node,Carbon intensity [kg/kWh],")
    assert all(files[of, "png"].startswith(b"\x89PNG") for of in ("#signal", "#map"))


def test_paper_has_whole_plots_in_the_light(visit):
    page = visit(1280, "dark")
    drawn(page)
    page.pdf()
    until(page, "document.documentElement.className === ''")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.evaluate("toPaper()")
    odd = page.evaluate("""() => [...document.querySelectorAll(".plot")].filter(node => {
      const of = node.querySelector(".main-svg").getBoundingClientRect(), box = node.getBoundingClientRect();
      return Math.abs(of.width - box.width) > 1 || box.width > 680; }).length""")
    assert (odd, page.evaluate("state.theme")) == (0, "light")


def test_charts_that_are_folded_are_drawn_when_opened_and_on_paper(browser, page_file):
    """Of two runs: below what is compared; the first two sections stay open. Paper has them all."""
    trace = page_file.parent / "run.h5"
    both = write_page([trace, trace], out=page_file.parent / "both.html")
    page = browser.new_page(viewport={"width": 1280, "height": 850})
    page.goto(both.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    folds = page.locator("details.charts")
    assert folds.count() >= 3
    assert page.locator("section details.charts").first.evaluate("e => e.open") is False
    plot = folds.first.locator(".plot").first
    assert plot.locator("svg").count() == 0
    folds.first.locator("summary").click()
    plot.locator("svg.main-svg").first.wait_for()
    assert plot.bounding_box()["width"] > 200
    page.evaluate("toPaper()")
    assert page.locator("details.charts:not([open])").count() == 0
    page.evaluate("fromPaper()")
    assert page.locator("details.charts[open]").count() == 1, "the one that was opened"
    page.close()


def test_on_a_phone_targets_are_44_pixels_and_no_number_is_cut(browser, page_file):
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    small, cut = page.evaluate("""() => {
      const size = e => e.getBoundingClientRect(), small = [], cut = [];
      for (const e of document.querySelectorAll("button, summary, nav a, input"))
        if (size(e).width && (size(e).width < 44 || size(e).height < 44)) small.push(e.outerHTML);
      for (const box of document.querySelectorAll(".scroll")) for (const cell of box.querySelectorAll("td"))
        if (size(cell).right > size(box).right + 1 && size(cell).left < size(box).right
            && getComputedStyle(cell).color !== "rgba(0, 0, 0, 0)") cut.push(cell.textContent);
      return [small, cut]; }""")
    wide = page.locator(".wide").first
    assert wide.locator(".more").is_visible()
    first = wide.locator("th[scope=row]").first
    before = first.bounding_box()["x"]
    wide.locator(".scroll").evaluate("box => box.scrollLeft = 120")
    assert first.bounding_box()["x"] == pytest.approx(before, abs=1)
    context.close()
    assert (small, cut) == ([], [])


# --- names that are more than text ------------------------------------------------------------------------------------

HOSTILE = (hostile.PLOTLY, hostile.TEMPLATE, hostile.HTML + hostile.SCRIPT + hostile.ATTRIBUTE + hostile.MARKS)
LOOK = """() => { DATA.plots.forEach((p, k) => { if (!p.drawn) drawPlot(k); });
  const seen = [];
  DATA.plots.forEach((p, k) => { const node = el("plot" + k);
    Plotly.Fx.hover(node, node.data.map((_, c) => ({curveNumber: c, pointNumber: p.heat ? [0, 0] : 0})));
    seen.push(...[...node.querySelectorAll(".hoverlayer text")].map(t => t.textContent)); });
  const all = [...document.querySelectorAll(".plot text, .map text, .map title")];
  return {ran: window.pwned, made: document.querySelectorAll("svg a, img, svg [onload], script:not([type])").length,
    bold: [...document.querySelectorAll(".plot tspan")].filter(t => /bold|italic/.test(t.getAttribute("style"))).length,
    drawn: all.map(t => t.textContent), hovered: seen, wide: document.documentElement.scrollWidth}; }"""


@pytest.mark.long(after=1)
@pytest.mark.parametrize("text", HOSTILE)
def test_names_run_nothing_and_are_drawn_as_they_stand(browser, page_file, tmp_path, text):
    hostile.poisoned(page_file.with_suffix(".h5"), tmp_path / "t.h5", text)
    page, said = browser.new_page(viewport={"width": 390, "height": 850}), []
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("dialog", lambda d: said.append(d.message))
    page.goto(write_page([tmp_path / "t.h5"]).as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    found = page.evaluate(LOOK)
    page.close()
    assert (found["ran"], found["bold"], said) == (None, 0, [])
    assert found["made"] == 2, "the page's own script and plotly"
    assert found["wide"] <= 390
    assert any(words.startswith(f"aidc{text}"[:20]) for words in found["drawn"])
    assert f"node bus{text}0" in "".join(found["drawn"])
    assert any(text in words for words in found["hovered"]), "hovering shows the whole name"


@pytest.mark.long
def test_the_policy_blocks_scripts_that_are_not_the_pages(browser, page_file, tmp_path):
    inside = "<script>pwned = 1</script><img src=x onerror='pwned = 2'><a id=go href='javascript:pwned=3'>go</a></main>"
    path = tmp_path / "injected.html"
    path.write_text(page_file.with_suffix(".html").read_text().replace("</main>", inside))
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    page.evaluate("""() => { window.seen = [];
      document.addEventListener("securitypolicyviolation", e => seen.push(e.effectiveDirective));
      const late = document.createElement("script"); late.textContent = "pwned = 4"; document.body.append(late);
      el("go").click(); return fetch("data:,x").catch(() => 0); }""")
    page.wait_for_timeout(200)
    ran, seen = page.evaluate("[window.pwned, seen]")
    page.close()
    assert ran is None
    assert {"script-src-elem", "connect-src"} <= set(seen)
