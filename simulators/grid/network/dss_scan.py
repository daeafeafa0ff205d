"""What the commands of a .dss file would do beside describing a circuit, found before OpenDSS reads them.

OpenDSS is a scripting language: its commands start an editor, write files wherever they like, load libraries and change
folders. Allowed here are the commands that build and solve a circuit, and files within the master file's own folder.
Read as OpenDSS reads: abbreviated names, any case, quotes " ' ( [ {, comments from ! or //, lines from /* to */.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cosim.errors import ScenarioError, cut

COMMANDS = frozenset({
    "new", "edit", "more", "m", "~", "select", "solve", "enable", "disable", "set", "open", "close", "redirect",
    "compile", "?", "clear", "clearall", "calcvoltagebases", "setkvbase", "buildy", "get", "init", "reset", "buscoords",
    "latlongcoords", "makebuslist", "makeposseq", "setloadandgenkv", "batchedit", "allocateloads", "interpolate",
    "setbusxy", "solveall", "addbusmarker", "clearbusmarkers", "reprocessbuses", "remove"})
"""Commands that a circuit needs."""
_SCRIPTS, _TABLES = frozenset({"redirect", "compile"}), frozenset({"buscoords", "latlongcoords"})
"""Commands that run, and that read, the file that they name."""
_SETTINGS = frozenset({"set", "solve"})
_WRITING = ("editor", "datapath", "log", "recorder", "querylog", "demandinterval", "diverbose", "overloadreport",
            "voltexceptionreport", "showexport", "showreports", "registryupdate", "dssvisualizationtool")
"""Options that name a program or a folder, or have files written."""
_LOADING = ("usermodel", "userdata", "shaftmodel", "shaftdata", "dynadll", "dynadata", "debugtrace")
"""Properties that load a library or have files written."""
_DAMPING, _YES = "d", ("y", "t")
"""A generator's own `D`, which in other classes may abbreviate debugtrace; what switches that on."""
_FILES = ("csvfile", "sngfile", "dblfile", "pqcsvfile", "file")
"""Properties that read the file that they name."""
_PLAIN = frozenset({"line", "load", "transformer", "autotrans", "capacitor", "reactor", "vsource", "circuit", "isource",
                    "fault", "linecode", "linegeometry", "linespacing", "wiredata", "cndata", "tsdata", "xfmrcode"})
"""Classes without such properties: theirs may be given by position."""
_LEADING = 2
"""Unnamed values that may begin an object of another class: what it watches, and its terminal."""
_SAVES = ("s", "d", "z")
"""First letters of actions that write files: save, dblsave, sngsave, zonedump."""
_QUOTES = {'"': '"', "'": "'", "(": ")", "[": "]", "{": "}"}
_AWAY = re.compile(r"/\S|~/|[a-z]:/|(.*/)?\.\.(/|$)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NUMBERS = re.compile(r"[\d\s.,|eE+-]*")
LARGEST_MB, MOST_FILES = 64, 1000
"""Of all files that a circuit consists of, together."""
DEEPEST = 8
"""Quotes within each other."""

Word = tuple[str, str]
"""(name before a '=', or '', and value)."""


def check(master: Path, commands: Sequence[str], options: Sequence[str]) -> None:
    """ScenarioError for the first line of a circuit's files that does more than describe it.

    commands, options: all names of OpenDSS, for their abbreviations.
    """
    _Scan(master.resolve().parent, [c.lower() for c in commands], [o.lower() for o in options]).read(master.resolve())


class _Refused(ValueError):
    """What a line must not do."""


@dataclass
class _Scan:
    root: Path
    commands: list[str]
    options: list[str]
    here: Path = field(init=False)
    kind: str = ""
    chain: list[Path] = field(default_factory=list)
    n_files: int = 0
    n_bytes: int = 0

    def __post_init__(self) -> None:
        self.here = self.root

    def read(self, path: Path) -> None:
        """Look through a file and all that it redirects to; afterwards names count from where they did before."""
        before, self.here = self.here, path.parent
        self.n_files, self.n_bytes = self.n_files + 1, self.n_bytes + path.stat().st_size
        if path in self.chain:
            raise ScenarioError(f"{path} redirects to itself; nothing of the circuit was read")
        if self.n_files > MOST_FILES or self.n_bytes > LARGEST_MB * 1_000_000:
            raise ScenarioError(f"{path}: a circuit may have {MOST_FILES} files of {LARGEST_MB} MB together")
        self.chain.append(path)
        in_block = False
        for number, line in enumerate(re.split(r"\r\n|\r|\n", path.read_bytes().decode("latin-1")), 1):
            in_block = in_block or line.startswith("/*")
            if not in_block:
                try:
                    self._line(line)
                except _Refused as err:
                    raise ScenarioError(f"{path}, line {number}: {err}; nothing of the circuit was read. Remove it, "
                                        "and keep what it needs in the master file's folder") from None
            in_block = in_block and "*/" not in line
        self.chain.pop()
        self.here = before

    def _line(self, line: str) -> None:
        if control := _CONTROL.search(line):
            raise _Refused(f"the control character {control[0]!r}")
        words = list(_words(line))
        while words and words[0] == ("", ""):
            words.pop(0)
        if not words:
            return
        (name, value), rest = words[0], words[1:]
        if name:  # Class.name.property=value
            self._properties([(name.rpartition(".")[2], value), *rest], "line")
            return
        command = self._command(value)
        if command in _SCRIPTS or command in _TABLES:
            self._file(command, rest)
        elif command in _SETTINGS:
            self._settings(rest)
        else:
            if command in ("new", "edit", "batchedit", "select") and rest:
                self.kind, rest = rest[0][1].partition(".")[0].lower(), [("", rest[0][1]), *rest[1:]]
            self._properties(rest, self.kind, led=1 if command in ("new", "edit", "batchedit", "select") else 0)

    def _command(self, text: str) -> str:
        """The command that a text abbreviates. _Refused for one that no circuit needs."""
        told = text.lower()
        meant = [told] if told in self.commands else [c for c in self.commands if c.startswith(told)]
        wrong = [c for c in meant if c not in COMMANDS]
        if wrong:
            raise _Refused(f"the command '{cut(text)}' ({wrong[0]}) does more than describe a circuit")
        return meant[0] if meant else told  # OpenDSS refuses unknown names

    def _file(self, command: str, words: Sequence[Word]) -> None:
        given = words[0][1] if words else ""
        found = [path for name in (given, f"{given}.dss")
                 if (path := self.here / self._inside(name)).is_file()] if given else []
        if not found:
            raise _Refused(f"{command} names no file of this folder: '{cut(given)}'")
        for path in found if command in _SCRIPTS else ():
            self.read(path.resolve())
            if command == "compile":
                self.here = path.resolve().parent

    def _settings(self, words: Sequence[Word]) -> None:
        for name, value in words:
            told = name.lower()
            meant = [told] if told in self.options else [o for o in self.options if o.startswith(told)]
            if name and any(o in _WRITING for o in meant):
                raise _Refused(f"the option '{cut(name)}' starts programs or has files written")
            if not name and not _NUMBERS.fullmatch(value):
                raise _Refused(f"the value '{cut(value)}' without the option's name")
            self._value(value)

    def _properties(self, words: Sequence[Word], kind: str, led: int = 0, depth: int = 0) -> None:
        for at, (name, value) in enumerate(words):
            told = name.lower()
            if told and any(refused.startswith(told) for refused in _LOADING) and (
                    told != _DAMPING or value.lower().startswith(_YES)):
                raise _Refused(f"the property '{cut(name)}' loads a library or has files written")
            if told and any(file.startswith(told) for file in _FILES):
                self._inside(value)
            if told and "action".startswith(told) and value.strip().lower().startswith(_SAVES):
                raise _Refused(f"the action '{cut(value)}' writes files")
            if not told and kind and kind not in _PLAIN and not _NUMBERS.fullmatch(value) and (
                    at >= led + _LEADING or any(earlier for earlier, _ in words[led:at])):
                raise _Refused(f"the value '{cut(value)}' of a {cut(kind)} without its property's name")
            self._value(value, depth)

    def _value(self, value: str, depth: int = 0) -> None:
        """What is inside of quotes is read again."""
        if depth > DEEPEST:
            raise _Refused(f"quotes nest deeper than {DEEPEST}")
        if _AWAY.match(value.replace("\\", "/")):
            raise _Refused(f"'{cut(value)}' lies outside of the folder")
        inner = list(_words(value, comments=False))
        if inner != [("", value)]:
            self._properties(inner, "", depth=depth + 1)

    def _inside(self, name: str) -> str:
        """A path as it is written here. _Refused for one that leaves the folder, by a link too, or is ambiguous."""
        plain = name.strip().replace("\\", "/")
        if "@" in plain or "!" in plain or "//" in plain:
            raise _Refused(f"the file name '{cut(name)}' holds '@', '!' or '//'")
        if _AWAY.match(plain) or not (self.here / plain).resolve().is_relative_to(self.root):
            raise _Refused(f"'{cut(name)}' lies outside of the folder")
        return plain


def _words(line: str, comments: bool = True) -> Iterator[Word]:
    """(name, value) pairs of a line, as OpenDSS cuts it."""
    at, name = 0, ""
    while True:
        token, at, ended = _token(line, at, comments)
        if token is None:
            if name:
                yield name, ""
            return
        if ended == "=" and not name and token:
            name = token
            continue
        yield name, token
        name = ""


def _token(line: str, at: int, comments: bool) -> tuple[str | None, int, str]:
    """(token, where the next begins, ',' or '=' if that ended it); None at the line's end."""
    while at < len(line) and line[at] in " \t":
        at += 1
    if at >= len(line) or (comments and _is_comment(line, at)):
        return None, len(line), ""
    if line[at] in _QUOTES:
        end = line.find(_QUOTES[line[at]], at + 1)
        end = len(line) if end < 0 else end
        token, at = line[at + 1:end], end + 1
    else:
        start = at
        while at < len(line) and line[at] not in " \t,=" and not (comments and _is_comment(line, at)):
            at += 1
        token = line[start:at]
    while at < len(line) and line[at] in " \t":
        at += 1
    if at < len(line) and line[at] in ",=":
        return token, at + 1, line[at]
    return token, at, ""


def _is_comment(line: str, at: int) -> bool:
    return line[at] == "!" or line.startswith("//", at)
