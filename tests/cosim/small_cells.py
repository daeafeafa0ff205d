"""Cells that take milliseconds, for tests of campaigns."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from cosim.campaign.files import once, write_whole
from cosim.errors import ScenarioError


def square(folder: Path, x: float, seed: int = 0) -> dict:
    write_whole(folder / "x.txt", f"{x}\n")
    print("the square of", x)
    return {"square": x * x, "seed": seed}


def sum_of(folder: Path, keys: list[str]) -> dict:
    return {"sum": sum(float((folder.parent / key / "x.txt").read_text()) for key in keys)}


def wrong(folder: Path, how: str) -> dict:
    if how == "refused":
        raise ScenarioError("x = 1 is refused; take 2")
    if how == "internal":
        return {"x": 1 / 0}
    return {"x": float("nan")}


def in_steps(folder: Path, count: int, pause_s: float = 0.0) -> dict:
    """Steps of which each stands on the one before; how often each was computed is in a file beside the cells."""
    total = 0
    for k in range(count):
        def step(k: int = k, total: int = total) -> dict:
            with (folder.parents[1] / "steps.log").open("a") as file:
                file.write(f"{k}\n")
            time.sleep(pause_s)
            return {"total": total + k}
        total = once(folder / f"step{k}.json", step)["total"]
    return {"total": total}


def killed_once(folder: Path) -> dict:
    """Its process dies in the first try."""
    mark = folder / "tried"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    mark.unlink()
    return {"fine": True}


def always_killed(folder: Path) -> dict:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
