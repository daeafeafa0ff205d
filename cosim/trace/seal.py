"""Checksums of a finished file, behind its end, by which any byte that changed since is found.

    ... the file as HDF5 reads it ... | seal | a page of zeros | seal
    seal: 8 bytes of SHA-256 per block of 16 KiB | size, SHA-256 of the seal, magic

It stands there twice, so that a page that is lost takes one of them at most. HDF5 takes its file's end from the
superblock and never reads behind it, so that every reader opens a sealed file as it would without. A file that still
grows has no seal, and a copy by another program (h5repack) has none.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path

BLOCK = 1 << 14
PAGE = 4096
"""Bytes of a page of memory and of the disk, which the kernel writes as one."""
END_OF_FILE = slice(40, 48)
"""Where a superblock of version 0 keeps the file's end."""
_MAGIC = b"aidcSUM1"
_DIGEST = 8
_FOOT = struct.Struct("<Q32s8s")
"""Bytes that are sealed, SHA-256 of digests and size, magic."""


@dataclass(frozen=True)
class Seal:
    """Result of checking a file against its seal. size: bytes that it covers; changed: indices of the blocks that are
    not as they were; blocks: how many there are; twice: whether both copies of the seal are whole; digest: of all
    digests, the same for the same bytes."""

    size: int
    changed: tuple[int, ...]
    blocks: int
    twice: bool
    digest: bytes


def seal(file: FileIO, size: int) -> bytes:
    """Write a seal over the first `size` bytes of a file behind them, and end the file there. Returns its digest."""
    digests = b"".join(_digests(file, size))
    digest = _of(digests, size)
    once = digests + _FOOT.pack(size, digest, _MAGIC)
    write_at(file, size, once + bytes(PAGE) + once)
    file.truncate()
    return digest


def sealed_size(file: FileIO) -> int | None:
    """Bytes of a file that its seal covers; None without a seal."""
    found = _found(file)
    return None if found is None else found[0]


def check_seal(path: Path) -> Seal | None:
    """A file held against its seal; None for one that has none. OSError. A file that did not change since the last
    look is not read again."""
    stat = path.stat()
    return _check(str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino)


def read_at(file: FileIO, at: int, size: int) -> bytes:
    """Bytes from offset `at` on: `size` of them, or those up to the end."""
    file.seek(at)
    return file.read(size)


def write_at(file: FileIO, at: int, data: bytes | bytearray) -> None:
    """Write all of `data` from offset `at` on, and leave the file's position behind it. OSError when it takes less."""
    file.seek(at)
    done = 0
    while done < len(data):
        with memoryview(data) as whole, whole[done:] as rest:  # let go of: an error must not keep `data` from shrinking
            done += file.write(rest)


@lru_cache(maxsize=64)
def _check(path: str, _mtime: int, _size: int, _inode: int) -> Seal | None:
    with FileIO(path, "r") as file:
        found = _found(file)
        if found is None:
            return None
        size, written, twice = found
        now = list(_digests(file, size))
        changed = tuple(k for k, digest in enumerate(now) if digest != written[k * _DIGEST:(k + 1) * _DIGEST])
    return Seal(size, changed, len(now), twice, _of(written, size))


def _found(file: FileIO) -> tuple[int, bytes, bool] | None:
    """(size, digests, whether both copies are whole) of a file's seal, if it has one. The second copy is looked for
    from the file's end, the first where HDF5's part ends by the superblock."""
    length = os.fstat(file.fileno()).st_size
    size = int.from_bytes(read_at(file, END_OF_FILE.start, 8), "little")
    if length >= _FOOT.size and (foot := read_at(file, length - _FOOT.size, _FOOT.size)).endswith(_MAGIC):
        size = _FOOT.unpack(foot)[0]
    long = -(-size // BLOCK) * _DIGEST + _FOOT.size
    if not 0 < size <= length or length != size + 2 * long + PAGE:
        return None
    first, gap, second = (read_at(file, at, count) for at, count in (
        (size, long), (size + long, PAGE), (size + long + PAGE, long)))
    whole = [copy for copy in (first, second) if _is_whole(copy, size)]
    if not whole:
        return None
    return size, whole[0][: -_FOOT.size], len(whole) == 2 and first == second and not any(gap)


def _is_whole(copy: bytes, size: int) -> bool:
    digests, foot = copy[: -_FOOT.size], copy[-_FOOT.size:]
    return foot == _FOOT.pack(size, _of(digests, size), _MAGIC)


def _of(digests: bytes, size: int) -> bytes:
    return hashlib.sha256(digests + struct.pack("<Q", size)).digest()


def _digests(file: FileIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    for at in range(0, size, BLOCK):
        yield hashlib.sha256(file.read(min(BLOCK, size - at))).digest()[:_DIGEST]
