"""What is no table at all, given as one: each reader of a member's files says so in a line of an error of ours."""

import os
from pathlib import Path

import pytest

from cosim.errors import LONGEST, ScenarioError
from cosim.simulators.flexibility.events import read_events
from cosim.simulators.profile import read_shape
from cosim.tables.files import read_columns


def table(path):
    """All numbers of a file, which has to have a row."""
    columns = read_columns(Path(path))
    if not len(columns):
        raise ScenarioError(f"{path} has no row")
    for name in columns.names:
        columns.numbers(name)


READERS = {"events": (lambda path: read_events(path, "flexibility.events"), "e.csv", "start_h,length_h,reduce_kw"),
           "shape": (read_shape, "s.csv", "factor,time"), "weather": (table, "w.epw", "LOCATION,a"),
           "TMY3": (table, "w.csv", "724666,X\nDate (MM/DD/YYYY),Time (HH:MM),GHI (W/m^2)"),
           "table": (table, "t.csv", "time_s,a_kw")}
FILES = {"no text": b"\xff\xfe\x00\x80" * 999, "nothing": b"", "NUL": b"%s\n0\0,1,1\n",
         "one cell": b"%s\n" + b"x" * 10**6, "a header": b"%s\n",
         "a return": b"%s\nx\ry,1\n", "a quote": b'%s\n"' + b"1,1,1\n" * 30000, "ragged": b"%s\n1,2,3,4,5,6\n",
         "wide": b"%s" + b",c" * 200000 + b"\n1,1\n"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", FILES)
def test_no_table_is_one_line(reader, content, tmp_path):
    read, name, head = READERS[reader]
    path = tmp_path / name
    path.write_bytes(FILES[content].replace(b"%s", head.encode()))
    with pytest.raises(ScenarioError) as said:
        read(str(path))
    assert name in str(said.value)
    assert "\n" not in str(said.value)
    assert len(str(said.value)) <= LONGEST


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "memory"])
def test_no_file_is_one_line(reader, kind, tmp_path):
    read, name, _ = READERS[reader]
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else "/proc/self/mem")
    with pytest.raises(ScenarioError):
        read(str(path))
