"""Traces written while a run goes on; `cosim.trace.reader` documents the layout and reads them.

HDF5 writes into a `cosim.trace.journal.JournaledFile`: at any instant the file on the disk is one that every HDF5
reader opens, with all rows of every flush that has ended.
"""

from __future__ import annotations

import math
import shutil
import struct
import weakref
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import h5py
import numpy as np

from cosim.errors import DiskError, TraceError
from cosim.ports import Port, batch_length, values_of
from cosim.trace.file_scan import pass_on
from cosim.trace.journal import JournaledFile
from cosim.trace.reader import FORMAT, SCHEMA_VERSION
from cosim.trace.seal import check_seal
from cosim.units import unit_of

_TEXT = h5py.string_dtype("utf-8")
_LIBVER = ("earliest", "latest")
"""The oldest layout that holds it: what every reader reads, and what cosim.trace.journal can let grow."""
_TABLE_CHUNK = 2048
_CACHE_BYTES = 1 << 18
"""Of each dataset HDF5 keeps in memory: room for a chunk that is added to. Its own 8 MiB would keep all that a long
run writes."""
_LEAST_ROWS = 30
"""A chunk of wide rows is no longer than what fits there, but for so many."""
_MOST_WAITING = 2_000_000
"""Numbers in rows of tables that wait to be written, some 60 MB: with more a flush comes early."""
_GZIP = 1
_TEXT_BYTES = 16
_ROOM_BYTES = 2_000_000
"""Room on the disk beyond the numbers themselves: HDF5's own structures, and closing the file."""


@dataclass
class _Group:
    """Buffers and datasets of one member's model.

    values  of all time points that wait to be written: entity by entity the `scalars`, then the `vectors`
    lengths of the vectors
    width   numbers of one entity; those of a port lie at `places` among them
    """

    names: list[str]
    datasets: dict[str, h5py.Dataset]
    time: h5py.Dataset
    chunk: int
    scalars: Callable[[Mapping[str, Any]], Sequence[float]]
    vectors: Callable[[Mapping[str, Any]], Sequence[Sequence[float]]]
    lengths: list[int]
    width: int
    places: dict[str, slice]
    times: list[int] = field(default_factory=list)
    values: array = field(default_factory=lambda: array("d"))

    @property
    def numbers(self) -> int:
        """Numbers of a time point."""
        return len(self.names) * self.width


class TraceWriter:
    """Writes one run's trace. Use as: declare, append..., flush..., finish. Raises TraceError.

    durable: every flush is on the disk itself before it ends (fsync), against a machine that loses its power; `wall_s`
    counts the seconds spent in here; the root attribute `lost` gives the reason for missing rows, '' where none are.
    """

    def __init__(self, path: Path, *, attrs: Mapping[str, Any], start: str, overwrite: bool = False,
                 durable: bool = False) -> None:
        self.path, self.wall_s, self._lost = path, 0.0, ""
        self._groups: dict[tuple[str, str], _Group] = {}
        self._tables: dict[str, dict[str, list]] = {}
        self._waiting = 0
        self._columns: dict[str, dict[str, tuple[h5py.Dataset, np.dtype]]] = {}
        self._text_bytes = _TEXT_BYTES
        self._start = start
        self._refused: DiskError | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._disk = JournaledFile.create(path, overwrite, durable)
        except OSError as err:
            raise _cannot_make(path, err) from None
        self._file = self._opened("w")
        for name, value in {"format": FORMAT, "schema_version": SCHEMA_VERSION, "status": "running", "error": "",
                            "start": start, **attrs}.items():
            self._file.attrs[name] = value
        self._file.flush()
        try:
            self._disk.commit()
        except OSError as err:
            raise _cannot_make(path, err) from None

    def _opened(self, mode: str) -> h5py.File:
        file = h5py.File(self._disk, mode, libver=_LIBVER, track_order=True, rdcc_nbytes=_CACHE_BYTES)
        weakref.finalize(self, file.close)  # HDF5 itself would close it when Python, and so the disk, is gone
        return file

    def declare(self, member: str, model: str, names: Sequence[str], ports: Sequence[Port],
                labels: Mapping[str, Sequence[str]], chunk: int = 30) -> None:
        """Make the datasets of one model: `names` are its entities, `ports` its recorded levels. Rows are written in
        whole chunks of `chunk` at most, once each: a compressed chunk that is written again breaks when a kill meets
        it."""
        ports = [p for p in ports if p.flow == "out" and p.kind == "level" and p.record]
        if not ports or not names:
            return
        widest = len(names) * max(math.prod(len(labels[d]) for d in p.dims) for p in ports)
        chunk = min(chunk, max(_LEAST_ROWS, _CACHE_BYTES // (8 * max(widest, 1))))
        group = self._file.require_group(member).create_group(model, track_order=True)
        time = group.create_dataset("time_s", (0,), "i8", maxshape=(None,), chunks=(chunk,), fletcher32=True)
        time.attrs.update(units=f"seconds since {self._start}", calendar="standard", long_name="simulated time")
        time.make_scale("time_s")
        self._may_grow(time, last=True)
        axes = {"entity": list(names), **{d: list(labels[d]) for p in ports for d in p.dims}}
        self._text_bytes = max(self._text_bytes, *(len(name.encode()) for values in axes.values() for name in values))
        scales = {"time_s": time}
        for axis, values in axes.items():
            scales[axis] = group.create_dataset(axis, data=np.array(values, dtype=object), dtype=_TEXT)
            scales[axis].make_scale(axis)
        datasets = {p.name: self._dataset(group, p, scales, chunk) for p in ports}
        shown = min(ports, key=lambda p: (len(p.dims), not _is_power(p.name)))
        group.attrs.update(NX_class="NXdata", signal=shown.name, axes=["time_s", *["."] * (1 + len(shown.dims))])
        scalars, vectors = ([p.name for p in ports if bool(p.dims) == several] for several in (False, True))
        places, width = {}, 0
        for name in (*scalars, *vectors):
            count = math.prod(datasets[name].shape[2:])
            places[name], width = slice(width, width + count), width + count
        self._groups[member, model] = _Group(
            list(names), datasets, time, chunk, values_of(scalars), values_of(vectors),
            [places[name].stop - places[name].start for name in vectors], width, places)
        self._show_first(member, model)

    def _show_first(self, member: str, model: str) -> None:
        """What a viewer opens with, by NeXus's `default`: of the models that draw power the one with the most ports,
        so far."""
        self._file[member].attrs.setdefault("default", model)
        groups = self._groups
        best = max(groups, key=lambda key: (any(map(_is_power, groups[key].datasets)), len(groups[key].datasets)))
        if best == (member, model):
            self._file.attrs["default"], self._file[member].attrs["default"] = best

    def _dataset(self, group: h5py.Group, port: Port, scales: Mapping[str, h5py.Dataset], chunk: int) -> h5py.Dataset:
        along = [scales[name] for name in ("time_s", "entity", *port.dims)]
        tail = tuple(len(scale) for scale in along[1:])
        data = group.create_dataset(port.name, (0, *tail), "f8", maxshape=(None, *tail), fillvalue=np.nan,
                                    chunks=(chunk, *tail), compression="gzip", compression_opts=_GZIP,
                                    fletcher32=True)
        for axis, scale in enumerate(along):  # by the handles at hand: to look each up by its name takes longer
            h5py.h5ds.attach_scale(data.id, scale.id, axis)
        data.attrs.update(units=port.unit, long_name=port.about)
        if port.sign:
            data.attrs["sign"] = port.sign
        self._may_grow(data)
        return data

    def _may_grow(self, data: h5py.Dataset, last: bool = False) -> None:
        """Rows will be added to `data`; times `last`, so that what they show is there."""
        self._disk.extents[h5py.h5o.get_info(data.id).addr] = int(last)

    def append(self, member: str, model: str, time_s: float, values: Mapping[str, Mapping[str, Any]]) -> None:
        """One time point of one model: values[entity][port]."""
        group = self._groups.get((member, model))
        if group is None or self._refused:
            return
        row = array("d")
        try:
            for eid in group.names:
                numbers = [*group.scalars(values[eid])]
                vectors = group.vectors(values[eid])
                if list(map(len, vectors)) != group.lengths:
                    raise TypeError(f"vectors of {list(map(len, vectors))} numbers, not {group.lengths}")
                for vector in vectors:
                    numbers += vector
                row += array("d", numbers)
        except TypeError as err:
            raise TraceError(f"cannot write {self.path}: {member}.{eid} at {time_s:g} s: {err}") from None
        group.values += row
        group.times.append(int(time_s))

    def extend(self, table: str, batch: Mapping[str, list]) -> None:
        """Append the rows of a batch to a table."""
        if not batch_length(batch) or self._refused:
            return
        columns = self._tables.setdefault(table, {name: [] for name in batch})
        if columns.keys() != batch.keys():
            raise TraceError(f"table '{table}' has columns {', '.join(columns)}; got {', '.join(batch)}")
        for name, values in batch.items():
            columns[name].extend(values)
        self._waiting += batch_length(batch) * len(batch)

    @property
    def full(self) -> bool:
        """Whether so many rows of tables wait that they should be flushed now, at any time."""
        return self._waiting > _MOST_WAITING

    def flush(self, final: bool = False) -> None:
        """Write all whole chunks; what was flushed survives a kill. `final` writes the rest, too."""
        if self._refused:
            return
        begin = perf_counter()
        self._leave_room()
        try:
            for group in self._groups.values():
                self._flush_group(group, final)
            for table, columns in self._tables.items():
                self._flush_table(table, columns, final)
            self._waiting = 0
            self._file.flush()
        except (OSError, RuntimeError, ValueError, TypeError) as err:
            raise TraceError(f"cannot write {self.path}: {err}") from None
        self._commit()
        self.wall_s += perf_counter() - begin

    def _commit(self) -> None:
        """Bring what was flushed to the disk. DiskError leaves there what was there; nothing more is taken then."""
        try:
            self._disk.commit()
        except OSError as err:
            self._forget(str(err.strerror or err))
            self._file.close()
            self._disk.roll_back()
            self._file = self._opened("r+")
            self._refused = DiskError(f"cannot write {self.path}: {err.strerror or err}; what was written before is "
                                      "whole")
            raise self._refused from None

    def _forget(self, why: str) -> None:
        """Drop what waits to be written."""
        self._lost = self._lost or why
        for group in self._groups.values():
            group.times.clear()
            del group.values[:]
        self._tables.clear()

    def _leave_room(self) -> None:
        """TraceError while the file is still whole: HDF5 does not survive a write that a full disk refuses."""
        waiting = sum(len(group.values) for group in self._groups.values())
        waiting += sum(batch_length(columns) * len(columns) for columns in self._tables.values())
        needed = 8 * waiting + _ROOM_BYTES
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            self._forget("the disk was full")
            raise DiskError(f"cannot write {self.path}: the disk has {free / 1e6:.1f} MB left, {needed / 1e6:.1f} MB "
                             "are wanted; what was written before is whole")

    def _flush_group(self, group: _Group, final: bool) -> None:
        count = _whole(len(group.times), group.chunk, final)
        if not count:
            return
        numbers = np.array(group.values[: count * group.numbers]).reshape(count, len(group.names), group.width)
        for name, place in group.places.items():
            data = group.datasets[name]
            _append_chunks(data, numbers[:, :, place].reshape(count, *data.shape[1:]), group.chunk)
        _append(group.time, np.asarray(group.times[:count], dtype="i8"))
        del group.times[:count], group.values[: count * group.numbers]

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
        data = group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(_TABLE_CHUNK,), compression="gzip",
                                    compression_opts=_GZIP, shuffle=True, fletcher32=True)
        self._may_grow(data)
        return data

    def write_table(self, table: str, columns: Mapping[str, list]) -> None:
        """A table that is known as a whole, written at once."""
        self._flush_table(table, {name: list(values) for name, values in columns.items()}, final=True)
        self._file.flush()
        self._commit()

    def finish(self, status: str, error: str = "", attrs: Mapping[str, Any] | None = None) -> None:
        """Flush, set `status` ('completed' or 'failed') and the error text, close. Safe to call twice."""
        if not self._file:
            return
        try:
            self.flush(final=True)
        finally:
            _close(self._file, self._disk, self.path,
                   {**(attrs or {}), "lost": self._lost, "status": status, "error": error})


def _close(file: h5py.File, disk: JournaledFile, path: Path, attrs: Mapping[str, Any]) -> bytes:
    """Set root attributes, seal and close, as one step; returns the seal's digest. TraceError leaves the file on the
    disk as it was."""
    try:
        for name, value in attrs.items():
            file.attrs[name] = value
        file.close()
        disk.commit()
        return disk.seal()
    except OSError as err:
        raise TraceError(f"cannot write {path}: {err.strerror or err}") from None
    finally:
        disk.close()


def _cannot_make(path: Path, err: OSError) -> TraceError:
    if isinstance(err, FileExistsError):
        return TraceError(f"{path} exists; choose another --out, or --force to overwrite it")
    if isinstance(err, BlockingIOError):
        return TraceError(f"{path} is open in another program, a run for example; choose another --out, or wait for it")
    return TraceError(f"cannot write {path}: {err.strerror or err}")


def annotate(path: Path, attrs: Mapping[str, Any]) -> None:
    """Add root attributes to a finished trace. Raises TraceError."""
    try:
        before = check_seal(path)
        disk = JournaledFile.edit(path)
        file = h5py.File(disk, "r+", libver=_LIBVER)
    except OSError as err:
        raise TraceError(f"cannot write {path}: {err.strerror or err}") from None
    after = _close(file, disk, path, attrs)
    if before is not None and not before.changed:
        pass_on(before.digest, after)


def _is_power(port: str) -> bool:
    """Whether a port's name is that of a plain power: p_kw, or p_mw. It is what a viewer plots first, where a
    model has it; else its first scalar."""
    return unit_of(port).dimension == "active power" and port.lower().startswith("p_") and port.count("_") == 1


def _whole(rows: int, chunk: int, final: bool) -> int:
    """How many of the buffered rows to write: whole chunks, or at the end all."""
    return rows if final else rows - rows % chunk


def _append_chunks(data: h5py.Dataset, rows: np.ndarray, chunk: int) -> None:
    """Rows at the end of a dataset with the filters gzip and Fletcher-32: whole chunks as they will be on the disk,
    which costs a sixth less than to let HDF5 compress them, the rest as ever."""
    begin = data.id.shape[0]
    whole = 0 if begin % chunk else len(rows) - len(rows) % chunk
    if whole:
        data.id.set_extent((begin + whole, *rows.shape[1:]))
    for at in range(0, whole, chunk):
        packed = zlib.compress(rows[at: at + chunk].tobytes(), _GZIP)
        data.id.write_direct_chunk((begin + at, *[0] * (rows.ndim - 1)), packed + _fletcher32(packed))
    if whole < len(rows):
        _append(data, rows[whole:])


def _fletcher32(data: bytes) -> bytes:
    """The checksum that HDF5's filter of this name puts behind a chunk: 16-bit words, the first byte the high one; sums
    modulo 65535 of which none is 0 unless all words are."""
    words = np.frombuffer(data if len(data) % 2 == 0 else data + b"\0", ">u2").astype(np.int64)
    weights = _weights(-(-len(words) // 4096) * 4096)[-len(words):]
    first, second = ((total - 1) % 65535 + 1 if total else 0 for total in (int(words.sum()), int(words @ weights)))
    return struct.pack("<I", second << 16 | first)


@lru_cache(maxsize=8)
def _weights(count: int) -> np.ndarray:
    """count, ..., 2, 1"""
    return np.arange(count, 0, -1, dtype=np.int64)


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
        padded = {v: text.ljust(width, b"\0") for v, text in encoded.items()}
        return np.frombuffer(b"".join(map(padded.__getitem__, values)), dtype=f"S{width}")
    return np.asarray(values, dtype="i8" if kind in (int, bool) else "f8")
