"""Files about the project say the same of it, and are what their readers expect."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cosim

ROOT = Path(__file__).parents[1]


def setup():
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg", encoding="utf-8")
    return read["metadata"]


def cited(key):
    """Values of a key anywhere in CITATION.cff, in order; its few lines hold no other YAML than `key: value`."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return [value.strip('"') for value in re.findall(rf"^[ -]*{key}: (.+)$", text, re.M)]


def test_the_citation_is_of_this_software():
    assert cited("cff-version") == ["1.2.0"]
    assert cited("type")[0] == "software"
    assert cited("version") == [cosim.__version__]
    assert cited("license") == [setup()["license"]]
    assert cited("name") == [setup()["author"]]
    assert cited("family-names") == ["Lee", "Prabawa", "Choi", "Kim"]
    assert len(cited("message")) == 1


def test_the_changelog_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {cosim.__version__}\n" in text


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_files_at_the_top_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        page = ROOT / path
        assert page.exists(), target
        headings = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(
            r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)]
        assert not anchor or anchor in headings, target


def test_nothing_that_a_run_writes_is_a_file_of_the_project():
    """Traces and pages that the docs' commands leave at the top are nobody's source."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files", "--", "*.h5", "*.html", "*.parquet", "*.log"], cwd=ROOT, text=True,
                           capture_output=True, check=True).stdout.split()
    assert files == ["docs/study/short.html"], "the page of the study, which the docs link to"
