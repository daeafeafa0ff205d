"""What README and docs say is so: every command and code block is run, links lead somewhere, references match the code.

The sweep of lambda (X12) is one of them. A page's blocks are run in a folder of its own, in order. Marks stand in a
comment on the line before a block:

    <!-- long: ARGUMENTS -->   appended to each `cosim run` and `cosim train` (or set before the command when
                               NAME=VALUE)
    <!-- network: WHY -->      not run: it needs the network
    <!-- slow: WHY -->         not run: it takes minutes
    <!-- extra: MODULE ARGUMENTS --> as long, and not run where an extra's module is not installed; MODULE+PROGRAM:
                               nor where a program is not
    <!-- given: NAME -->       not run but written to that file
    <!-- output -->            not run: what the block before it must have printed, line by line
    <!-- source: FILE -->      a file of the repository, copied beside and shown by the site
"""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import webbrowser
from decimal import Decimal
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

import cosim
from cosim.commands.main import main
from cosim.commands.names import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
DECIMAL = re.compile(r"-?\d+\.\d+$")
MADE = re.compile(r"^<!-- made: ", re.MULTILINE)
API = re.compile(r"^::: (\S+)$", re.MULTILINE)
SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)
MARKS = {"long", "extra", "network", "slow", "given", "output", "run command", "test command", "map"}
MODULES = {command.module.removesuffix(".command"): name for name, command in COMMANDS.items()}


def blocks(page):
    """(mark, its words, kind, text) of every block of a page."""
    out = []
    for found in BLOCK.finditer(page.read_text()):
        mark, _, words = (found["mark"] or "").partition(": ")
        out.append((mark, words, found["kind"], found["text"]))
    return out


@cache
def generate():
    """docs/generate.py, which no import finds."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_generate"] = module
    spec.loader.exec_module(module)
    return module


def with_words(parts, extra):
    """A command's words and more of them; what --set is given there again is left out here."""
    again = {word.partition("=")[0] for word in extra if "=" in word}
    kept = [k for k, word in enumerate(parts)
            if not (k and parts[k - 1] == "--set" and word.partition("=")[0] in again)]
    return [parts[k] for k in kept if not (parts[k] == "--set" and k + 1 not in kept)] + extra


def run_line(line, words):
    """One command line as a shell would run it; ours in this process, as its start is most of its time."""
    parts = shlex.split(line, comments=True)
    if parts[:2] == ["python", "-m"] and parts[2] in MODULES:
        parts[:3] = ["cosim", MODULES[parts[2]]]
    if parts[0] == "cosim" and ">" not in parts:
        runs = parts[1] in ("run", "train") and not {"--list", "--show"} & set(parts)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                code = main(with_words(parts[1:], shlex.split(words) if runs else []))
            except SystemExit as ended:  # --help
                code = ended.code
        assert code == 0, line
        return out.getvalue()
    if parts[0] == "python" and parts[1].endswith(".py"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", parts[1:])
            runpy.run_path(parts[1], run_name="__main__")
        return out.getvalue()
    setting = dict(word.split("=", 1) for word in shlex.split(words))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, **setting, "PYTHONPATH": f"{ROOT}:.", "PATH": path})
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a page's blocks run: modules of that folder can be imported, no browser opens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    for example in (ROOT / "examples").glob("[!p]*"):  # plug_* have tests of their own
        if example.is_file():
            shutil.copy(example, tmp_path)
    shutil.copy(ROOT / "examples" / "read_trace.py", tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def alike(shown, said):
    """Whether two lines have the same words; a decimal may differ by one in its last place, as another processor or
    version of a solver may round it the other way."""
    pairs = list(zip_longest(shown.split(), said.split(), fillvalue=""))
    return all(a == b or (DECIMAL.match(a) and DECIMAL.match(b) and len(a.partition(".")[2]) == len(
        b.partition(".")[2]) and abs(Decimal(a) - Decimal(b)) <= Decimal(10) ** -len(a.partition(".")[2]))
        for a, b in pairs)


def test_printed_lines_may_round_the_other_way():
    assert alike("a   12.3 x", "a 12.4   x")
    assert alike("-0.1", "-0.2")
    assert not alike("a 12.3", "a 12.5")
    assert not alike("a 12.3", "a 12.30")
    assert not alike("a 12", "a 13")
    assert not alike("a 12.3", "a 12.3 b")


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
@pytest.mark.rows("X01")
def test_every_block_runs(page, folder):
    printed, names = "", {}
    for mark, words, kind, text in blocks(page):
        if mark == "extra":
            needed, _, words = words.partition(" ")
            if not all(importlib.util.find_spec(name) or shutil.which(name) for name in needed.split("+")):
                continue
        if mark == "given":
            (folder / words).write_text(text)
        elif mark == "output":
            for line in text.splitlines():
                assert any(alike(line, said) for said in printed.splitlines()), (
                    f"{page.name} shows '{line}', which was not printed")
        elif mark == "run command":  # what comes after the installation
            run_line(text.replace(".venv/bin/", "").rpartition("&&")[2].strip(), "--until 15min")
        elif kind == "console" and mark not in ("network", "slow", "test command"):
            lines = text.replace("\\\n", "").splitlines()
            printed = "".join(run_line(line, words) for line in lines if line.strip())
        elif kind == "python":
            exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_marks_are_known_and_say_why(page):
    for mark, words, _, text in blocks(page):
        assert not mark or mark in MARKS, f"{page.name}: unknown mark '{mark}' before\n{text}"
        assert mark not in ("long", "extra", "network", "slow", "given") or words, f"{page.name}: '{mark}' says nothing"
    for path in SOURCE.findall(page.read_text()):
        assert (ROOT / path).is_file(), f"{page.name} shows {path}, which is not there"


def anchors(text):
    """What a heading can be linked by."""
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        text = file.read_text() if anchor else ""
        if MADE.search(text) and anchor not in anchors(text):
            text = generate().filled(text)
        assert not anchor or anchor in anchors(text), f"{page.name}: no heading for {target}"


@pytest.mark.rows("X01")
def test_every_page_is_in_the_site_and_made_parts_exist():
    config, made = (ROOT / "mkdocs.yml").read_text(), generate()
    for page in PAGES[1:]:
        name = page.relative_to(ROOT / "docs").as_posix()
        assert f": {name}\n" in config, f"mkdocs.yml does not list {name}"
        assert {maker for maker, _ in made.MARK.findall(page.read_text())} <= made.MAKERS.keys()


@pytest.mark.long
def test_every_row_of_the_model_has_a_module_and_a_test_or_says_what_is_missing():
    rows, wrong = generate().model_rows.rows()
    letters = {letter: sum(row.id[0] == letter for row in rows) for letter in {row.id[0] for row in rows}}
    assert letters == {"E": 39, "U": 22, "P": 42, "M": 16, "S": 15, "A": 7, "R": 6, "L": 20, "T": 9, "B": 8, "K": 8,
                       "X": 16, "Z": 8, "I": 38}
    assert len({row.id for row in rows}) == len(rows) == 254
    assert not wrong, "\n".join(wrong)


def test_the_terms_page_names_what_exists():
    """Each place where a term is defined can be imported."""
    names = re.findall(r"`(cosim\.[\w.]+)`", (ROOT / "docs" / "terms.md").read_text())
    assert len(names) > 30
    for name in names:
        module, _, inside = name.rpartition(".")
        holder = importlib.import_module(module)
        assert hasattr(holder, inside) or importlib.util.find_spec(name), name


def test_what_is_wrong_with_rows_is_said():
    made = generate().model_rows
    table = [{"id": name, "name": f"about {name}", "state": state, "says": says} for name, state, says in (
        ("E01", "", ""), ("E02", "", ""), ("E03", "", ""), ("U01", "part", ""), ("U02", "none", "no solver"),
        ("U03", "half", "x"))]
    module = '"""Text.\n\nRows: E01-02,\nU01.\n"""\nx = "Rows: E03."\n'
    claims = {"a.one": made.claimed(module), "a.two": ["U02", "E09", "U03"]}
    source = ('import pytest\n@pytest.mark.rows("E01", "U01-01")\n@pytest.mark.other\ndef test_a():\n    """E02."""\n'
              '@pytest.mark.rows("E03")\ndef helper():\n    pass\ndef test_b():\n    pass\n')
    asserts = {f"t::{name}": ids for name, ids in made.asserted(source).items()}
    assert claims["a.one"] == ["E01", "E02", "U01"]
    assert asserts == {"t::test_a": ["E01", "U01"]}
    rows, wrong = made.joined(table, claims, asserts)
    assert rows[0] == made.Row("E01", "about E01", "", "", ("a.one",), ("t::test_a",))
    assert wrong == (
        "a.two names E09, which is no row of docs/rows.csv",
        "E02 (about E02) is in a.one and no test asserts it",
        "E03 (about E03) is in no module and no test asserts it", "E03 (about E03) has no module that claims it",
        "U01 is in part; say what is missing",
        "a.two names U02, which is not built",
        "U03 has state 'half'; there are '', 'part', 'none'", "U03 (about U03) is in a.two and no test asserts it")
    for tag in ("E1", "E01..03", "see E01", ""):
        with pytest.raises(ValueError, match="is no row of the model"):
            made.ids_of(tag)


def parts_on_pages(maker):
    """The parts of what is made that some page asks for."""
    return [part for page in PAGES for name, part in generate().MARK.findall(page.read_text()) if name == maker]


def test_references_hold_every_field_and_every_option():
    made = generate()
    scenarios, cli, tables = made.field_tables.scenarios(), made.cli(), made.field_tables
    assert sorted(parts_on_pages("fields")) == sorted(parts_on_pages("ports")) == sorted(tables.PAGES)
    pages = {page: tables.of_page(page) for page in tables.PAGES}
    for word in ("`lambda_kw_per_kg_h`", "`inf_size_scale`", "`gpus_per_block`"):
        assert any(word in text for text in pages.values()), word
    assert "`warmup_s`" in scenarios
    for name, (kind, _) in tables.simulators().items():
        assert f"`{name}`" in scenarios
        for held in (kind.PARAMS, *(inner for hint in get_type_hints(kind.PARAMS).values()
                                    for inner in tables.held(hint))):
            there = f"\n## {held.__name__}\n" in pages[tables.page_of(held.__module__)]
            assert there, f"{held.__name__} of {name} has no table where links lead"
    options = [o for p in made.parsers().values() for a in p._actions for o in a.option_strings if o.startswith("--")]
    assert "--until" in options
    assert {command.module for command in COMMANDS.values()} <= made.parsers().keys()
    assert all(option in cli for option in options if option != "--help")


@pytest.mark.long
def test_every_row_and_module_is_on_one_page():
    made = generate()
    letters = "".join(parts_on_pages("coverage"))
    rows, _ = made.model_rows.rows()
    assert sorted(letters) == sorted({row.id[0] for row in rows})
    assert sorted(parts_on_pages("modules")) == sorted(made.ROOMS)
    listed = [line for page in made.ROOMS for line in made.modules(page).splitlines() if line.startswith("| `")]
    assert len(listed) == len(set(listed)) == sum(len(made._modules(p)) for p in made.model_rows.PACKAGES)


def test_the_python_reference_has_every_public_name():
    texts = {page.stem: page.read_text() for page in PAGES if page.stem.startswith("api-")}
    named = [name for text in texts.values() for name in API.findall(text)]
    assert len(named) == len(set(named))
    parts = [path.rpartition(".") for path in named]
    there = [getattr(importlib.import_module(module), name) for module, _, name in parts]
    public = [name for name in cosim.__all__ if not name.startswith("__")]
    assert [name for name in public if getattr(cosim, name) not in there] == []


def test_columns_of_a_docstring_become_a_list():
    pytest.importorskip("griffe", reason="needs the extra 'docs' (mkdocstrings-python)")
    spec = importlib.util.spec_from_file_location("columns", ROOT / "docs" / "columns.py")
    spec.loader.exec_module(made := importlib.util.module_from_spec(spec))
    docstring = "One.\n\nname    of it\n        and more\na, b    two\ndefault one\nNot a row.\n\nLast  one."
    assert made.as_lists(docstring) == (
        "One.\n\n- `name`: of it\n  and more\n- `a`, `b`: two\n- `default`: one\n\nNot a row.\n\nLast  one.")
    assert made.as_lists("plain text\nof two lines") == "plain text\nof two lines"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, built with warnings as errors; skipped where its packages are not."""
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="needs the extra 'docs' (mkdocs-material, mkdocstrings-python)")
    mkdocs, folder = importlib.import_module("mkdocs.commands.build"), tmp_path_factory.mktemp("site")
    settings = importlib.import_module("mkdocs.config").load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    settings["strict"] = True
    settings.plugins.on_startup(command="build", dirty=False)
    mkdocs.build(settings)
    return folder


@pytest.mark.long
def test_the_site_builds_without_a_warning(site):
    assert "nci_kg_per_kwh" in (site / "reference" / "ports-grid.html").read_text()
    assert "own_grid" in (site / "own-grid.html").read_text()
    assert 'id="cosim.simulation.simulate"' in (site / "reference" / "api-run.html").read_text()
    assert 'id="cosim.agents.fleet.decision.Policy"' in (site / "reference" / "api-extend.html").read_text()
    for page in site.rglob("*.html"):
        loads = re.findall(r"""(?:src=|stylesheet[^>]*? href=)["']?(https?:[^"' >]+)""", page.read_text())
        assert not loads, f"{page.name} loads {loads[0]} from elsewhere"


@pytest.mark.long
def test_pages_are_short_and_can_be_searched_without_a_server(site):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser' (playwright)")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as used:
        browser = used.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for file in sorted(site.rglob("*.html")):
            if file.parent.name == "study":
                continue  # what a command wrote, which is one file on purpose
            page.goto(file.as_uri())
            height, width = page.evaluate("[document.body.scrollHeight, document.documentElement.scrollWidth]")
            assert height < 15000, f"{file.name} is {height} px long: split it"
            assert width <= 1280, f"{file.name} is wider than the window"
        page.goto((site / "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("lambda_kw_per_kg_h")
        page.wait_for_selector(".md-search-result__item a[href*='fields-grid']")
        browser.close()


def test_marks_are_listed():
    """The blocks that are not run as they stand, so that the list is looked at when it grows."""
    marked = [(page.stem, mark) for page in PAGES for mark, *_ in blocks(page) if mark in ("network", "slow", "extra")]
    assert marked == [("agents", "slow"), ("agents", "slow"), ("agents", "slow"),
                      ("carbon", "slow"), ("carbon", "slow"), ("developing", "slow"), ("index", "network"),
                      ("learning", "slow"), ("learning", "slow"), ("learning", "slow"), ("learning", "slow"),
                      ("learning", "slow"), ("learning", "slow"), ("learning", "slow"), ("learning", "slow"),
                      ("learning", "slow"), ("neighbours", "extra"), ("neighbours", "extra"),
                      ("own-grid", "extra"), ("paper", "slow"),
                      ("rules", "slow"), ("rules", "slow"), ("rules", "slow"), ("speed", "slow"), ("sweeps", "extra"),
                      ("sweeps", "slow"), ("sweeps", "network"), ("sweeps", "extra"), ("own-network", "extra"),
                      ("train-and-compare", "slow"), ("train-and-compare", "slow")]


def test_the_paper_is_cited_where_a_reader_looks():
    """Title and authors as CITATION.cff has them, at the end of README, on the first page and on the study's."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"][0]
    for page in ("README.md", "docs/index.md", "docs/paper.md"):
        text = " ".join((ROOT / page).read_text().replace("\n> ", " ").split())
        for part in (cited["title"], *(f"{who['given-names']} {who['family-names']}" for who in cited["authors"])):
            assert part in text, f"{page} does not name {part}"


def test_the_first_page_and_the_tutorials_write_different_files():
    """A reader who follows all of them in one folder is never told that a file exists already."""
    folder = ROOT / "docs" / "tutorials"
    written = [name for page in (ROOT / "docs" / "index.md", *sorted(folder.glob("*.md")))
               for mark, words, kind, text in blocks(page)
               for name in ([words] if mark == "given" else re.findall(r"--out (\S+)|cosim new (\S+)", text)
                            if kind == "console" else [])]
    names = ["".join(name) for name in written]
    assert len(names) > 30
    assert sorted({name for name in names if names.count(name) > 1}) == []
