"""Checksums of a finished file, behind its end, by which any byte that changed since is found.

    ... the file as HDF5 knows it ... | 8 bytes of SHA-256 per block of 16 KiB | size, SHA-256 of the seal, magic

HDF5 takes its file's end from the superblock and never looks behind it, so that every reader opens a sealed file as it
would without. A file that still grows has no seal, and a copy by another program (h5repack) has none.
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
_MAGIC = b"aidcSUM1"
_DIGEST = 8
_FOOT = struct.Struct("<Q32s8s")
"""Bytes that are sealed, SHA-256 of digests and size, magic."""


@dataclass(frozen=True)
class Seal:
    """What a seal says of its file. size: bytes that it covers; changed: indices of the blocks that are not as they
    were; blocks: how many there are."""

    size: int
    changed: tuple[int, ...]
    blocks: int


def seal(file: FileIO, size: int) -> None:
    """Write a seal over the first `size` bytes of a file behind them, and end the file there."""
    digests = b"".join(_digests(file, size))
    file.seek(size)
    data = memoryview(digests + _FOOT.pack(size, _of(digests, size), _MAGIC))
    while data:
        data = data[file.write(data):]
    file.truncate()


def sealed_size(file: FileIO) -> int | None:
    """Bytes of a file that its seal covers; None without a seal."""
    foot = _foot(file)
    return None if foot is None else foot[0]


def check_seal(path: Path) -> Seal | None:
    """A file held against its seal; None for one that has none. OSError. A file that did not change since the last
    look is not read again."""
    stat = path.stat()
    return _check(str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=64)
def _check(path: str, _mtime: int, _size: int, _inode: int) -> Seal | None:
    with FileIO(path, "r") as file:
        foot = _foot(file)
        if foot is None:
            return None
        size, written = foot
        now = list(_digests(file, size))
        changed = tuple(k for k, digest in enumerate(now) if digest != written[k * _DIGEST:(k + 1) * _DIGEST])
    return Seal(size, changed, len(now))


def _foot(file: FileIO) -> tuple[int, bytes] | None:
    """(size, digests) of a file's seal, if it has one and it is whole itself."""
    length = os.fstat(file.fileno()).st_size
    file.seek(max(0, length - _FOOT.size))
    foot = file.read(_FOOT.size)
    if len(foot) < _FOOT.size or not foot.endswith(_MAGIC):
        return None
    size, own, _ = _FOOT.unpack(foot)
    count = -(-size // BLOCK)
    if size + count * _DIGEST + _FOOT.size != length:
        return None
    file.seek(size)
    digests = file.read(count * _DIGEST)
    return (size, digests) if own == _of(digests, size) else None


def _of(digests: bytes, size: int) -> bytes:
    return hashlib.sha256(digests + struct.pack("<Q", size)).digest()


def _digests(file: FileIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    for at in range(0, size, BLOCK):
        yield hashlib.sha256(file.read(min(BLOCK, size - at))).digest()[:_DIGEST]
