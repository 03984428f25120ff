"""What the log file of nats-server says that nothing else tells: refusals, dropped messages, a finished reload."""

import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO, Final

SIGNS: Final = {
    b"Publish Violation": "publish_refused",
    b"Subscription Violation": "subscribe_refused",
    b"unacceptable protocol version of": "mqtt5_refused",
    b"Dropping messages due to excessive": "dropped",
    b"authentication error": "login_refused",
    b"maximum payload exceeded": "payload_refused",
    b"Reloaded server configuration": "reloaded",
    b"Failed to reload server configuration": "reload_failed",
    b"JetStream out of resources, will be DISABLED": "disabled",
    b"ritical write error": "write_failed",
}
"""A piece of a line -> the word it is counted under."""

_READ_MAX: Final = 4 * 1024 * 1024


class ServerLog:
    """Reads on from where the file ended when this was made; follows it when nats-server begins a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        if path.exists():
            self._file = path.open("rb")
            self._file.seek(0, os.SEEK_END)

    def read(self) -> Counter[str]:
        """How often each sign was seen since the last call. Of more than 4 MiB only the last part is read."""
        found: Counter[str] = Counter()
        self._read_on(found)
        if self._has_moved_on():
            self.close()
            self._file = self._path.open("rb")
            self._read_on(found)
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_on(self, found: Counter[str]) -> None:
        if self._file is None:
            return
        waiting = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if waiting > _READ_MAX:
            # A client that is refused all the time writes megabytes; counting every line would be its next victim.
            self._file.seek(-_READ_MAX, os.SEEK_END)
        text, newline, self._rest = (self._rest + self._file.read(_READ_MAX)).rpartition(b"\n")
        for sign, word in SIGNS.items():
            if count := (text + newline).count(sign):
                found[word] += count

    def _has_moved_on(self) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        was = os.fstat(self._file.fileno())
        return (now.st_dev, now.st_ino) != (was.st_dev, was.st_ino)


def last_words(path: Path, start: int) -> str:
    """Of what was written from `start` on, the line that says why the server gave up; "" where there is none."""
    try:
        lines = path.read_bytes()[start:][-65536:].decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    grave = [line for line in lines if "[FTL]" in line or "[ERR]" in line] or [line for line in lines if line.strip()]
    return grave[-1].rpartition("] ")[2].strip() if grave else ""
