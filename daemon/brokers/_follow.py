"""Follows a text file that another program writes: whole lines, in order, across rotation, truncation and restarts.

**Rotation.** Where the path leads to another file that has something in it, the writer has moved on: what the old one
still has is read, then those that were rotated in between (`NAME.1`, `NAME-20260101`, by their age), then the new one.
**Truncation** (logrotate's copytruncate) shows in the size, or in that the bytes before our place are not those that
we read. **Restarts.** A `Place` says where to go on: the same file is found again under its old or rotated name, by
inode and by the bytes before the place; one that is gone is `lost`.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

TAIL_BYTES: Final = 64
BEHIND_MAX: Final = 1024**3  # what lies further back is passed over: it would be late anyway
_rotated: Final = re.compile(r"[.-]\d[\d.T_-]{0,30}").fullmatch


class Place(msgspec.Struct, frozen=True):
    """Where reading goes on."""

    device: int
    inode: int
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    tail: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2}){0,64}$")]  # hex of the bytes before it


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines without their ends, from one file; `at_end`: there are no more now."""

    lines: list[bytes]
    at_end: bool


class FileCounts(Protocol):
    """Totals that following adds to."""

    lost: int
    rewritten: int
    skipped_bytes: int
    unreadable: int


class Follower:
    """Blocks: call it from a thread, one call at a time. Holds one file open; `close` ends that."""

    def __init__(self, path: Path, place: Place | None, counts: FileCounts) -> None:
        self._path, self._counts = path, counts
        self._wanted = place  # not found again yet
        self._is_first = place is None  # what was there before us is not ours
        self._fd = -1
        self._own = (0, 0)  # device, inode
        self._offset = 0
        self._tail = b""

    @property
    def place(self) -> Place:
        """Where to go on after what was read."""
        return Place(*self._own, self._offset, self._tail.hex())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def prepare(self) -> Place:
        """Where `read` will begin. Raises OSError: there is no such file, or it can't be read."""
        if self._fd < 0:
            self._open_first()
        if not _has(self._fd, self._offset, self._tail):
            self._counts.rewritten += 1
            self._go_to(0)
        return self.place

    def read(self, bytes_max: int) -> Piece:
        """The next lines, of at most so many bytes, after `prepare`. Raises OSError."""
        has_moved_on = self._is_rotated()  # asked before reading: what is written until it moves on is read, too
        offset = self._offset
        lines = self._lines(bytes_max)
        if self._offset > offset or not has_moved_on:
            return Piece(lines, at_end=self._offset == offset)
        self._open_next()
        return Piece([], at_end=False)

    def behind_bytes(self) -> int:
        """What is not read yet of the present file."""
        return max(0, os.fstat(self._fd).st_size - self._offset) if self._fd >= 0 else 0

    # ---- the present file ----

    def _lines(self, bytes_max: int) -> list[bytes]:
        data = os.pread(self._fd, bytes_max, self._offset)
        end = data.rfind(b"\n")
        if end < 0:
            if len(data) == bytes_max:  # no log has such lines
                self._counts.unreadable += 1
                self._advance(data)
            return []
        self._advance(data[: end + 1])
        return data[:end].split(b"\n")

    def _advance(self, read: bytes) -> None:
        self._offset += len(read)
        self._tail = (self._tail + read[-TAIL_BYTES:])[-TAIL_BYTES:]

    def _go_to(self, offset: int) -> None:
        start = max(0, offset - TAIL_BYTES)
        self._offset, self._tail = offset, os.pread(self._fd, offset - start, start)

    def _is_rotated(self) -> bool:
        """Whether the writer has moved on: an empty file at the path may be there before it does."""
        there = _stat(self._path)
        if there is not None and (there.st_dev, there.st_ino) == self._own:
            return False
        return (there is not None and there.st_size > 0) or self._successor() != self._path

    # ---- from one file to the next ----

    def _open_first(self) -> None:
        if self._wanted is not None:
            if self._open_wanted(self._wanted):
                return
            self._counts.lost += 1
            self._wanted = None
        try:
            self._open(self._path)
        except FileNotFoundError:
            self._is_first = False  # one that comes later is new, and all of it is ours
            raise
        self._go_to(self._last_line_end() if self._is_first else 0)
        self._is_first = False
        self._pass_over()

    def _open_wanted(self, place: Place) -> bool:
        for path in (self._path, *_siblings(self._path)):
            try:
                self._open(path)
            except OSError:
                continue
            if self._own == (place.device, place.inode) and _has(self._fd, place.offset, bytes.fromhex(place.tail)):
                self._go_to(place.offset)
                self._wanted = None
                self._pass_over()
                return True
            self.close()
        return False

    def _open_next(self) -> None:
        """After the last line of a file that its writer has left. Names move while we look: another look helps then."""
        path = self._successor()
        wanted = _stat(path)
        left, own = self._fd, self._own
        try:
            self._open(path)
        except FileNotFoundError:
            return
        if wanted is None or self._own != (wanted.st_dev, wanted.st_ino) or self._own == own:
            os.close(self._fd)
            self._fd, self._own = left, own
            return
        os.close(left)
        self._go_to(0)
        self._pass_over()

    def _successor(self) -> Path:
        """What was written after the present file: the next of those that were rotated, else the one at the path."""
        here = os.fstat(self._fd)
        later = (path for path in _siblings(self._path) if _age(path) > (here.st_mtime_ns, here.st_ino))
        return next(later, self._path)

    def _open(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(f"{path} is no regular file")
        self._fd, self._own = fd, (found.st_dev, found.st_ino)

    def _last_line_end(self) -> int:
        """Where the line begins that is being written."""
        size = os.fstat(self._fd).st_size
        start = max(0, size - 65_536)
        return start + os.pread(self._fd, size - start, start).rfind(b"\n") + 1

    def _pass_over(self) -> None:
        excess = self.behind_bytes() - BEHIND_MAX
        if excess > 0:
            data = os.pread(self._fd, 65_536, self._offset + excess)
            start = self._offset + excess + data.find(b"\n") + 1
            self._counts.skipped_bytes += start - self._offset
            self._go_to(start)


def _has(fd: int, offset: int, tail: bytes) -> bool:
    """Whether a file has these bytes before an offset."""
    return offset >= len(tail) and os.pread(fd, len(tail), offset - len(tail)) == tail and _reaches(fd, offset)


def _reaches(fd: int, offset: int) -> bool:
    return os.fstat(fd).st_size >= offset


def _siblings(path: Path) -> list[Path]:
    """What the file was rotated to, the oldest first; compressed ones can't be followed."""
    try:
        found = [one for one in path.parent.iterdir() if _is_rotation(one.name, path.name)]
    except OSError:
        return []
    return sorted(found, key=_age)


def _is_rotation(name: str, of: str) -> bool:
    return name.startswith(of) and _rotated(name[len(of) :]) is not None


def _age(path: Path) -> tuple[int, int]:
    """Sorts by the last write; the inode makes it definite."""
    found = _stat(path)
    return (found.st_mtime_ns, found.st_ino) if found is not None else (0, 0)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
