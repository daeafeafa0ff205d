"""Are the type hints true? mypy, as pyproject.toml sets it, over the package that the four folders install as.

    python tests/typecheck.py                # everything; further arguments go to mypy, say --warn-unreachable
    python tests/typecheck.py -p cosim.trace # a part

mypy finds the name of a module by the folders it stands in and cannot be told that `agents/` is `cosim.agents`: it gets
a copy, laid out as it is installed. Cold it takes half a minute, then seconds. Exit code 0: no error.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mypy import api

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".mypy_cache"


def folders() -> dict[str, str]:
    """Package -> folder, as setup.cfg says; a package stands before those inside it."""
    listed = configparser.ConfigParser()
    listed.read(ROOT / "setup.cfg", encoding="utf-8")
    pairs = (line.split("=") for line in listed["options"]["package_dir"].strip().splitlines())
    return dict(sorted((package.strip(), folder.strip()) for package, folder in pairs))


def lay_out(place: Path) -> None:
    """The package in a folder of its own; times of files stay, by which mypy knows what has changed."""
    shutil.rmtree(place, ignore_errors=True)
    for package, folder in folders().items():
        shutil.copytree(ROOT / folder, place / package.replace(".", "/"), ignore=shutil.ignore_patterns("__pycache__"))


def main(argv: Sequence[str]) -> int:
    """mypy's exit code; what it prints names the files of the repository."""
    place = CACHE / "package"
    lay_out(place)
    os.chdir(place)
    what = argv if "-p" in argv else ["-p", "cosim", *argv]
    said, failed, code = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(CACHE), *what])
    for package, folder in reversed(folders().items()):
        said = re.sub(rf"^{re.escape(package.replace('.', os.sep) + os.sep)}", f"{folder}/", said, flags=re.M)
    print(said, end="")
    print(failed, end="", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
