"""A .dss file from somebody else: what does more than describe a circuit is refused before OpenDSS reads a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.errors import ScenarioError

pytest.importorskip("opendssdirect", reason="OpenDSS is not installed (extra opendss)")

from cosim.simulators.grid.opendss_circuit import Circuit  # noqa: E402

CIRCUIT = """clear
new circuit.c bus1=a basekv=10 phases=3
new line.l1 bus1=a bus2=b r1=(1 2 /) x1=1 r0=1 x0=1 c1=0 c0=0 length=1 units=none
new load.own bus1=b kv=10 kw=300 kvar=0
"""

ATTACKS = {
    "an editor": "set editor={folder}/editor.sh\nfileedit {folder}/circuit.dss",
    "an editor, abbreviated": "set edito={folder}/editor.sh\nfileed circuit.dss",
    "an editor by solve": "solve editor={folder}/editor.sh",
    "an editor by position": "set mode=snap /bin/sh",
    "show": "solve\nshow voltages",
    "show, abbreviated": "sh v",
    "show in quotes": '"show" voltages',
    "show after a sign": " =show voltages",
    "show in capitals": "SHOW VOLTAGES",
    "export": "solve\nexport voltages {folder}/precious.csv",
    "export, abbreviated": "exp v precious.csv",
    "save": "save circuit dir={folder}/saved",
    "plot": "plot profile",
    "dump": "dump load.own",
    "a folder": "cd ..",
    "a folder for output": "set datapath={folder}/elsewhere",
    "a folder for output, abbreviated": "set data={folder}/elsewhere",
    "a shell": "doscmd touch {folder}/mark",
    "a library": "new generator.g bus1=b usermodel={folder}/evil.so",
    "a library beside": "new generator.g bus1=b usermodel=evil.so",
    "a library, abbreviated": "new generator.g bus1=b userm=evil.so",
    "a library after a line": "new generator.g bus1=b\n~ userm=evil.so",
    "a library in capitals": "New Generator.g bus1=b\nMore UserModel='evil.so'",
    "a library by dots": "new generator.g bus1=b\ngenerator.g.usermodel=evil.so",
    "a library by edit": "new generator.g bus1=b\nedit generator.g shaftmodel=evil.so",
    "a library by batchedit": "new generator.g bus1=b\nbatchedit generator..* userm=evil.so",
    "a library of a storage": "new storage.s bus1=b dynadll=evil.so",
    "a library by position": "new generator.g bus1=b pvfactor=1 evil.so",
    "a library by position alone": "new generator.g b 3 evil.so",
    "a library behind a quoted comment": 'new generator.g bus1="b ! " userm=evil.so',
    "a trace": "new generator.g bus1=b debugtrace=yes\nsolve",
    "a meter that saves": "new energymeter.m line.l1 action=save",
    "a shape that saves": "new loadshape.s npts=2 mult=(1 2) action=dblsave",
    "a recorder": "set recorder=yes\nsolve",
    "a log of questions": "set querylog=yes\n? load.own.kw",
    "demand intervals": "set demandinterval=yes",
    "another file": "redirect {outside}/other.dss",
    "another file upwards": "redirect ../other.dss",
    "another file with backslashes": "redirect ..\\other.dss",
    "another file compiled": "compile '{outside}/other.dss'",
    "another file by a link": "redirect link.dss",
    "another file by a variable": "var @p={outside}/other\nredirect @p",
    "another file behind a comment": "redirect inner!x.dss",
    "numbers of another file": "new loadshape.s npts=1 csvfile={outside}/numbers.csv",
    "numbers of another file, abbreviated": "new loadshape.s npts=1 cs=../numbers.csv",
    "numbers of another file in brackets": "new loadshape.s npts=1 mult=(file={outside}/numbers.csv)",
    "numbers of another file in quotes in brackets": 'new loadshape.s npts=1 mult=[ "{outside}/numbers.csv" ]',
    "numbers by a link": "new loadshape.s npts=1 csvfile=numbers.csv",
    "coordinates of another file": "buscoords {outside}/numbers.csv",
    "what a file redirects to": "redirect inner.dss",
    "what a file two further redirects to": "redirect sub/deeper.dss",
    "a loop": "redirect circuit.dss",
    "a bare carriage return": "! a comment\rshow voltages",
    "a control character": "new load.x\x0bshow",
    "behind a comment that is none": " /* \nshow voltages\n*/",
    "nested quotes": "new load.x bus1=" + "(" * 5000,
    "a name that leaves": "new circuit.../../c",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    inner = tmp_path / "circuit"
    (inner / "sub").mkdir(parents=True)
    (inner / "editor.sh").write_text(f"#!/bin/sh\ntouch {inner}/mark\n")
    (inner / "editor.sh").chmod(0o755)
    (inner / "precious.csv").write_text("precious")
    (inner / "inner.dss").write_text("show voltages\n")
    (inner / "inner!x.dss").write_text("\n")
    (inner / "sub" / "deeper.dss").write_text("redirect ../inner.dss\n")
    (tmp_path / "other.dss").write_text("new load.other bus1=b\n")
    (tmp_path / "numbers.csv").write_text("1\n")
    (inner / "link.dss").symlink_to(tmp_path / "other.dss")
    (inner / "numbers.csv").symlink_to(tmp_path / "numbers.csv")
    return inner


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.parent.rglob("*")) if p.is_file()}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_does_more_than_describe_a_circuit_is_refused_unread(attack, folder, monkeypatch):
    text = ATTACKS[attack].format(folder=folder, outside=folder.parent)
    (folder / "circuit.dss").write_bytes((CIRCUIT + text + "\n").encode("latin-1"))
    before = contents(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(ScenarioError, match="nothing of the circuit was read") as refused:
        Circuit(folder / "circuit.dss", "grid")
    assert len(str(refused.value)) < 500
    assert contents(folder) == before


def test_a_circuit_of_several_files_is_read(folder):
    """Abbreviations, block comments, comments with commands, arithmetic, tables and files within the folder."""
    (folder / "shape.csv").write_text("0.5\n1.5\n")
    (folder / "xy.csv").write_text("a, 0, 0\nb, 1, 1\n")
    (folder / "sub" / "lines.dss").write_text("redirect more.dss\nnew load.two bus1=b kw=20 ! show voltages\n")
    (folder / "sub" / "more.dss").write_text("New Load.three bus1=b kw=30 // export powers /tmp/x\n")
    (folder / "circuit.dss").write_text(CIRCUIT + (
        "/* a block\nshow voltages\n*/ export\n"
        "new loadshape.day npts=2 interval=12 mult=(file=shape.csv)\nNew LoadShape.two 2 12 csvfile='shape.csv'\n"
        "new generator.g bus1=b kw=10 D=1 model=1\nnew energymeter.m line.l1 1\nnew monitor.m line.l1 2 mode=1\n"
        "redirect sub\\lines.dss\nset voltagebases=[10, 0.4] mode=snap\ncalcv\nsol\nbuscoords xy.csv\n! show voltages\n"
        "//show voltages\nbatchedit load..* vminpu=0.1\nLoad.own.kw=(300 2 /)\n"))
    dss = Circuit(folder / "circuit.dss", "grid")._dss
    assert set(dss.Loads.AllNames()) == {"own", "two", "three"}
    dss.Loads.Name("own")
    assert dss.Loads.kW() == 150.0
    dss.LoadShape.Name("two")
    assert dss.LoadShape.PMult() == [0.5, 1.5]
