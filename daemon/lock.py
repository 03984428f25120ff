"""One daemon per data directory: a lock that the kernel gives back when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK: Final = "lock"


class DirectoryInUse(Exception):
    """Another process holds the data directory."""


@contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir`, made if need be, for the length of the block. Raises DirectoryInUse, OSError."""
    data_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(fd, data_dir)
        yield
    finally:
        os.close(fd)


def _take(fd: int, data_dir: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        message = f"data directory {data_dir} is in use by another detectd (process {holder}): stop it, or use another"
        raise DirectoryInUse(message) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
