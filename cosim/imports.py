"""Objects by import string, 'package.module:Name' or 'folder/file.py:Name'; names of earlier versions resolve to those
of today.

Version 0.1 installed `agents`, `simulators` and `scenarios` as packages of their own, had flatter folders and other
names of classes. Scenario files, traces and programs of then go on: `today` translates a name; a finder makes `import
agents.spec` give the very module that `cosim.agents.learn.spec` is, unless another package of that name is installed,
and gives modules their former names (`from cosim.table import Held`). What was translated is kept for a note of the run
(`old_names`). The names are data in `cosim.old_names`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from cosim.errors import CosimError, ScenarioError, cut, listed, unknown
from cosim.old_names import MODULES, OBJECTS, PACKAGES

CODE = ".py"
_ROOT = Path(__file__).resolve().parents[1]
_TOP = ("agents", "scenarios", "simulators")
"""Packages that stood beside `cosim`, and are inside it now."""
_WITH_OLD_OBJECTS = {name.partition(":")[0] for name in OBJECTS}

_NEEDED = ("clarabel", "gurobipy", "h5py", "mosaik", "mosaik_api_v3", "numpy", "pandapower", "pandas", "plotly",
           "pydantic", "pydantic_core", "rich", "safetensors", "scipy", "simpy", "torch")
_SHOWN = 2
_translated: dict[str, str] = {}


def find_beside(path: list[str]) -> None:
    """Let the package of this `__path__` find its folders that stand beside it in a clone, where nothing else finds
    them: Python started in a clone imports the clone's `cosim`, also where the package is installed as a copy."""
    if all((_ROOT / name).is_dir() for name in _TOP) and importlib.util.find_spec("cosim.scenarios") is None:
        path.append(str(_ROOT))


def today(name: str) -> str:
    """The present name of a module or of 'module:Name'; a name that is none of an earlier version comes back as it
    is."""
    if file_in(name):
        return name
    module, colon, rest = name.partition(":")
    inside = module.split(".")[0] in _TOP
    if inside and _foreign(module):
        return name
    now = (PACKAGES.get(module) if colon else None) or MODULES.get(module) or (f"cosim.{module}" if inside else module)
    if found := OBJECTS.get(f"{now}:{rest}"):
        _translated[name] = found
        return found
    if now == module:
        return name
    _translated[module] = now
    return f"{now}{colon}{rest}"


def old_names() -> list[str]:
    """A note on the names of version 0.1 that this process met; [] if there were none."""
    if not _translated:
        return []
    met = ", ".join(f"{then} is {now}" for then, now in sorted(_translated.items())[:_SHOWN])
    more = f" and {len(_translated) - _SHOWN} more" if len(_translated) > _SHOWN else ""
    return [f"names of version 0.1 stand for those of today: {met}{more}"]


def load(path: str, what: str) -> Any:
    """The object at 'package.module:Name' or 'folder/file.py:Name'. Raises ScenarioError naming `what` and the
    reason."""
    path = today(path)
    if file := file_in(path):
        return _from_file(*file, path, what)
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise ScenarioError(f"{what} '{cut(path)}' is not an import string; write package.module:Name, or "
                            "folder/file.py:Name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as err:
        raise ScenarioError(f"{what} '{path}' cannot be imported: {err}; install it, or check the name") from err
    except CosimError:
        raise
    except Exception as err:
        raise ScenarioError(f"{what} '{path}' fails on import: {type(err).__name__}: {err}") from err
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        place = getattr(module, "__file__", None)
        raise ScenarioError(f"{what} '{path}': {unknown(f'name in {module_name}', name, public)}"
                            + (f" (the module is {place})" if place else ""))
    return getattr(module, name)


def file_in(path: str) -> tuple[str, str] | None:
    """(file, name) of 'folder/file.py:Name', whose name is '' for a file alone; None for any other import string. The
    last colon parts them: a drive has one, too."""
    file, _, name = path.strip().rpartition(":")
    if file.lower().endswith(CODE):
        return file, name.strip()
    return (path.strip(), "") if path.strip().lower().endswith(CODE) else None


def see_beside(path: Path) -> None:
    """Let modules beside a file be imported, before all others."""
    folder = str(path.resolve().parent)
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)


def run_file(path: Path, module_name: str) -> ModuleType:
    """The module of a .py file, which is run; `module_name` is the module that its classes are of. Whatever it raises
    comes out."""
    see_beside(path)
    loader = SourceFileLoader(module_name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(module_name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[module_name] = module  # where pydantic and dataclasses look for what annotations name
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _from_file(file: str, name: str, path: str, what: str) -> Any:
    """The object of that name in a .py file, which is run once, however it is spelt."""
    if not os.path.isfile(file):
        raise ScenarioError(f"{what} '{cut(path)}': no file at {cut(file)}, as seen from {Path.cwd()}")
    real = Path(file).resolve()
    module_name = f"{real.stem}_in_{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"
    module = sys.modules.get(module_name)
    if module is None:
        try:
            module = run_file(real, module_name)
        except (CosimError, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as err:
            raise ScenarioError(f"{what} '{cut(path)}' fails on import: {type(err).__name__}: {err}") from err
    own = [n for n, value in vars(module).items() if not n.startswith("_") and callable(value)
           and getattr(value, "__module__", None) == module_name]
    if name in own or (name and hasattr(module, name)):
        return getattr(module, name)
    if not name:
        raise ScenarioError(f"{what} '{cut(path)}' names a file alone; write {cut(path)}:NAME, with one of "
                            f"{listed(own)}")
    raise ScenarioError(f"{what} '{cut(path)}': {unknown(f'name in {cut(file)}', name, own)}")


def own_folders() -> list[Path]:
    """Folders of this package's modules: its own, and those of the packages in it that stand elsewhere in a clone."""
    specs = [importlib.util.find_spec(f"cosim.{name}") for name in _TOP]
    return [_ROOT / "cosim", *(Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()
                               if not Path(place).is_relative_to(_ROOT / "cosim"))]


def refuse_shadows() -> None:
    """ImportError naming a file beside the user's program that would be imported in place of a package that this one
    needs; under `python -m cosim.run` one line in place of a traceback."""
    here = Path(sys.path[0] or ".").resolve() if sys.path else Path()
    if here.name in ("site-packages", "dist-packages"):
        return
    for name in _NEEDED:
        for place in (here / f"{name}.py", here / name / "__init__.py"):
            if place.is_file():
                text = f"{place} hides the package {name}, which cosim needs; rename it"
                raise SystemExit(f"cosim: {text}") if sys.argv[:1] == ["-m"] else ImportError(text)


@contextmanager
def optional(what: str, extra: str) -> Iterator[None]:
    """For imports of what an extra brings: ScenarioError, with how to install it, where `what` cannot be had."""
    try:
        yield
    except ImportError as err:
        raise ScenarioError(f"{what} needs what is not installed here ({err}); install it with: "
                            f"pip install 'aidc-cosim[{extra}]'") from err


def hand_over(package: str) -> None:
    """Put the package of today in the place of its folder, which was found under its old name, in a clone."""
    sys.modules[package] = importlib.import_module(f"cosim.{package}")


def _foreign(module: str) -> bool:
    """Whether another package of this name would be imported: another project's own `agents`, for example."""
    top = module.split(".")[0]
    if top in sys.modules:
        return sys.modules[top] is not sys.modules.get(f"cosim.{top}")
    spec = PathFinder.find_spec(top)
    places = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec else []
    return spec is not None and places[:1] != [_ROOT / top]


def _old_object(module: str, name: str) -> Any:
    """`__getattr__` of a module: what had this name in version 0.1."""
    found = OBJECTS.get(f"{module}:{name}")
    if found is None:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    _translated[f"{module}:{name}"] = found
    home, _, now = found.partition(":")
    return getattr(importlib.import_module(home), now)


class _WithOldObjects(SourceFileLoader):
    """A module of today, in which names of version 0.1 are found, too."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__dict__.setdefault("__getattr__", partial(_old_object, module.__name__))


class _OldNames(MetaPathFinder, Loader):
    """Modules under the names of version 0.1: the same objects as under those of today."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
                  ) -> ModuleSpec | None:
        if fullname in _WITH_OLD_OBJECTS:
            found = PathFinder.find_spec(fullname, path, target)
            if found and type(found.loader) is SourceFileLoader:
                found.loader = _WithOldObjects(found.loader.name, found.loader.path)
            return found
        if fullname.split(".")[0] not in _TOP and fullname not in MODULES:
            return None
        now = today(fullname)
        if now == fullname or (real := importlib.util.find_spec(now)) is None:
            return None
        spec = ModuleSpec(fullname, self, origin=real.origin,
                          is_package=real.submodule_search_locations is not None)
        self._specs[fullname] = real
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(today(spec.name))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it ran under its name of today, whose spec it keeps."""
        alias = module.__spec__
        module.__spec__ = self._specs[alias.name] if alias else None

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m agents.train`."""
        spec = importlib.util.find_spec(today(fullname))
        return spec.loader.get_code(spec.name) if spec and spec.loader else None  # type: ignore[attr-defined]


sys.meta_path.insert(0, _OldNames())
