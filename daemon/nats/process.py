"""A process known by its pid and its start time, whoever started it: found again, watched, signalled, ended.

A pid alone may by now be someone else's; with its start time and the machine's boot it is one process only. The
pidfd holds on to that process, so a signal cannot hit a successor of the number. Linux only.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process: as the kernel tells it, `start` in clock ticks since boot."""

    pid: int
    start: int
    boot: str


class Process:
    """A living process, until `close`. Its end is seen through the pidfd, for children and for others alike."""

    def __init__(self, identity: Identity, pidfd: int, child: "subprocess.Popen[bytes] | None") -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._child = child

    @classmethod
    def spawn(cls, command: Sequence[str], stderr: Path, environment: Mapping[str, str] | None = None) -> Self:
        """Start `command` in a session of its own: Ctrl-C at the terminal is for the daemon alone. Raises OSError.

        `environment` is added to ours; what ours says already stays.
        """
        with stderr.open("wb") as sink:
            child = subprocess.Popen(  # noqa: S603 - the command is our own binary and file
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
                env={**(environment or {}), **os.environ},
            )  # fmt: skip
        return cls(_identity_of_child(child.pid), os.pidfd_open(child.pid), child)

    @classmethod
    def find(cls, identity: Identity) -> Self | None:
        """The process of that identity if it still runs."""
        try:
            pidfd = os.pidfd_open(identity.pid)
        except (OSError, OverflowError, ValueError):
            return None
        # Looked at after the pidfd was opened: from here on the number can't pass to another process unseen.
        if identify(identity.pid) == identity:
            return cls(identity, pidfd, None)
        os.close(pidfd)
        return None

    @classmethod
    def strays(cls, arguments: Sequence[str]) -> list[Self]:
        """Processes with exactly these arguments, whoever started them: a path of ours among them makes them ours."""
        wanted = "".join(f"{one}\0" for one in arguments).encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        found = [identify(pid) for pid in pids if _said(pid) == wanted]
        processes = [cls.find(identity) for identity in found if identity is not None]
        return [process for process in processes if process is not None]

    def is_alive(self) -> bool:
        return identify(self.identity.pid) == self.identity

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one to a process that has ended is dropped."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    async def ended(self) -> int | None:
        """Wait for the end. The exit code, negative for a signal; None for a process that isn't our child."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        # A copy per waiter: a loop watches a descriptor for one reader only.
        fd = os.dup(self._pidfd)
        loop.add_reader(fd, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return None if self._child is None else self._child.wait()

    async def end(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL after `patience_s`; returns when it is gone."""
        self.send(signal.SIGTERM)
        try:
            # Not `wait_for`: before Python 3.12 it forgets a cancellation that comes as what it waits for is done.
            async with asyncio.timeout(patience_s):
                await self.ended()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ended()

    def close(self) -> None:
        os.close(self._pidfd)


def identify(pid: int) -> Identity | None:
    """The identity of a running process; None if there is none, or only its remains (a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in brackets, and may hold spaces and brackets itself.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return Identity(pid, int(fields[19]), _boot())


def _identity_of_child(pid: int) -> Identity:
    """A child's identity is readable until it is waited for, even when it has ended already."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return Identity(pid, int(stat[stat.rindex(b")") + 2 :].split()[19]), _boot())


def _said(pid: int) -> bytes:
    """The arguments of a process after its program, each ended by NUL; b"" where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[2]
    except OSError:
        return b""


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
