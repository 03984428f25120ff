"""The socket that clients come to: bound, and accepted from as long as there are descriptors for them."""

import asyncio
import errno
import resource
import socket
from collections.abc import Callable
from typing import Final

from config.address import Address

BACKLOG: Final = 1024
ACCEPTED_AT_ONCE: Final = 128
FILES_KEPT: Final = 256  # descriptors for all else
LINKS_MAX: Final = 100_000
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Listener:
    """Gives each client to `take`. `failed` hears why no more can be accepted, until `go_on`."""

    def __init__(self, take: Callable[[socket.socket], None], failed: Callable[[OSError], None]) -> None:
        self._take, self._failed = take, failed
        self._socket: socket.socket | None = None
        self._accepts = False

    async def listen(self, address: Address) -> Address:
        """Bind, and begin to accept. Raises OSError, with the address."""
        _raise_limit()
        self._socket = await _bound(address)
        self.go_on()
        return Address(address.host, self._socket.getsockname()[1])

    def go_on(self) -> None:
        """Accept again, if that had ended. Again is harmless."""
        if self._socket is not None and not self._accepts:
            self._accepts = True
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        self._accept_no_more()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, _peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: trying on at once would only keep us busy
                self._failed(error)
                self._accept_no_more()
                return
            self._take(client)

    def _accept_no_more(self) -> None:
        if self._socket is not None and self._accepts:
            self._accepts = False
            asyncio.get_running_loop().remove_reader(self._socket.fileno())


def keep_alive(client: socket.socket) -> None:
    """So that the end of a client that is cut off from us shows."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        client.setsockopt(socket.IPPROTO_TCP, option, value)


def links_max() -> int:
    """As many clients as there are descriptors for; each takes two."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LINKS_MAX if soft == resource.RLIM_INFINITY else max(1, (soft - FILES_KEPT) // 2)


async def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    loop = asyncio.get_running_loop()
    info = await loop.getaddrinfo(address.host, address.port, family=family, type=socket.SOCK_STREAM)
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(info[0][4])
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"{address}: bind: {_words(error)}") from None
    made.setblocking(False)
    return made


def _raise_limit() -> None:
    """What shells give is 1024 descriptors."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower() if error.errno == errno.EADDRINUSE else error.strerror or str(error)
