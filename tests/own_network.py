"""A network with nothing in it but loopback, for this thread and the processes it starts: what listens there on every
address is heard by nobody else, and port 443 is free.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

CLONE_NEWNET: Final = 0x40000000
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
INTERFACE: Final = struct.Struct("16sh14x")  # struct ifreq, as far as flags go

_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """Raises OSError where namespaces can't be made (root may). Sockets that are open already stay where they are."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _checked("unshare", _libc.unshare(CLONE_NEWNET))
        try:
            _raise_loopback()
            yield
        finally:
            _checked("setns", _libc.setns(before, CLONE_NEWNET))
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket() as any_socket:
        read = fcntl.ioctl(any_socket, SIOCGIFFLAGS, INTERFACE.pack(b"lo", 0))
        name, flags = INTERFACE.unpack(read)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, INTERFACE.pack(name, flags | IFF_UP))


def _checked(what: str, answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
