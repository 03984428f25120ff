"""What is in a backup, by name, size and hash, in a file that is written last.

A copy that broke off has none, and one that rotted differs from it: neither becomes a data directory.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from daemon import whole_file

FILE: Final = "backup.json"


class NoBackup(Exception):
    """The directory holds no whole backup; the message says what is wrong."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: int
    sha256: str


def seal(folder: Path) -> None:
    """List all that is there, and see it onto the disk. Raises OSError."""
    entries = {name: _entry(folder / name, sync=True) for name in _names(folder)}
    whole_file.write(folder / FILE, msgspec.json.encode(entries), whole_file.PRIVATE)


def verify(folder: Path) -> None:
    """Raises: NoBackup, OSError."""
    try:
        listed = msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, Entry])
    except (FileNotFoundError, NotADirectoryError):
        raise NoBackup(f"{folder}: no backup of detectd, or one that broke off: {FILE} is missing") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise NoBackup(f"{folder / FILE}: damaged: {problem}") from problem
    names = _names(folder)
    if missing := sorted(listed.keys() - names):
        raise NoBackup(f"{folder}: the backup is not whole: {', '.join(missing)} missing")
    if strange := sorted(names - listed.keys()):
        raise NoBackup(f"{folder}: not of the backup: {', '.join(strange)}; take that away first")
    for name, entry in listed.items():
        if _entry(folder / name) != entry:
            raise NoBackup(f"{folder / name}: damaged: it is not what was written")


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {FILE}


def _entry(path: Path, *, sync: bool = False) -> Entry:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return Entry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
