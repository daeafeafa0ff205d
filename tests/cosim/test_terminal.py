"""What is printed at 60 and 80 columns: no line is wider, no number or word is broken, what drops out is said."""

import re

import pytest

from cosim.console import plain_console, print_digest, say
from cosim.digest import Digest, Table
from cosim.run import main
from cosim.trace.command import main as trace_main

WIDE = Table("Waits", ("class", "began", "wait p50 s", "p95 s", "p99 s", "what it means in words", "GPUs"),
             [("deep_research", "158376", "11268", "20808", "21960 s", "one of the longer sentences", "12 of 400")])


def printed(table, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_digest(plain_console(), Digest(tables=[table]))
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80])
def test_columns_drop_out_and_it_is_said(width, monkeypatch, capsys):
    text = printed(WIDE, width, monkeypatch, capsys)
    assert all(len(line) <= width for line in text.splitlines())
    shown, _, gone = text.partition("no room in")
    dropped = [c.strip() for c in gone.partition("for: ")[2].replace("\n ", "").split(";")]
    kept = WIDE.columns if not gone else WIDE.columns[:-len(dropped)]
    assert [*kept, *dropped][:len(WIDE.columns)] == list(WIDE.columns)
    for k, column in enumerate(kept):
        for word in column.split():
            assert word in shown
        assert set(WIDE.rows[0][k].split()) <= set(shown.split())
    if "p99 s" in kept:
        assert "21960 s" in shown


def test_a_wide_output_has_every_column(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_digest(plain_console(), Digest(tables=[WIDE]))
    text = capsys.readouterr().out
    assert "no room" not in text
    assert "12 of 400" in text
    assert re.search(r"deep_research +158376 +11268", text), "numbers stand at the right of their columns"


def test_a_long_sentence_ends_its_lines_between_words_and_a_long_path_is_not_broken(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    path = "/" + "folder/" * 12 + "run.h5"
    say(plain_console(), f"trace: {path} reaches 12 345 kW of load, which is more than the rating of 12 MVA")
    lines = capsys.readouterr().out.splitlines()
    assert any(path in line for line in lines)
    assert all(len(line) <= 60 for line in lines if path not in line)
    assert any("345 kW" in line for line in lines)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("width", [60, 80])
def test_the_commands_keep_to_the_terminal(width, traces, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    path = str(traces["crowded"])
    for call in (lambda: main(["--list"]), lambda: main(["two_bus", "--show"]), lambda: trace_main(["ls", path]),
                 lambda: trace_main(["verify", path]), lambda: trace_main(["diff", path, str(traces["plain"])])):
        call()
        for line in capsys.readouterr().out.splitlines():
            assert len(line) <= width or max(map(len, line.split())) > width - 20, line
