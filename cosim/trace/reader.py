"""HDF5 traces read back as arrays; `cosim.trace.writer` writes them.

Layout (format 'aidc-cosim trace', schema 1):

    /                          attributes: format, schema_version, status, scenario (JSON), seed, driver, versions,
                               summary (JSON: the run's summary), ...
    /<member>/<model>/time_s   int64 seconds since the start, CF units
    /<member>/<model>/entity   names
    /<member>/<model>/<dim>    names along a further axis, e.g. job_class
    /<member>/<model>/<port>   float64 (time_s, entity[, dim]); attributes units, long_name, sign
    /<table>/<column>          one row a job, for example; 'wiring': the connections; 'initial': what those that are
                               shifted in time carry before their first value; '<member>.<name>': what of a member
                               stays as it is, 'grid.branches' for example

Axes are HDF5 dimension scales, so xarray and netCDF4 label them; h5py and h5dump read all of it (the one filter is
gzip). Each model's group is a NeXus NXdata (attributes NX_class, signal, axes): h5web shows its power, or else its
first scalar port; `default` leads it there from the root.
After a kill the file holds what was flushed; a kill inside a flush may leave values that the times do not show yet, so
the reader takes the shorter.

`schema_version` is a whole number. It grows when a reader of the old layout would fail or misread: a path, shape, type,
unit or meaning changes. It stays when something is added that old readers pass over (a port, a table, an attribute).
A reader reads its own version and all older ones; a file of a newer one is refused, by name. So is one that is not
built like this (`cosim.trace.form`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast
from warnings import catch_warnings, simplefilter

import h5py
import numpy as np

from cosim.errors import CosimError, TraceError, cut, first_line, unknown
from cosim.limits import is_file
from cosim.trace.file_scan import refuse_leading_out
from cosim.trace.form import odd_attribute
from cosim.trace.seal import BLOCK, check_seal
from cosim.trace.supervised import DAMAGE, RESCUE, refuse_unreadable
from cosim.units import LONGEST_S

FORMAT = "aidc-cosim trace"
SCHEMA_VERSION = 1
_LAST_ASCII = 127
_CACHE_BYTES = 1 << 18
"""Of each dataset HDF5 keeps in memory. What is read is read once; its own 8 MiB would keep a long run's trace."""
_REQUIRED = {"format", "schema_version", "status", "error"}


Method = TypeVar("Method", bound=Callable[..., Any])


def _reads(method: Method) -> Method:
    """TraceError instead of whatever h5py raises while a method reads."""

    @wraps(method)
    def read(self: Trace, *args: Any) -> Any:
        try:
            return method(self, *args)
        except DAMAGE as err:
            raise _damaged(self.path, "/".join(map(str, args)) or method.__name__, err) from None

    return cast(Method, read)


def _open(path: Path) -> h5py.File:
    """Without a lock, so that a running file can be read; HDF5 requires the same setting for all handles of a file in a
    process."""
    try:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
    except OSError as err:
        if "locking flag" not in str(err):
            raise
        return h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)


def _text(stored: np.ndarray) -> np.ndarray:
    """Stored UTF-8 of one width as text. Plain ASCII becomes what numpy holds text as by widening its bytes, 20 times
    faster than by decoding every element."""
    raw = np.ascontiguousarray(stored).view(np.uint8).reshape(len(stored), stored.itemsize)
    if len(stored) == 0 or raw.max() > _LAST_ASCII:
        return np.char.decode(stored, "utf-8")
    width = int(np.flatnonzero(raw.any(axis=0)).max(initial=0)) + 1
    return raw[:, :width].astype(np.uint32).view(f"U{width}")[:, 0]


def _damaged(path: Path, what: str, err: Exception) -> TraceError:
    return TraceError(f"{path} is damaged: {what} cannot be read ({first_line(err)}); {RESCUE}")


@contextmanager
def reading(*paths: str | os.PathLike) -> Iterator[None]:
    """TraceError where what is worked out of some traces fails by what they hold: they have the form of a trace, and
    numbers that no run writes. numpy's warnings are off meanwhile: the figures show them."""
    try:
        with np.errstate(all="ignore"), catch_warnings():
            simplefilter("ignore", RuntimeWarning)
            yield
    except (CosimError, BrokenPipeError):
        raise
    except (*DAMAGE, ArithmeticError, LookupError, MemoryError, RecursionError) as err:
        names = cut(", ".join(map(str, paths)), 120, 40)
        raise TraceError(f"{names} cannot be read as what a run has written: {type(err).__name__}: {first_line(err)}; "
                         "cosim trace ls shows what a trace holds, --debug where it failed") from err


def _refuse_changed(path: Path) -> bytes:
    """The digest of a file that is as it was sealed; empty when it has no seal. TraceError for one that is not there,
    cannot be read, or has changed: HDF5 may hang or crash on what is not what it wrote, and is not let near it."""
    if not is_file(path):
        raise TraceError(f"no trace at {path}")
    try:
        seal = check_seal(path)
    except OSError as err:
        raise TraceError(f"{path} cannot be read: {err.strerror or err}") from None
    if seal is not None and seal.changed:
        raise TraceError(f"{path} is damaged: {len(seal.changed)} of its {seal.blocks} blocks of {BLOCK >> 10} KiB are "
                         f"not as they were written, the first at byte {seal.changed[0] * BLOCK}; {RESCUE}")
    if seal is not None and not seal.twice:
        raise TraceError(f"{path} is damaged in its checksums; {RESCUE}: all of it")
    return b"" if seal is None else seal.digest


class Trace:
    """A trace read back. Use as a context manager.

    trace["aidc/Site/p_kw"] -> ndarray (time, entity[, dim]);  trace.time_s("aidc/Site");  trace.table("jobs").
    sealed: whether checksums of the whole file were there and hold (a finished run's; not one that was killed).
    Raises TraceError when the file is missing, is no trace, does not hold what is requested, is damaged, or leads out
    of itself (`cosim.trace.file_scan`).
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lengths: dict[str, int] = {}
        self._opened: dict[str, Any] = {}  # to open a thing takes HDF5 longer than to read it
        self._members: dict[str, dict[str, Any]] = {}
        self._names: dict[tuple[str, str], list[str]] = {}
        self._ports: dict[str, list[str]] = {}
        digest = _refuse_changed(self.path)
        self.sealed = bool(digest)
        if not self.sealed:
            refuse_unreadable(self.path)
        try:
            self._file = _open(self.path)
        except (OSError, RuntimeError, ValueError) as err:
            raise TraceError(f"{self.path} is not a readable HDF5 file: {first_line(err)}; {RESCUE}") from None
        try:
            refuse_leading_out(self._file, self.path, digest)
            self._attrs = attrs = dict(self._file.attrs)
        except TraceError:
            self._file.close()
            raise
        except DAMAGE as err:  # its superblock is whole, what follows is not
            self._file.close()
            raise _damaged(self.path, "what it is made of", err) from None
        if attrs.get("format") != FORMAT or not attrs.keys() >= _REQUIRED:
            self._file.close()
            raise TraceError(f"{self.path} is HDF5 but not an {FORMAT} (attributes {', '.join(sorted(_REQUIRED))})")
        version = attrs["schema_version"]
        if not isinstance(version, int | np.integer) or not 0 < version <= SCHEMA_VERSION:
            self._file.close()
            raise TraceError(f"{self.path} has trace schema {cut(str(version))}; this version of aidc-cosim reads "
                             f"schemas up to {SCHEMA_VERSION}: update it, or read the file with h5py")
        if wrong := next((f"{name} {odd}" for name, value in attrs.items() if (odd := odd_attribute(name, value))), ""):
            self._file.close()
            raise TraceError(f"{self.path} is no trace of this program's: its attribute {wrong}; nothing of it was "
                             f"run. {RESCUE}")

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def attrs(self) -> dict[str, Any]:
        """Root attributes, as they were when the file was opened."""
        return dict(self._attrs)

    @_reads
    def models(self) -> list[str]:
        """Paths 'member/Model' of all recorded models."""
        return [f"{m}/{k}" for m, g in self._inside(self._file).items() for k, v in self._inside(g).items()
                if isinstance(v, h5py.Group)]

    @_reads
    def tables(self) -> list[str]:
        """Names of tables with a row per event."""
        return [m for m, g in self._inside(self._file).items()
                if all(isinstance(v, h5py.Dataset) for v in self._inside(g).values())]

    @_reads
    def ports(self, model: str) -> list[str]:
        """Recorded ports of a model, without its axes."""
        if model not in self._ports:
            self._ports[model] = [name for name, data in self._inside(self._group(model)).items() if not data.is_scale]
        return list(self._ports[model])

    @_reads
    def datasets(self) -> dict[str, h5py.Dataset]:
        """All datasets as h5py has them, by path; they close with the trace."""
        found: dict[str, h5py.Dataset] = {}
        self._file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        return found

    @_reads
    def has(self, path: str) -> bool:
        """Whether a dataset 'member/Model/port' is there."""
        return isinstance(self._find(path), h5py.Dataset)

    @_reads
    def time_s(self, model: str) -> np.ndarray:
        """Times of a model's samples, s since the start, shape (time,)."""
        group = self._group(model)
        return self._inside(group)["time_s"][: self._length(group)]

    @_reads
    def names(self, model: str, axis: str = "entity") -> list[str]:
        """Names along an axis of a model: its entities, or the labels of a dim."""
        if (model, axis) not in self._names:
            group = self._inside(self._group(model))
            if axis not in group:
                raise TraceError(f"{self.path}: {unknown('axis', axis, group)}")
            self._names[model, axis] = list(group[axis].asstr()[:])
        return list(self._names[model, axis])

    @_reads
    def dims(self, path: str) -> tuple[str, ...]:
        """Names of the axes of a dataset beyond time and entity."""
        return tuple(axis[0].name.rpartition("/")[2] for axis in self._file[path].dims)[2:]

    @_reads
    def about(self, path: str) -> tuple[str, str]:
        """(long name, unit symbol) of a dataset."""
        attrs = self._file[path].attrs
        return str(attrs.get("long_name", "")), str(attrs.get("units", "1"))

    @_reads
    def __getitem__(self, path: str) -> np.ndarray:
        model, _, port = path.rpartition("/")
        group = self._group(model)
        if port not in self._inside(group):
            raise TraceError(f"{self.path}: {unknown(f'port of {model}', port, self.ports(model))}")
        return self._inside(group)[port][: self._length(group)]

    def table(self, name: str) -> dict[str, np.ndarray]:
        """Columns of a table, all of one length; text as str objects. {} when no row was written."""
        return next(self.blocks(name, rows=None), {})

    def blocks(self, name: str, columns: Iterable[str] | None = None, rows: int | None = 1 << 16
               ) -> Iterator[dict[str, np.ndarray]]:
        """A table's columns (all, or some), `rows` at a time so that millions of rows need not fit into memory; None:
        all at once. Nothing when no row was written."""
        try:
            yield from self._blocks(name, columns, rows)
        except DAMAGE as err:
            raise _damaged(self.path, f"table '{name}'", err) from None

    def _blocks(self, name: str, columns: Iterable[str] | None, rows: int | None) -> Iterator[dict[str, np.ndarray]]:
        if (found := self._find(name)) is None:
            return
        group = self._inside(found)
        if not group:
            return
        count = min(data.shape[0] for data in group.values())
        for first in range(0, max(count, 1), rows or max(count, 1)):  # an empty table is one empty block
            part = slice(first, min(first + rows, count) if rows else count)
            out = {column: group[column][part] for column in columns or group}
            yield {c: _text(v) if v.dtype.kind == "S" else v for c, v in out.items()}

    def _group(self, model: str) -> h5py.Group:
        if not isinstance(found := self._find(model), h5py.Group):
            raise TraceError(f"{self.path}: {unknown('model', model, self.models())}")
        return found

    def _find(self, path: str) -> h5py.Group | h5py.Dataset | None:
        """What is at a path; None if nothing is."""
        if path not in self._opened:
            there = path in self._file  # `get` would take damage for absence
            self._opened[path] = self._file[path] if there else None
        return self._opened[path]

    def _inside(self, group: h5py.Group) -> dict[str, Any]:
        """What is in a group, by name."""
        if group.name not in self._members:
            self._members[group.name] = dict(group.items())
        return self._members[group.name]

    def _length(self, group: h5py.Group) -> int:
        """Samples that time and all values have; looked up once, as it opens every dataset of the model."""
        if group.name not in self._lengths:
            inside = self._inside(group)
            shortest = min(d.shape[0] for name, d in inside.items() if not d.is_scale or name == "time_s")
            times = inside["time_s"][:shortest]
            holes = np.flatnonzero(~(np.diff(times) > 0))  # rows that a kill left without a time
            count = int(holes[0]) + 1 if len(holes) else shortest
            if count and not (times[0] >= 0 and times[count - 1] <= LONGEST_S):
                raise TraceError(f"{self.path}: times of {group.name} are from {times[0]:g} to {times[count - 1]:g} s, "
                                 f"and no run goes beyond 0 to {LONGEST_S:g} s")
            self._lengths[group.name] = count
        return self._lengths[group.name]
