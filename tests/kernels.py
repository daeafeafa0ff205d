"""What a program gives under other kernels of linear algebra and other vector instructions: as processes of their own,
since both libraries choose at their start. As a program, it prints a digest of what trained teams do."""

import hashlib
import os
import subprocess
import sys
from functools import cache

import numpy as np

_PRODUCTS = ("import numpy as np; r = np.random.default_rng(0); a = r.random((40, 40)); "
             "print(hash((a @ a).tobytes() + (a[0] @ a).astype('f4').tobytes()))")


_NEEDS = {"Nehalem": {"X86_V2", "SSE42"}, "Haswell": {"X86_V3", "AVX2"}, "SkylakeX": {"X86_V4", "AVX512_SKX"}}
"""Kernels of OpenBLAS, and by what names numpy has the instructions that they are made of."""


def here() -> list[dict[str, str]]:
    """Environments that make numpy compute by other means than it does by itself, as far as this processor can."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    found = extensions.get("found", [])
    kernels = [{"OPENBLAS_CORETYPE": core} for core, any_of in _NEEDS.items()
               if any_of & {*found, *extensions.get("baseline", [])}]
    return kernels + ([{"NPY_DISABLE_CPU_FEATURES": " ".join(found)}] if found else [])


def said(words: list[str], environment: dict[str, str], ok: int = 0) -> str:
    """Standard output of a python process; it has to end with exit code `ok`."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True,
                          env={**os.environ, "PYTHONHASHSEED": "0", **environment})
    assert done.returncode == ok, done.stdout + done.stderr
    return done.stdout


@cache
def that_matter() -> list[dict[str, str]]:
    """Of `here`, the first whose matrix products have other bits; none where the kernels are all the same."""
    usual = said(["-c", _PRODUCTS], {})
    return next(([e] for e in here() if "OPENBLAS_CORETYPE" in e and said(["-c", _PRODUCTS], e) != usual), [])


def blas(environment: dict[str, str]) -> str:
    """What a trace says of its library of linear algebra when it is made there."""
    return said(["-c", "from cosim.trace.machine import versions; print(versions()['blas'])"], environment).strip()


def actions(path: str) -> np.ndarray:
    """Joint actions of a checkpoint's team on what it has not seen before."""
    from cosim.agents.learn.numpy_actor import ActingTeam
    team, rng = ActingTeam(path), np.random.default_rng(5)
    count, (seen, told, _) = len(team.spec.agents), team.spec.widths
    out = []
    for _ in range(40):
        decision = team.begin(rng.uniform(-1, 1, (1, count, seen)).astype(np.float32))
        decision.lead()
        out.append(decision.follow(rng.uniform(-1, 1, (1, count, told)).astype(np.float32)).action.copy())
    return np.array(out)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(hashlib.sha256(actions(name).tobytes()).hexdigest())
