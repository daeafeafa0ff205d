"""Are the lower bounds in setup.cfg true? Installs exactly those versions in a new folder and runs scenarios there.

    python tests/lowest.py FOLDER

It needs network access and some 500 MB, and is therefore no part of the test suite. Exit code 0: all of it ran.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = ("two_bus", "ieee33", "ieee33_economic")


def lowest(requirements: str) -> list[str]:
    """`name==version` of every `name>=version` line."""
    found = [re.match(r"([\w.-]+)>=([\w.]+)", line.strip()) for line in requirements.splitlines() if line.strip()]
    return [f"{m[1]}=={m[2]}" for m in found if m]


def main(folder: Path) -> int:
    """Install and run; the exit code of the first step that fails."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    runs = [["-m", "pip", "install", *lowest(config["options"]["install_requires"])], ["-m", "pip", "check"],
            *(["-m", "cosim.run", name, "--until", "15min", "--quiet", "--force", "--out", str(folder / f"{name}.h5")]
              for name in SCENARIOS)]
    for run in runs:
        print("$ python", *run, flush=True)
        if code := subprocess.run([str(python), *run], cwd=ROOT).returncode:
            return code
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/lowest.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
