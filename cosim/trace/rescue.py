"""What is whole in a damaged trace, saved into a new one.

HDF5 can hang or crash on bytes that it did not write. All reading here is therefore done by a child process
(`cosim.trace.supervised`); one that dies is started again without what it could not read.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosim.errors import TraceError, first_line
from cosim.limits import is_file
from cosim.ports import Port
from cosim.trace.file_scan import FileScan, UnsafeObject
from cosim.trace.form import odd_attribute
from cosim.trace.reader import FORMAT
from cosim.trace.seal import END_OF_FILE
from cosim.trace.supervised import DAMAGE, SIGNATURE, parts, supervised
from cosim.trace.writer import TraceWriter

_TRIES = 30


def rescue(path: Path, out: Path) -> list[str]:
    """Save what can be read of a trace into a new one, with status 'failed' and what is lost as its error; returns what
    is lost, a phrase each. Numbers that are lost among others are NaN, rows of tables that miss one are left out.

    Raises TraceError when nothing can be read, or `out` cannot be written.
    """
    if not is_file(path):
        raise TraceError(f"no trace at {path}")
    if out.exists():
        raise TraceError(f"{out} exists; choose another --out")
    try:
        with tempfile.TemporaryDirectory(prefix="cosim-rescue-") as folder:
            draft, mended = Path(folder) / "out.h5", Path(folder) / "in.h5"
            note = _mend(path, mended)
            lost = [*([note] if note else []), *_tried(path, mended, draft)]
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(draft, out)
    except OSError as err:
        raise TraceError(f"cannot rescue {path} into {out}: {err.strerror or err}") from None
    return lost


def _tried(path: Path, mended: Path, draft: Path) -> list[str]:
    """Run child processes until one completes the copy; each leaves out what the earlier ones could not read."""
    skip: list[str] = []
    for _ in range(_TRIES):
        draft.unlink(missing_ok=True)
        told = draft.with_suffix(".json")
        at, died = supervised("cosim.trace.rescue", str(mended), str(draft), str(told), json.dumps(skip))
        if not died:
            said = json.loads(told.read_text())
            if "error" in said:
                raise TraceError(f"{path}: {said['error']}")
            return [*(f"{name} ({reason})" for name, reason in said["lost"]),
                    *(f"{name} (HDF5 cannot read it)" for name in skip)]
        if not at or at in skip:
            break
        skip.append(at)
    raise TraceError(f"{path}: nothing can be saved; HDF5 {died} whatever is left out")


def _mend(path: Path, mended: Path) -> str:
    """A copy that HDF5 opens although its end is cut off or its first bytes are not HDF5's; what is lost by that."""
    shutil.copyfile(path, mended)
    with mended.open("r+b") as file:
        head, size = file.read(96), file.seek(0, os.SEEK_END)
        if head[:8] != SIGNATURE and not h5py.is_hdf5(mended):  # which looks behind a block of somebody else's, too
            file.seek(0)
            file.write(SIGNATURE)
        end = int.from_bytes(head[END_OF_FILE], "little")
        if size < end <= 64 * max(size, 1 << 16):
            file.truncate(end)
            return f"the last {end - size} of {end} bytes of the file"
    return ""


# --- in the child -----------------------------------------------------------------------------------------------------

class _Salvage:
    """Copies what it can read; `lost` lists what it could not; what leads out of the file is left alone and
    counts as lost."""

    def __init__(self, file: h5py.File, skip: Sequence[str]) -> None:
        self._file, self._skip, self._look = file, skip, FileScan(file)
        self._saved = 0
        self.lost: list[tuple[str, str]] = []

    def to(self, out: Path) -> None:
        attrs = self._attrs(self._file, "")
        if attrs.pop("format", FORMAT) != FORMAT:
            raise TraceError("it is HDF5, but no trace")
        for taken in ("schema_version", "status", "error"):
            attrs.pop(taken, None)
        start = str(attrs.pop("start", "2026-01-01T00:00:00"))
        writer = TraceWriter(out, attrs=attrs, start=start)
        for name in self._names(self._file, ""):
            group = self._item(self._file, name)
            if not isinstance(group, h5py.Group):
                continue
            kinds = [self._item(group, inner, name) for inner in self._names(group, name)]
            if kinds and all(isinstance(item, h5py.Dataset) for item in kinds):
                self._table(writer, name, group)
            else:
                for model in self._names(group, name):
                    self._model(writer, name, model, self._item(group, model, name))
        if not self._saved:
            raise TraceError("nothing can be saved: " + "; ".join(f"{name} ({why})" for name, why in self.lost[:3]))
        writer.finish("failed", "rescued from a damaged trace; lost: " + ("; ".join(
            f"{name} ({reason})" for name, reason in self.lost[:20]) or "nothing"))

    def _model(self, writer: TraceWriter, member: str, model: str, group: Any) -> None:
        path = f"{member}/{model}"
        if group is None:
            return
        if not isinstance(group, h5py.Group) or "time_s" not in self._names(group, path):
            self.lost.append((path, "it is no model: it has no time_s"))
            return
        times, known = self._rows(f"{path}/time_s", group, "time_s")
        names = self._texts(f"{path}/entity", group, "entity")
        if times is None or names is None:
            self.lost.append((path, "its times or names"))
            return
        arrays: dict[str, np.ndarray] = {}
        ports: list[Port] = []
        labels: dict[str, list[str]] = {}
        for name in self._names(group, path):
            made = self._port(path, group, name, len(names), labels)
            if made is not None:
                ports.append(made[0])
                arrays[name] = made[1]
        count = min([len(times), *(len(values) for values in arrays.values())])
        late = np.append(True, np.diff(times[:count]) > 0) if count else np.zeros(0, bool)
        keep = np.flatnonzero(known[:count] & late)
        if len(keep) < count:
            self.lost.append((f"{path}/time_s", f"{count - len(keep)} of {count} times"))
        if not ports:
            return
        self._saved += 1
        writer.declare(member, model, names, ports, labels)
        columns = {name: values[keep].tolist() for name, values in arrays.items()}
        for k, at in enumerate(keep):
            writer.append(member, model, float(times[at]), {
                entity: {name: rows[k][e] for name, rows in columns.items()} for e, entity in enumerate(names)})
        writer.flush(final=True)

    def _port(self, path: str, group: h5py.Group, name: str, entities: int,
              labels: dict[str, list[str]]) -> tuple[Port, np.ndarray] | None:
        where, data = f"{path}/{name}", self._item(group, name, path)
        try:
            if not isinstance(data, h5py.Dataset) or data.is_scale:
                return None
            dims = tuple(h5py.h5ds.get_scale_name(axis[0].id).decode() for axis in data.dims)[2:]
            about = str(data.attrs.get("long_name", name))
            sign = str(data.attrs.get("sign", ""))
            for dim in dims:
                if (texts := self._texts(f"{path}/{dim}", group, dim)) is None:
                    return None
                labels[dim] = texts
            port = Port(name, "out", about, sign=sign, dims=dims, nullable=True)
        except (*DAMAGE, TraceError) as err:
            self.lost.append((where, first_line(err)))
            return None
        values, known = self._rows(where, group, name)
        if values is None or values.shape[1:] != (entities, *(len(labels[d]) for d in dims)):
            self.lost.append((where, "all of it"))
            return None
        if not known.all():
            self.lost.append((where, f"{np.count_nonzero(~known)} of {len(known)} rows, from row "
                                     f"{int(np.flatnonzero(~known)[0])}; NaN instead"))
        return port, values

    def _table(self, writer: TraceWriter, name: str, group: h5py.Group) -> None:
        columns, whole = {}, None
        for column in self._names(group, name):
            values, known = self._rows(f"{name}/{column}", group, column)
            if values is None:
                self.lost.append((f"table {name}", f"column {column}"))
                return
            columns[column] = values
            whole = known if whole is None else whole[:len(known)] & known[:len(whole)]
        if whole is None:
            return
        keep = np.flatnonzero(whole)
        if len(keep) < len(whole):
            self.lost.append((f"table {name}", f"{len(whole) - len(keep)} of {len(whole)} rows"))
        plain = {column: np.char.decode(values[keep], "utf-8", "replace").tolist() if values.dtype.kind == "S"
                 else values[keep].tolist() for column, values in columns.items()}
        self._saved += bool(len(keep))
        writer.extend(name, plain)
        writer.flush(final=True)

    def _rows(self, where: str, group: h5py.Group, name: str) -> tuple[np.ndarray | None, np.ndarray]:
        """(values, mask of the rows that could be read); None where the dataset itself cannot."""
        data, none = self._item(group, name, where.rpartition("/")[0]), np.zeros(0, bool)
        if not isinstance(data, h5py.Dataset):
            return None, none
        try:
            values = np.zeros(data.shape, data.dtype)
            if data.dtype.kind == "f":
                values[...] = np.nan
            known = np.zeros(data.shape[0], bool)
            slices = list(parts(data))
        except (*DAMAGE, MemoryError):
            return None, none
        for part in slices:
            try:
                values[part] = data[part]
                known[part] = True
            except DAMAGE:
                continue
        return values, known

    def _texts(self, where: str, group: h5py.Group, name: str) -> list[str] | None:
        if not isinstance(data := self._item(group, name, where.rpartition("/")[0]), h5py.Dataset):
            return None
        try:
            texts = [x.decode() if isinstance(x, bytes) else str(x) for x in data[()]]
        except DAMAGE:
            return None
        return texts if texts and len(set(texts)) == len(texts) and all(texts) else None

    def _names(self, group: h5py.Group, where: str) -> list[str]:
        try:
            return [str(name) for name in group]
        except DAMAGE as err:
            self.lost.append((where or "/", first_line(err)))
            return []

    def _item(self, group: h5py.Group, name: str, where: str = "") -> Any:
        path = f"{where}/{name}" if where else name
        if path in self._skip:
            return None
        print(path, flush=True)
        try:
            self._look.item(group.id, name.encode(errors="surrogateescape"), f"/{path}")
            return group[name]
        except (*DAMAGE, UnsafeObject) as err:
            if (lost := (path, first_line(err))) not in self.lost:
                self.lost.append(lost)
            return None

    def _attrs(self, item: Any, where: str) -> dict[str, Any]:
        out = {}
        try:
            self._look.attributes(item.id, where or "/")
            names = list(item.attrs)
        except (*DAMAGE, UnsafeObject) as err:
            self.lost.append((f"{where}attributes", first_line(err)))
            names = []
        for name in names:
            try:
                value = item.attrs[name]
            except DAMAGE:
                self.lost.append((f"{where}attribute {name}", "all of it"))
                continue
            if isinstance(value, str):
                value = value.encode(errors="replace").decode()
            if name in ("default", "summary"):  # made anew, and no longer true
                continue
            if odd := odd_attribute(name, value):
                self.lost.append((f"{where}attribute {name}", f"it {odd}"))
            else:
                out[name] = value
        return out


def _copy(source: str, out: str, told: str, skip: str) -> None:
    said: dict[str, Any]
    try:
        with h5py.File(source, "r", locking=False) as file:
            copy = _Salvage(file, json.loads(skip))
            copy.to(Path(out))
        said = {"lost": copy.lost}
    except TraceError as err:
        said = {"error": str(err)}
    except DAMAGE as err:
        said = {"error": f"nothing can be saved: {first_line(err)}"}
    Path(told).write_text(json.dumps(said))


def main(argv: list[str]) -> int:
    """The child's program."""
    _copy(*argv)
    return 0
