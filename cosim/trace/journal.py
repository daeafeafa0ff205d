"""A file that HDF5 writes into and that is whole on the disk at any instant, whatever kills the process.

HDF5 itself writes a flush in the order of its caches: an index may point to a block before the block is in the file,
or before the superblock's end of file includes it. A kill in between leaves a file that no reader opens. Here HDF5
(h5py's driver for Python file objects) writes into memory, and `commit` brings what it wrote to the disk as one step:

- Rows were added: new blocks go behind the old end, where nothing points to yet; then the superblock's end of file;
  then the indices, from the root of each tree down; then the extents of the datasets, which show the rows. Old rows
  are found at every instant between. Each change in place is one write inside one page of 4096 bytes, which the kernel
  does not split for a signal.
- Anything else (a new dataset, an attribute, a tree that grows a level): a copy with the changes takes the file's place
  by a rename.

`cosim.trace.blocks` has the layouts. Files are locked as HDF5 locks them (flock), so that no second program writes,
or reads without option; where the system has no flock (Windows), they are not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from io import FileIO
from pathlib import Path

from cosim.trace.blocks import Steps, steps_in_place
from cosim.trace.seal import read_at, seal, sealed_size, write_at

try:
    import fcntl
except ImportError:  # no flock on this system: the file is not locked
    fcntl = None  # type: ignore[assignment]

_NO_COPY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES)
"""Why a copy may not come about where the file itself can still be written."""
_PIECE = 1 << 20


class JournaledFile:
    """The file object to give to h5py.File, with mode 'w' for one from `create`, 'r+' for one from `edit`.

    What h5py writes is in memory until `commit`; `roll_back` discards it. Close the h5py.File before committing the
    end. `extents` holds the addresses of the object headers of datasets that grow: address -> rank, low ranks first.
    """

    def __init__(self, path: Path, file: FileIO | None, overwrite: bool = False, durable: bool = False) -> None:
        self._path, self._file, self._overwrite, self._durable = path, file, overwrite, durable
        self.extents: dict[int, int] = {}
        self._sealed = sealed_size(file) if file else None
        self._base = self._size = self._sealed or (os.fstat(file.fileno()).st_size if file else 0)
        self._at = 0
        self._tail = bytearray()
        self._changed: Steps = []

    @classmethod
    def create(cls, path: Path, overwrite: bool = False, durable: bool = False) -> JournaledFile:
        """A new file, which stands at `path` with the first commit. durable: every commit is a copy that is on the disk
        itself (fsync) before it takes the place of the old one, so that a machine that loses its power loses none that
        has ended. OSError: FileExistsError for one that is there, BlockingIOError for one to be overwritten that
        another program has locked."""
        if path.exists():
            if not overwrite:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            if not path.is_file():
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
            with FileIO(path, "r") as old:
                _lock(old)
        return cls(Path(os.path.realpath(path)), None, overwrite, durable)

    @classmethod
    def edit(cls, path: Path) -> JournaledFile:
        """A file that is there. OSError: BlockingIOError for one that another program has locked."""
        file = FileIO(path, "r+")
        _lock(file)
        return cls(Path(os.path.realpath(path)), file)

    # --- what h5py calls ----------------------------------------------------------------------------------------

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        """What was written last, on the disk or not."""
        begin, end = self._at, min(self._at + len(buffer), self._size)
        out = bytearray(max(0, end - begin))
        if begin < self._base and self._file:
            old = read_at(self._file, begin, min(end, self._base) - begin)
            out[: len(old)] = old
        for at, data in self._changed:
            low, high = max(at, begin), min(at + len(data), end)
            if low < high:
                out[low - begin: high - begin] = data[low - at: high - at]
        if end > self._base:
            low = max(begin, self._base)
            new = self._tail[low - self._base: end - self._base]
            out[low - begin: low - begin + len(new)] = new
        buffer[: len(out)] = out
        self._at = begin + len(out)
        return len(out)

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        out = bytearray(max(0, self._size - self._at) if size < 0 else size)
        return bytes(out[: self.readinto(memoryview(out))])

    def write(self, data: bytes | memoryview) -> int:
        """Into memory."""
        data = bytes(data)
        inside = data[: max(0, self._base - self._at)]
        if inside:
            self._changed.append((self._at, inside))
        behind = data[len(inside):]
        if behind:
            begin = self._at + len(inside) - self._base
            self._tail.extend(bytes(max(0, begin + len(behind) - len(self._tail))))
            self._tail[begin: begin + len(behind)] = behind
        self._at += len(data)
        self._size = max(self._size, self._at)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """In memory."""
        self._size = self._at if size is None else size
        del self._tail[max(0, self._size - self._base):]
        return self._size

    def flush(self) -> None:
        """Does nothing; `commit` writes."""

    # --- what its owner calls -----------------------------------------------------------------------------------

    def commit(self) -> None:
        """Bring what was written to the disk. OSError leaves the file as it was; what was written is then kept."""
        if self._size == self._base and not self._changed:
            return
        steps = self._growth() if self._file and not self._durable else None
        if steps is None:
            self._replace()
        else:
            self._grow(steps)
        self._base = self._size
        self._tail.clear()
        self._changed.clear()

    def roll_back(self) -> None:
        """Forget what was written since the last commit."""
        self._tail.clear()
        self._changed.clear()
        self._size = self._base
        if self._file and not self._sealed:
            self._file.truncate(self._base)

    def seal(self) -> bytes:
        """Add checksums to what was committed (`cosim.trace.seal`); the next commit takes them off again. Returns their
        digest. OSError leaves the file without."""
        try:
            digest = seal(self._there, self._base)
            self._sync(self._there)
        except OSError:
            self._there.truncate(self._base)
            raise
        self._sealed = self._base
        return digest

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file:
            self._file.close()

    # --- inside -------------------------------------------------------------------------------------------------

    @property
    def _there(self) -> FileIO:
        """The file on the disk, once a commit has made it."""
        assert self._file is not None, "nothing was committed yet"
        return self._file

    def _growth(self) -> Steps | None:
        """The writes in place of a flush that only added rows, in an order that is whole after each; else None."""
        blocks = dict(self._changed)
        ends = [at + len(data) for at, data in sorted(blocks.items())]
        if self._size < self._base or any(a > b for a, b in zip(ends, sorted(blocks)[1:], strict=False)):
            return None
        ranked: list[tuple[int, int, Steps]] = []
        for at, new in blocks.items():
            old = read_at(self._there, at, len(new))
            if old == new:
                continue
            found = steps_in_place(at, old, new, self.extents.get(at))
            if found is None:
                return None
            rank, steps = found
            ranked.append((rank, at, steps))
        return [step for _, _, steps in sorted(ranked) for step in steps]

    def _grow(self, steps: Steps) -> None:
        file = self._there
        if self._sealed:
            file.truncate(self._base)
            self._sealed = None
        try:
            _put(file, self._base, self._tail)
        except OSError:
            file.truncate(self._base)
            raise
        if self._base + len(self._tail) < self._size:
            file.truncate(self._size)
        for at, data in steps:
            _put(file, at, data)

    def _replace(self) -> None:
        """Put a file with all changes in the place of the old one."""
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            file = self._drafted(draft)
        except OSError as err:
            draft.unlink(missing_ok=True)
            if err.errno not in _NO_COPY or not self._file:
                raise
            self._grow(self._changed)  # no room for a copy: in place, where a kill could tear it
            return
        if self._file and self._file is not file:
            self._file.close()
        self._file, self._sealed = file, None

    def _drafted(self, draft: Path) -> FileIO:
        file = FileIO(draft, "w+")
        try:
            _lock(file)
            self._permit(file)
            _copy(self._file, file, min(self._base, self._size))
            for at, data in self._changed:
                _put(file, at, data)
            _put(file, self._base, self._tail)
            file.truncate(self._size)
            self._sync(file)
            try:
                self._take_place(draft)
            except PermissionError:  # Windows renames no open file, and none to the name of one
                file.close()
                file = self._taken_when_closed(draft)
            if self._durable:
                _sync_folder(self._path.parent)
        except OSError:
            file.close()
            raise
        return file

    def _taken_when_closed(self, draft: Path) -> FileIO:
        """The draft, opened again at its place. PermissionError, and the old file open, where another program's hand is
        on that."""
        if self._file:
            self._file.close()
        try:
            if _is_same(draft, self._path):
                draft.unlink()  # linked to its place, but open then
            else:
                os.replace(draft, self._path)  # where no file was, one that holds the name is there by now
        finally:
            if self._file:
                self._file = FileIO(self._path, "r+")
                _lock(self._file)
        if self._file:
            return self._file
        file = FileIO(self._path, "r+")
        _lock(file)
        return file

    def _sync(self, file: FileIO) -> None:
        if self._durable:
            os.fsync(file.fileno())

    def _permit(self, draft: FileIO) -> None:
        """Give a draft the permissions of the file whose place it takes."""
        with contextlib.suppress(FileNotFoundError, PermissionError, AttributeError):
            os.fchmod(draft.fileno(), stat.S_IMODE(os.stat(self._path).st_mode))

    def _take_place(self, draft: Path) -> None:
        if self._file or self._overwrite:
            os.replace(draft, self._path)
            return
        try:
            os.link(draft, self._path)  # unlike a rename, it fails where a file is
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            FileIO(self._path, "x").close()
            os.replace(draft, self._path)
        else:
            draft.unlink()


def _put(file: FileIO, at: int, data: bytes | bytearray) -> None:
    """Every byte that reaches the disk, but for the seal, goes through here."""
    write_at(file, at, data)


def _copy(old: FileIO | None, new: FileIO, size: int) -> None:
    """The first `size` bytes of a file; by the kernel, which shares blocks where the file system can."""
    if old is None:
        return
    at = 0
    with contextlib.suppress(AttributeError, OSError):  # another system, or a file system that cannot
        while at < size and (done := os.copy_file_range(old.fileno(), new.fileno(), size - at, at, at)):
            at += done
    while at < size:
        _put(new, at, read_at(old, at, min(_PIECE, size - at)))
        at += min(_PIECE, size - at)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file; False where one is of none."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; where folders cannot be opened (Windows), the system does so by itself."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock(file: FileIO) -> None:
    """BlockingIOError when another program has it. A file system without locks is taken as it is."""
    if fcntl is None or os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:
        return
