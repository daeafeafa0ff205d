"""HDF5 traces: written while a run goes on, readable after a kill, read back as arrays.

Layout (format 'aidc-cosim trace', schema 1):

    /                          attributes: format, schema_version, status, scenario (JSON), seed, driver, versions,
                               summary (JSON: what the run said of itself), ...
    /<member>/<model>/time_s   int64 seconds since the start, CF units
    /<member>/<model>/entity   names
    /<member>/<model>/<dim>    names along a further axis, e.g. job_class
    /<member>/<model>/<port>   float64 (time_s, entity[, dim]); attributes units, long_name, sign
    /<table>/<column>          one row a job, for example

Axes are HDF5 dimension scales, so xarray and netCDF4 label them; h5py and h5dump read all of it (the one filter is
gzip). Each model's group is a NeXus NXdata (attributes NX_class, signal, axes): h5web shows its first scalar port.
The default library version and a flush per block keep a killed run's file readable; time and values may then be one
block apart, so the reader takes the shorter.

`schema_version` is a whole number. It grows when a reader of the old layout would fail or misread: a path, shape, type,
unit or meaning changes. It stays when something is added that old readers pass over (a port, a table, an attribute).
A reader reads its own version and all older ones; a file of a newer one is refused, by name.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import h5py
import numpy as np

from cosim.errors import TraceError, unknown
from cosim.ports import Port, batch_length
from cosim.units import format_time

FORMAT = "aidc-cosim trace"
SCHEMA_VERSION = 1
_REQUIRED = {"format", "schema_version", "status", "error"}
_TEXT = h5py.string_dtype("utf-8")
_TABLE_CHUNK = 2048
_TEXT_BYTES = 16
_ROOM_BYTES = 2_000_000
"""Room on the disk beyond the numbers themselves: HDF5's own structures, and closing the file."""


@dataclass
class _Group:
    """Buffers and datasets of one member's model; `numbers` is how many a time point has."""

    names: list[str]
    ports: dict[str, Port]
    datasets: dict[str, h5py.Dataset]
    time: h5py.Dataset
    numbers: int
    chunk: int
    times: list[int] = field(default_factory=list)
    rows: dict[str, list] = field(default_factory=dict)


class TraceWriter:
    """Writes one run's trace. Use as: declare, append..., flush..., finish. Raises TraceError.

    `wall_s` counts the seconds spent in here.
    """

    def __init__(self, path: Path, *, attrs: Mapping[str, Any], start: str, overwrite: bool = False) -> None:
        self.path, self.wall_s = path, 0.0
        self._groups: dict[tuple[str, str], _Group] = {}
        self._tables: dict[str, dict[str, list]] = {}
        self._columns: dict[str, dict[str, tuple[h5py.Dataset, np.dtype]]] = {}
        self._text_bytes = _TEXT_BYTES
        self._start = start
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                _refuse_in_use(path)
            self._file = h5py.File(path, "w" if overwrite else "x", track_order=True)
        except OSError as err:
            if not overwrite and path.exists():
                raise TraceError(f"{path} exists; choose another --out, or --force to overwrite it") from None
            raise TraceError(f"cannot write {path}: {err.strerror or err}") from None
        for name, value in {"format": FORMAT, "schema_version": SCHEMA_VERSION, "status": "running", "error": "",
                            "start": start, **attrs}.items():
            self._file.attrs[name] = value
        self._file.flush()

    def declare(self, member: str, model: str, names: Sequence[str], ports: Sequence[Port],
                labels: Mapping[str, Sequence[str]], chunk: int = 30) -> None:
        """Make the datasets of one model: `names` are its entities, `ports` its recorded levels. Rows are written in
        whole chunks of `chunk`, once each: a compressed chunk that is written again breaks when a kill meets it."""
        ports = [p for p in ports if p.flow == "out" and p.kind == "level" and p.record]
        if not ports or not names:
            return
        group = self._file.require_group(member).create_group(model, track_order=True)
        time = group.create_dataset("time_s", (0,), "i8", maxshape=(None,), chunks=(chunk,))
        time.attrs.update(units=f"seconds since {self._start}", calendar="standard", long_name="simulated time")
        time.make_scale("time_s")
        axes = {"entity": list(names), **{d: list(labels[d]) for p in ports for d in p.dims}}
        self._text_bytes = max(self._text_bytes, *(len(name.encode()) for values in axes.values() for name in values))
        for axis, values in axes.items():
            scale = group.create_dataset(axis, data=np.array(values, dtype=object), dtype=_TEXT)
            scale.make_scale(axis)
        datasets = {p.name: self._dataset(group, p, axes, chunk) for p in ports}
        shown = min(ports, key=lambda p: len(p.dims))
        group.attrs.update(NX_class="NXdata", signal=shown.name, axes=["time_s", *["."] * (1 + len(shown.dims))])
        numbers = sum(int(np.prod(data.shape[1:])) for data in datasets.values())
        self._groups[member, model] = _Group(list(names), {p.name: p for p in ports}, datasets, time, numbers, chunk,
                                             rows={p.name: [] for p in ports})

    def _dataset(self, group: h5py.Group, port: Port, axes: Mapping[str, list], chunk: int) -> h5py.Dataset:
        tail = (len(axes["entity"]), *(len(axes[d]) for d in port.dims))
        data = group.create_dataset(port.name, (0, *tail), "f8", maxshape=(None, *tail), fillvalue=np.nan,
                                    chunks=(chunk, *tail), compression="gzip", compression_opts=1)
        for axis, name in enumerate(("time_s", "entity", *port.dims)):
            data.dims[axis].attach_scale(group[name])
        data.attrs.update(units=port.unit, long_name=port.about)
        if port.sign:
            data.attrs["sign"] = port.sign
        return data

    def append(self, member: str, model: str, time_s: float, values: Mapping[str, Mapping[str, Any]]) -> None:
        """One time point of one model: values[entity][port]."""
        group = self._groups.get((member, model))
        if group is None:
            return
        group.times.append(int(time_s))
        for name, rows in group.rows.items():
            rows.append([values[eid][name] for eid in group.names])

    def extend(self, table: str, batch: Mapping[str, list]) -> None:
        """Append the rows of a batch to a table."""
        if not batch_length(batch):
            return
        columns = self._tables.setdefault(table, {name: [] for name in batch})
        if columns.keys() != batch.keys():
            raise TraceError(f"table '{table}' has columns {', '.join(columns)}; got {', '.join(batch)}")
        for name, values in batch.items():
            columns[name].extend(values)

    def flush(self, final: bool = False) -> None:
        """Write all whole chunks; what was flushed survives a kill. `final` writes the rest, too."""
        begin = perf_counter()
        self._leave_room()
        try:
            counts = {key: self._flush_values(group, final) for key, group in self._groups.items()}
            for table, columns in self._tables.items():
                self._flush_table(table, columns, final)
            self._file.flush()  # the values stand before the times say so: a kill in between leaves no holes
            for key, count in counts.items():
                self._flush_times(self._groups[key], count)
            self._file.flush()
        except (OSError, RuntimeError, ValueError, TypeError) as err:
            raise TraceError(f"cannot write {self.path}: {err}") from None
        self.wall_s += perf_counter() - begin

    def _leave_room(self) -> None:
        """TraceError while the file is still whole: HDF5 does not survive a write that a full disk refuses."""
        waiting = sum(len(group.times) * group.numbers for group in self._groups.values())
        waiting += sum(batch_length(columns) * len(columns) for columns in self._tables.values())
        needed = 8 * waiting + _ROOM_BYTES
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            for group in self._groups.values():
                group.times.clear()
                for values in group.rows.values():
                    values.clear()
            self._tables.clear()
            raise TraceError(f"cannot write {self.path}: the disk has {free / 1e6:.1f} MB left, {needed / 1e6:.1f} MB "
                             "are wanted; what was written before is whole")

    def _flush_values(self, group: _Group, final: bool) -> int:
        count = _whole(len(group.times), group.chunk, final)
        if not count:
            return 0
        for name, rows in group.rows.items():
            _append(group.datasets[name], np.asarray(rows[:count], dtype="f8"))
            del rows[:count]
        return count

    def _flush_times(self, group: _Group, count: int) -> None:
        if not count:
            return
        _append(group.time, np.asarray(group.times[:count], dtype="i8"))
        del group.times[:count]

    def _flush_table(self, table: str, columns: dict[str, list], final: bool) -> None:
        count = _whole(batch_length(columns), _TABLE_CHUNK, final)
        if not count:
            return
        datasets = self._columns.setdefault(table, {})
        for name, values in columns.items():
            data, dtype = datasets.get(name, (None, None))
            column = _column(values[:count], dtype, self._text_bytes)
            if data is None:
                data = self._new_column(table, name, column.dtype)
                datasets[name] = data, column.dtype
            _append(data, column)
            del values[:count]

    def _new_column(self, table: str, name: str, dtype: np.dtype) -> h5py.Dataset:
        group = self._file[table] if table in self._file else self._file.create_group(table, track_order=True)
        return group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(_TABLE_CHUNK,), compression="gzip",
                                    compression_opts=1, shuffle=True)

    def write_table(self, table: str, columns: Mapping[str, list]) -> None:
        """A table that is known as a whole, written at once."""
        self._flush_table(table, {name: list(values) for name, values in columns.items()}, final=True)
        self._file.flush()

    def finish(self, status: str, error: str = "", attrs: Mapping[str, Any] | None = None) -> None:
        """Flush, set `status` ('completed' or 'failed') and the error text, close. Safe to call twice."""
        if not self._file:
            return
        try:
            self.flush(final=True)
        finally:
            for name, value in {**(attrs or {}), "status": status, "error": error}.items():
                self._file.attrs[name] = value
            self._file.close()


def _refuse_in_use(path: Path) -> None:
    """TraceError for a file that another program has locked: HDF5 empties it before it asks for the lock."""
    try:
        h5py.File(path, "r+").close()
    except BlockingIOError:
        raise TraceError(f"{path} is open in another program, a run for example; choose another --out, or wait for "
                         "it") from None
    except OSError:  # not there, or no HDF5 file: to be replaced, as asked
        return


def annotate(path: Path, attrs: Mapping[str, Any]) -> None:
    """Add root attributes to a finished trace. Raises TraceError."""
    try:
        with h5py.File(path, "r+") as file:
            file.attrs.update(attrs)
    except OSError as err:
        raise TraceError(f"cannot write {path}: {err.strerror or err}") from None


def _whole(rows: int, chunk: int, final: bool) -> int:
    """How many of the buffered rows to write: whole chunks, or at the end all."""
    return rows if final else rows - rows % chunk


def _append(data: h5py.Dataset, rows: np.ndarray) -> None:
    """Rows at the end of a dataset, by HDF5's own calls: h5py's indexing costs more than the writing."""
    begin = data.id.shape[0]
    data.id.set_extent((begin + len(rows), *rows.shape[1:]))
    space = data.id.get_space()
    space.select_hyperslab((begin,) + (0,) * (rows.ndim - 1), rows.shape)
    data.id.write(h5py.h5s.create_simple(rows.shape), space, np.ascontiguousarray(rows))


def _column(values: list, dtype: np.dtype | None, text_bytes: int) -> np.ndarray:
    """Values as a column of `dtype`; None: a new one, whose texts have room for every entity's and label's name."""
    kind = type(values[0])
    if kind is str:
        encoded = {v: v.encode() for v in set(values)}
        longest = max(encoded, key=lambda v: len(encoded[v]))
        width = dtype.itemsize if dtype else max(text_bytes, len(encoded[longest]))
        if len(encoded[longest]) > width:
            raise TraceError(f"text '{longest}' is longer than this table's {width} bytes; use a shorter name")
        return np.array([encoded[v] for v in values], dtype=f"S{width}")
    return np.asarray(values, dtype="i8" if kind in (int, bool) else "f8")


class Trace:
    """A trace read back. Use as a context manager.

    trace["aidc/Site/p_kw"] -> ndarray (time, entity[, dim]);  trace.time_s("aidc/Site");  trace.table("jobs").
    Raises TraceError when the file is missing, is no trace, or does not hold what is asked for.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lengths: dict[str, int] = {}
        if not self.path.is_file():
            raise TraceError(f"no trace at {self.path}")
        try:
            self._file = h5py.File(self.path, "r", locking=False)
        except OSError as err:
            raise TraceError(f"{self.path} is not a readable HDF5 file: {err}") from None
        try:
            attrs = self.attrs
        except (KeyError, OSError, RuntimeError) as err:  # its superblock is whole, what follows is not
            self._file.close()
            raise TraceError(f"{self.path} is a damaged HDF5 file: {err.args[0] if err.args else err}") from None
        if attrs.get("format") != FORMAT or not attrs.keys() >= _REQUIRED:
            self._file.close()
            raise TraceError(f"{self.path} is HDF5 but not an {FORMAT} (attributes {', '.join(sorted(_REQUIRED))})")
        version = attrs["schema_version"]
        if not isinstance(version, int | np.integer) or version > SCHEMA_VERSION:
            self._file.close()
            raise TraceError(f"{self.path} has trace schema {version}; this version of aidc-cosim reads schemas up to "
                             f"{SCHEMA_VERSION}: update it, or read the file with h5py")

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def attrs(self) -> dict[str, Any]:
        """Root attributes."""
        return dict(self._file.attrs)

    def models(self) -> list[str]:
        """Paths 'member/Model' of all recorded models."""
        return [f"{m}/{k}" for m, g in self._file.items() for k, v in g.items() if isinstance(v, h5py.Group)]

    def tables(self) -> list[str]:
        """Names of tables with a row per event."""
        return [m for m, g in self._file.items() if all(isinstance(v, h5py.Dataset) for v in g.values())]

    def ports(self, model: str) -> list[str]:
        """Recorded ports of a model, without its axes."""
        return [name for name, data in self._group(model).items() if not data.is_scale]

    def has(self, path: str) -> bool:
        """Whether a dataset 'member/Model/port' is there."""
        return path in self._file and isinstance(self._file[path], h5py.Dataset)

    def time_s(self, model: str) -> np.ndarray:
        """Times of a model's samples, s since the start, shape (time,)."""
        group = self._group(model)
        return group["time_s"][: self._length(group)]

    def names(self, model: str, axis: str = "entity") -> list[str]:
        """Names along an axis of a model: its entities, or the labels of a dim."""
        group = self._group(model)
        if axis not in group:
            raise TraceError(f"{self.path}: {unknown('axis', axis, group)}")
        return list(group[axis].asstr()[:])

    def dims(self, path: str) -> tuple[str, ...]:
        """Names of the axes of a dataset beyond time and entity."""
        return tuple(axis[0].name.rpartition("/")[2] for axis in self._file[path].dims)[2:]

    def about(self, path: str) -> tuple[str, str]:
        """(long name, unit symbol) of a dataset."""
        attrs = self._file[path].attrs
        return str(attrs.get("long_name", "")), str(attrs.get("units", "1"))

    def __getitem__(self, path: str) -> np.ndarray:
        model, _, port = path.rpartition("/")
        group = self._group(model)
        if port not in group:
            raise TraceError(f"{self.path}: {unknown(f'port of {model}', port, self.ports(model))}")
        return group[port][: self._length(group)]

    def table(self, name: str) -> dict[str, np.ndarray]:
        """Columns of a table, all of one length; text as str objects. {} when no row was written."""
        if name not in self._file:
            return {}
        group = self._file[name]
        rows = min(data.shape[0] for data in group.values())
        out = {column: data[:rows] for column, data in group.items()}
        return {c: np.char.decode(v, "utf-8") if v.dtype.kind == "S" else v for c, v in out.items()}

    def _group(self, model: str) -> h5py.Group:
        if model not in self._file or not isinstance(self._file[model], h5py.Group):
            raise TraceError(f"{self.path}: {unknown('model', model, self.models())}")
        return self._file[model]

    def _length(self, group: h5py.Group) -> int:
        """Samples that time and all values have; looked up once, as it opens every dataset of the model."""
        if group.name not in self._lengths:
            shortest = min(d.shape[0] for d in group.values() if not d.is_scale or d.name.endswith("/time_s"))
            holes = np.flatnonzero(np.diff(group["time_s"][:shortest]) <= 0)  # rows that a kill left without a time
            self._lengths[group.name] = int(holes[0]) + 1 if len(holes) else shortest
        return self._lengths[group.name]


def first_difference(a: str | os.PathLike, b: str | os.PathLike) -> str | None:
    """Where two traces first differ in a dataset (name, type, shape or any byte), as a phrase; None when they do not.

    First is what is there in one only, then another type or shape, then the earliest simulated time, then tables. Root
    attributes are not compared: created, driver,
    versions and wall_* differ between equal runs.
    """
    with Trace(a) as left, Trace(b) as right:
        names: dict[str, list[str]] = {}
        for side, trace in (("first", left), ("second", right)):
            trace._file.visititems(lambda name, item, side=side: names.setdefault(side, []).append(name)
                                   if isinstance(item, h5py.Dataset) else None)
        only = sorted(set(names["first"]) ^ set(names["second"]))
        if only:
            return f"{only[0]} is in the {'first' if only[0] in names['first'] else 'second'} trace only"
        found = [_unequal(name, left._file[name], right._file[name]) for name in names["first"]]
        return min(filter(None, found), key=lambda difference: difference[0], default=(0, None))[1]


def _unequal(name: str, a: h5py.Dataset, b: h5py.Dataset) -> tuple[float, str] | None:
    """(simulated time, phrase) of the first difference of two datasets; the time is -inf for another type, shape or
    text, inf for a table's row."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return -math.inf, f"{name} is {a.dtype} {a.shape} and {b.dtype} {b.shape}"
    x, y = a[()], b[()]
    if x.dtype.hasobject:
        return None if list(x) == list(y) else (-math.inf, f"{name} holds other text")
    if x.tobytes() == y.tobytes():
        return None
    size = x.dtype.itemsize
    left, right = (np.frombuffer(v.tobytes(), f"V{size}") for v in (x, y))
    at = tuple(int(i) for i in np.unravel_index(int(np.flatnonzero(left != right)[0]), x.shape))
    scale = a.dims[0][0] if len(a.dims[0]) else None
    time_s = float(scale[at[0]]) if scale is not None and scale.name.endswith("/time_s") else math.inf
    return time_s, f"{name} at {_place(a, at)}: {x[at]} and {y[at]}"


def _place(data: h5py.Dataset, at: tuple[int, ...]) -> str:
    """An index in words: time, entity and label where the dataset has them."""
    axes = [axis[0] if len(axis) else None for axis in data.dims]
    words = []
    for index, axis in zip(at, axes, strict=True):
        if axis is None:
            words.append(f"row {index}")
        elif axis.name.endswith("/time_s"):
            words.append(format_time(int(axis[index])))
        else:
            words.append(axis.asstr()[index])
    return ", ".join(words)


if __name__ == "__main__":  # the command line stands on a higher floor
    sys.exit(importlib.import_module("cosim.inspection").main())
