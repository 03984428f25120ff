"""The credentials of devices: one file in the data directory, changed by `detectd devices`, followed by the daemon.

    {"version": 1, "devices": {"p1": {"password": "$scrypt$…", "fingerprints": ["ab…"], "changed": 1767323045}}}

A name that was revoked stays in it, so that a certificate which the CA still vouches for opens nothing any more, and
so that revoking the last one does not leave a broker that asks nobody.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from daemon import whole_file
from daemon.clock import Clock, sleep
from daemon.devices import passwords
from daemon.devices.passwords import Cost, Hash

FILE: Final = "devices.json"
LOCK: Final = "devices.lock"
NOTE: Final = b"devices have been added here: without devices.json the daemon does not start\n"
"""What stands in the lock from then on: a file that is lost must not open the door at the next start."""
BYTES_MAX: Final = 64 * 1024**2  # some 300,000 devices
NAME_MAX: Final = 128
LOOK_S: Final = 0.5
NAMES_SHOWN: Final = 20

log = structlog.get_logger(__name__)


class Device(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What one device can show. `changed`: epoch seconds."""

    password: str | None = None
    fingerprints: tuple[str, ...] = ()
    revoked: bool = False
    changed: int = 0

    def __repr__(self) -> str:
        return f"<Device {len(self.fingerprints)} certificates>"


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    version: Literal[1] = 1
    devices: dict[str, Device] = {}


class DamagedDevices(Exception):
    """The file of credentials can't be used. The message says why, and shows none."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is in the file, as the doorman asks for it."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    hashes: Mapping[str, Hash] = field(default_factory=dict)
    by_fingerprint: Mapping[str, str] = field(default_factory=dict)
    costs: tuple[Cost, ...] = ()
    """Of all hashes, in the order of the names."""

    def __bool__(self) -> bool:
        """Whether devices must show something. Those that were revoked count: see above."""
        return bool(self.devices)

    def decoy_for(self, name: str) -> Hash | None:
        """Something to check a password against that nobody has: as slow as for a user that is there, and equally
        slow each time, so that slowness tells nothing. None: nobody has a password.
        """
        if not self.costs:
            return None
        place = int.from_bytes(sha256(name.encode(errors="surrogatepass")).digest()[:8])
        return passwords.decoy(self.costs[place % len(self.costs)])


def credentials_of(devices: Mapping[str, Device]) -> Credentials:
    """Raises: DamagedDevices: a hash is none, a fingerprint is listed under two names, a name is none."""
    hashes: dict[str, Hash] = {}
    by_fingerprint: dict[str, str] = {}
    for name, device in sorted(devices.items()):
        flaw = name_flaw(name)
        if flaw:
            raise DamagedDevices(f"device {name[:NAME_MAX]!r}: {flaw}")
        if device.password is not None:
            hashes[name] = _parsed(name, device.password)
        for fingerprint in device.fingerprints:
            if by_fingerprint.setdefault(fingerprint, name) != name:
                raise DamagedDevices(f"devices {by_fingerprint[fingerprint]!r} and {name!r} have the same certificate")
    return Credentials(devices, hashes, by_fingerprint, tuple(one.cost for one in hashes.values()))


def name_flaw(name: str) -> str | None:
    """Why this can't be the name of a device; None where it can."""
    if not 0 < len(name) <= NAME_MAX or not name.isprintable() or name != name.strip():
        return f"a name is 1 to {NAME_MAX} printable characters"
    if set(name) & set("+#/?"):
        # The first three have a meaning in topics; what is behind ? AWS's SDKs add to user names themselves.
        return "a name has none of + # / ?"
    return None


def fingerprint_of(der: bytes) -> str:
    """SHA-256 of a certificate, as the file has it."""
    return sha256(der).hexdigest()


def _parsed(name: str, text: str) -> Hash:
    try:
        return passwords.parsed(text)
    except ValueError as why:
        raise DamagedDevices(f"device {name!r}: its password {why}") from None


# ---- reading and changing the file ----


def read(path: Path) -> Credentials:
    """None in it where there is no file. Raises: DamagedDevices, OSError."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return Credentials()
    if len(content) > BYTES_MAX:
        raise DamagedDevices(f"it is larger than {BYTES_MAX // 1024**2} MiB")
    try:
        return credentials_of(msgspec.json.decode(content, type=Content).devices)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        # Not chained: what could not be decoded may be a secret.
        raise DamagedDevices(str(why) if isinstance(why, msgspec.MsgspecError) else "it is no JSON") from None


def change(data_dir: Path, edit: Callable[[Mapping[str, Device]], Mapping[str, Device]]) -> None:
    """Put what `edit` makes of the devices in their place; one such change at a time.

    Raises:
        DamagedDevices: the file as it is, or as it would be, is not good; nothing has changed.
        OSError: it can't be read or written.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / FILE
    with _alone(data_dir):
        after = edit(read(path).devices)
        content = msgspec.json.format(msgspec.json.encode(Content(devices=dict(sorted(after.items())))), indent=1)
        credentials_of(after)
        if len(content) > BYTES_MAX:
            raise DamagedDevices(f"it would be larger than {BYTES_MAX // 1024**2} MiB")
        whole_file.write(path, content + b"\n", whole_file.PRIVATE)
        _give(path, data_dir)
        _note(data_dir)


def copy(source_dir: Path, target_dir: Path) -> None:
    """The file as it is, if there is one: a backup without it would open the door. Raises OSError."""
    source = source_dir / FILE
    if source.exists():
        whole_file.write(target_dir / FILE, source.read_bytes(), whole_file.PRIVATE)


def _at_start(data_dir: Path) -> Credentials:
    """As `read`; and a file that was there before must be. Raises: DamagedDevices, OSError."""
    if _is_noted(data_dir) and not (data_dir / FILE).exists():
        raise DamagedDevices("it is gone")
    found = read(data_dir / FILE)
    if found:
        _note(data_dir)
    return found


def _note(data_dir: Path) -> None:
    path = data_dir / LOCK
    if not _is_noted(data_dir):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(NOTE)


def _is_noted(data_dir: Path) -> bool:
    path = data_dir / LOCK
    return path.exists() and path.stat().st_size > 0


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    path = data_dir / LOCK
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _give(path, data_dir)
        yield
    finally:
        os.close(fd)


def _give(path: Path, data_dir: Path) -> None:
    """Root may add a device for a daemon that runs as somebody else, who must be able to read the file."""
    owner = data_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


# ---- following it ----


class DevicesFile:
    """The credentials in force. `revision` grows with each change of them.

    A file that is damaged, or goes away, while the daemon runs changes nothing: it is said once, and `is_damaged`.
    """

    def __init__(self, data_dir: Path) -> None:
        """Raises: DamagedDevices: it can't be used, so nobody can tell whom to let in."""
        self.revision = 0
        self.is_damaged = False
        self._path = data_dir / FILE
        self._print = self._look()
        self._complaint = ""
        try:
            self.current = _at_start(data_dir)
        except (DamagedDevices, OSError) as why:
            message = f"{self._path}: {why}; the devices' credentials are in it: mend it, or put a backup in its place"
            raise DamagedDevices(message) from None

    def __repr__(self) -> str:
        return f"<DevicesFile {len(self.current.devices)} devices>"

    async def run(self, clock: Clock) -> None:
        """Follow the file until cancelled."""
        while True:
            await sleep(clock, LOOK_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take over what has changed since the last time."""
        seen = self._look()
        if seen == self._print:
            return
        self._print = seen  # as it was before the reading: a change during that is found at the next look
        try:
            found = await asyncio.to_thread(read, self._path)
        except (DamagedDevices, OSError) as why:
            self._complain(str(why))
            return
        if self.current and not found:
            self._complain("it is gone, or empty; revoke the devices if none is to come in")
            return
        self._take(found)

    def _take(self, found: Credentials) -> None:
        if self.is_damaged:
            log.info("devices.file-mended", file=str(self._path))
        self.is_damaged, self._complaint = False, ""
        before, now = self.current.devices, found.devices
        if before == now:
            return
        self.current = found
        self.revision += 1
        changed = [name for name in now if now[name] != before.get(name)]
        revoked = [name for name in changed if now[name].revoked] + [name for name in before if name not in now]
        good = [name for name in changed if not now[name].revoked]
        log.info("devices.changed", good=_some(good), revoked=_some(revoked), devices=len(now))

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.error("devices.file-damaged", file=str(self._path), error=why, so="the old credentials stay in force")
        self.is_damaged, self._complaint = True, why

    def _look(self) -> object:
        try:
            seen = self._path.stat()
        except OSError as why:
            return why.errno
        # With the time of the inode: who may read the file is a reason to read it again.
        return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _some(names: list[str]) -> list[str]:
    """For a line of the log: not all of a fleet."""
    more = len(names) - NAMES_SHOWN
    return [*names[:NAMES_SHOWN], f"and {more} more"] if more > 0 else names
