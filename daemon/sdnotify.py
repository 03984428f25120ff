"""Tells systemd how the service fares (sd_notify): ready, reloading, stopping, a line of status, still alive.

Without NOTIFY_SOCKET everything here does nothing, so the daemon calls it unconditionally.
"""

import os
import socket
from collections.abc import Mapping


class SdNotify:
    """A datagram socket to the service manager. Never blocks, never raises: a deaf manager must not stop us."""

    def __init__(self, address: str | None) -> None:
        """`address`: the value of NOTIFY_SOCKET: a path, or `@name` for the abstract namespace; None: do nothing."""
        self.lost = 0  # notices that could not be handed over
        self._address = _socket_address(address)
        self._socket = _datagram_socket() if self._address is not None else None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "SdNotify":
        return cls(environ.get("NOTIFY_SOCKET"))

    def ready(self, status: str = "") -> None:
        """Up and serving: at the end of the start, and again at the end of every reload."""
        self._send("READY=1", status)

    def reloading(self, monotonic_ns: int, status: str = "") -> None:
        """A reload begins (`Type=notify-reload` wants CLOCK_MONOTONIC with it); `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns // 1000}", status)

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        self._send("", text)

    def watchdog(self) -> None:
        self._send("WATCHDOG=1", "")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str, status: str) -> None:
        if self._socket is None or self._address is None:
            return
        # One line is one assignment: a line break inside the text would be read as another.
        lines = [state] if state else []
        lines += [f"STATUS={' '.join(status.split())}"] if status else []
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            self.lost += 1


def watchdog_interval_s(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often `watchdog` is to be called: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises.

    None: systemd does not ask for it, or asks another process (WATCHDOG_PID).
    """
    wanted = environ.get("WATCHDOG_PID")
    if wanted is not None and wanted != str(os.getpid() if pid is None else pid):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2_000_000 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None


def _socket_address(address: str | None) -> str | None:
    if not address or address[0] not in "/@":
        return None  # vsock and the like: not what a service on this machine is given
    return "\0" + address[1:] if address[0] == "@" else address


def _datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.setblocking(False)
    return made
