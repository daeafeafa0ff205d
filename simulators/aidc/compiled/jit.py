"""Functions compiled by numba, and what of them is kept on disk.

What an entry was compiled to is kept in `__pycache__` beside its module, or in the user's cache directory where that
cannot be written (numba's rule; NUMBA_CACHE_DIR overrides both), or nowhere, and is then compiled in every process.
numba compares only the entry's own file to decide whether the cache is out of date. So the name under which an entry
is kept has a number that changes with the sources it depends on, which are those of this package, of its own, and of
the modules from which they have constants: after a change in any of them it is compiled anew, and what was kept of
another version is never opened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cosim.errors import ScenarioError

try:
    import numba
    from numba.extending import intrinsic
except ImportError as err:
    raise ScenarioError("the compiled fleet needs numba, which is not installed: pip install 'aidc-cosim[fast]', or "
                        "use the fleet on SimPy") from err

_IMPORT = re.compile(rb"^from (cosim[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
_CONSTANT = re.compile(rb"\b[A-Z][A-Z0-9_]+\b")


def sources_of(*folders: Path) -> int:
    """A number that changes with any module in these folders, and with those from which they import constants."""
    texts = b"".join(path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py")))
    texts += b"".join(path.read_bytes() for path in constants_of(texts))
    return int.from_bytes(hashlib.blake2b(texts, digest_size=7).digest(), "little")


def constants_of(text: bytes) -> list[Path]:
    """The modules of this package from which a source imports constants, to the compiler a part of the code."""
    modules = sorted({module.decode() for module, names in _IMPORT.findall(text) if _CONSTANT.search(names)})
    return [Path(str(spec.origin)) for spec in map(importlib.util.find_spec, modules) if spec is not None]


SOURCES = sources_of(Path(__file__).parent)

part = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""A function that entries call; compiled with the first entry that does."""


@intrinsic
def borrowed(typing_context, array):
    """The same array without a reference count, nor have its views one: counting, a locked instruction at
    every call of a part, would take most of the time. Good for as long as its owner keeps it, such as an entry its
    arguments."""
    def generate(context, builder, signature, arguments):
        mine = context.make_array(signature.args[0])(context, builder, arguments[0])
        mine.meminfo, mine.parent = mine.meminfo.type(None), mine.parent.type(None)
        return mine._getvalue()
    return array(array), generate


def entry(sources: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that Python calls: compiled at its first call, kept on disk where that is possible. It releases the
    interpreter's lock. sources: the number of what it depends on"""
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ = f"{function.__name__}-{sources:x}"
        try:
            return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError:  # numba found no directory that can be written
            return numba.njit(nogil=True, error_model="numpy")(function)
    return compiled
