"""Checks before anything of a received trace is read: it refers to no other file and unfolds to no more than it is.

HDF5 files may name other files (external links, external and virtual datasets), run filters that are loaded as
libraries, and declare or share so much that a few kB fill all memory. No trace has any of that; a file that does is
refused, by the name of the object, and what it names is not opened; so is one that is not built as a trace is
(`cosim.trace.form`). Format: The HDF Group, HDF5 File Format
Specification 3.0; deflate expands by 1032 at most (zlib, Technical Details).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosim.errors import TraceError, cut
from cosim.limits import free_bytes
from cosim.trace.form import FIXED_TEXT, NUMBER, TEXT, odd_dataset, odd_group

_FILTERS = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}
_PLAIN = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM}
_SCALES = {b"DIMENSION_LIST", b"REFERENCE_LIST"}
"""Attributes of HDF5's dimension scales: references to objects of the same file."""
_MOST_FOLD = 1100
"""By which one pass of deflate expands, rounded up."""
_FREE_FOLD = 100
"""By which a file may expand beyond the memory that is free; what is less is read part by part."""
_MOST_TEXTS = 16
"""Texts of one attribute, which HDF5 reads all at once."""
_AT_ONCE_BYTES = 1 << 26
_MOST_ATTRIBUTES = 1000
"""Of one object. HDF5 takes the square of their number to go through them; a run writes some twenty, and one for each
member."""


_passed: dict[bytes | tuple[int, ...], None] = {}
"""Files that passed, the last ones: by the digest of their bytes where they are sealed, else by what changes with them
(place, size, time)."""
_MOST_PASSED = 64


def refuse_leading_out(file: h5py.File, path: Path, digest: bytes = b"") -> None:
    """TraceError for a file that holds anything but groups and datasets of numbers and text within itself, each of
    them once, or that unfolds to more than memory takes. One that did not change since the last look is not
    checked again. digest: that of the file's seal, which its bytes were held against; empty where it has none."""
    stat = os.stat(file.filename)
    key = digest or (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key in _passed:
        return
    try:
        FileScan(file).through(file)
    except UnsafeObject as err:
        raise TraceError(f"{path} is no trace of this program's: {err}; nothing of it was read") from None
    _note(key)


def pass_on(before: bytes, after: bytes) -> None:
    """This program has added attributes to a sealed file: it passes, too, if it passed. Both are digests of seals."""
    if before in _passed:
        _note(after)


def _note(key: bytes | tuple[int, ...]) -> None:
    _passed[key] = None
    if len(_passed) > _MOST_PASSED:
        del _passed[next(iter(_passed))]


class UnsafeObject(Exception):
    """An object that leads out of its file, or unfolds beyond it; named in the text."""


class FileScan:
    """One check of a file: texts of variable length are no longer than the file, and datasets unfold by what deflate
    does at most (`_texts`, `_unfolded` are the sums). Methods raise UnsafeObject, and what h5py raises on damage."""

    def __init__(self, file: h5py.File) -> None:
        self._name, self._size, self._texts = file.filename, os.path.getsize(file.filename), 0
        self._free = free_bytes() or (1 << 62)
        self._unfolded = 0
        self._seen = {h5py.h5o.get_info(file.id).addr: ""}

    def through(self, file: h5py.File) -> None:
        """All of it."""
        self.attributes(file.id, "/")
        below: list[tuple[Any, str]] = [(file.id, "")]
        while below:
            group, where = below.pop()
            inside: dict[str, tuple[int, ...] | None] = {}
            for name in group:
                path = f"{where}/{name.decode(errors='replace')}"
                item = self.item(group, name, path)
                if is_group := isinstance(item, h5py.h5g.GroupID):
                    self.attributes(item, path)
                    below.append((item, path))
                inside[path.rpartition("/")[2]] = None if is_group else item.shape
            if odd := odd_group(where, inside):
                raise self._no(where, odd)
        if self._unfolded > max(self._free, _FREE_FOLD * self._size):
            raise self._no("its datasets", f"unfold to {_in_bytes(self._unfolded)} from a file of "
                           f"{_in_bytes(self._size)}")

    def item(self, group: h5py.h5g.GroupID, name: bytes, path: str) -> Any:
        """What is in a group under a name, opened when it is clear that it is no way out of the file; of a dataset its
        attributes, too."""
        kind = group.links.get_info(name).type
        if kind == h5py.h5l.TYPE_EXTERNAL:
            raise self._no(path, "is a link into another file")
        if kind != h5py.h5l.TYPE_HARD:
            raise self._no(path, "is a soft link, which may lead anywhere")
        if "\ufffd" in path:
            raise self._no(path, "has a name that is no UTF-8 text")
        item = h5py.h5o.open(group, name)
        address = h5py.h5o.get_info(item).addr
        if (before := self._seen.get(address, path)) != path:
            raise self._no(path, f"is another name (a hard link) of {before or 'the root'}")
        if address in self._seen:
            return item
        if isinstance(item, h5py.h5d.DatasetID):
            self._dataset(item, path)
            self.attributes(item, path)
        elif not isinstance(item, h5py.h5g.GroupID):
            raise self._no(path, "is neither a group nor a dataset but a type")
        self._seen[address] = path
        return item

    def _dataset(self, data: h5py.h5d.DatasetID, where: str) -> None:
        made = data.get_create_plist()
        if made.get_external_count():
            raise self._no(where, "keeps its values in another file")
        if made.get_layout() == h5py.h5d.VIRTUAL:
            raise self._no(where, "is a virtual dataset, made of those of other files")
        filters = [made.get_filter(k)[0] for k in range(made.get_nfilters())]
        strange = [code for code in filters if code not in _FILTERS]
        if strange or len(set(filters)) < len(filters):
            raise self._no(where, "is stored through " + (f"filter {strange[0]}" if strange else "a filter twice")
                           + "; traces use gzip, shuffle and Fletcher32 once each")
        kind, shape = data.get_type(), data.shape
        self._type(kind, where)
        if shape is None:
            raise self._no(where, "is empty: it has no dimensions")
        holds = TEXT if _is_text(kind) else FIXED_TEXT if kind.get_class() == h5py.h5t.STRING else NUMBER
        if odd := odd_dataset(where, holds, shape):
            raise self._no(where, odd)
        chunk = made.get_chunk() if made.get_layout() == h5py.h5d.CHUNKED else ()
        count = math.prod(shape)
        if count:
            self._unfolds(max(count, math.prod(chunk)) * kind.get_size(), where)
        if _is_text(kind) and count:
            self._long_texts(data, count, where)

    def _type(self, kind: h5py.h5t.TypeID, where: str) -> None:
        if kind.get_class() not in _PLAIN:
            what = {h5py.h5t.REFERENCE: "references", h5py.h5t.VLEN: "lists of any length",
                    h5py.h5t.COMPOUND: "records", h5py.h5t.OPAQUE: "opaque bytes"}.get(kind.get_class(), "a type")
            raise self._no(where, f"holds {what}, and a trace numbers and text only")

    def _unfolds(self, size: int, where: str) -> None:
        """Chunks are not counted one by one: a run that goes on adds some meanwhile."""
        if self._is_beyond((self._unfolded + size) / _MOST_FOLD) or size > self._free:
            raise self._no(where, f"unfolds to {_in_bytes(size)} from a file of {_in_bytes(self._size)}")
        self._unfolded += size  # of what is refused nothing: `rescue` leaves it out, and goes on

    def _long_texts(self, data: h5py.h5d.DatasetID, count: int, where: str) -> None:
        """Texts one after the other, as many at a time as fit into memory if each is all of the file."""
        names, at_once = h5py.Dataset(data), max(1, _AT_ONCE_BYTES // self._size)
        for first in range(0, count, at_once):
            part = names[first: first + at_once] if data.shape else [names[()]]
            self._count(sum(map(len, part)), where)

    def attributes(self, item: Any, where: str) -> None:
        """The attributes of an object, but for those of dimension scales."""
        if (many := h5py.h5a.get_num_attrs(item)) > _MOST_ATTRIBUTES:
            raise self._no(where, f"has {many} attributes, and {_MOST_ATTRIBUTES} are the most")
        names: list[bytes] = []
        h5py.h5a.iterate(item, lambda name, *_: names.append(name))
        for name in names:
            if name in _SCALES:
                continue
            attribute = h5py.h5a.open(item, name)
            kind, place = attribute.get_type(), f"attribute {name.decode(errors='replace')} of {where}"
            if "\ufffd" in place:
                raise self._no(place, "has a name that is no UTF-8 text")
            self._type(kind, place)
            if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
                raise self._no(place, "is empty")
            if not _is_text(kind):
                self._count(attribute.get_storage_size(), place)
                continue
            count = math.prod(attribute.shape)
            if count > _MOST_TEXTS:
                raise self._no(place, f"holds {count} texts, and {_MOST_TEXTS} are the most")
            value = np.empty(attribute.shape, dtype=object)
            if count:
                attribute.read(value)
            self._count(sum(len(text or b"") for text in value.ravel().tolist()), place)

    def _count(self, size: int, where: str) -> None:
        if self._is_beyond(self._texts + size):
            raise self._no(where, "shares its text with others: together they are longer than the file")
        self._texts += size

    def _is_beyond(self, size: float) -> bool:
        """Whether it is more than the file, which may still grow."""
        if size > self._size:
            self._size = os.path.getsize(self._name)
        return size > self._size

    def _no(self, where: str, what: str) -> UnsafeObject:
        return UnsafeObject(f"{cut(where, 120, 40)} {what}")


def _is_text(kind: h5py.h5t.TypeID) -> bool:
    return kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()


def _in_bytes(size: float) -> str:
    """A size in words."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
