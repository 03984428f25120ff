"""Those who have come and not greeted yet, TLS handshakes included: not too many, and none of them for long."""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from daemon.clock import NS, Clock
from daemon.sensor.counts import Counts
from daemon.sensor.link import Link
from daemon.sensor.tls import last_words

GREETING_S: Final = 10.0  # until the CONNECT is there, TLS included


class Newcomers:
    """`arrived`: the links that can be talked to. Beyond `most` the oldest goes: who means it greets at once."""

    def __init__(
        self, tls: ssl.SSLContext | None, most: int, arrived: Collection[Link], counts: Counts, clock: Clock
    ) -> None:
        self._tls, self._most, self._arrived, self._counts, self._clock = tls, most, arrived, counts, clock
        self._handshakes: dict[Link, asyncio.Task[None]] = {}
        self._coming: set[Link] = set()  # of those, who are no connection yet
        self._since_ns: dict[Link, int] = {}  # oldest first

    @property
    def handshakes(self) -> int:
        """Those that have a socket, and are no connection yet."""
        return len(self._coming)

    def come(self, link: Link, client: socket.socket) -> None:
        self._since_ns[link] = self._clock.monotonic_ns()
        self._coming.add(link)
        task = self._handshakes[link] = asyncio.get_running_loop().create_task(self._shake_hands(link, client))
        task.add_done_callback(lambda _: self._shaken(link, client))
        while len(self._since_ns) > self._most:
            self._counts.crowded += 1
            self._end(next(iter(self._since_ns)))
        self._counts.ungreeted = len(self._since_ns)

    def arrived(self, link: Link) -> None:
        """It is a connection now, though its handshake's task may not have heard of it."""
        self._coming.discard(link)

    def forget(self, link: Link) -> None:
        """It has greeted, or is gone. Again is harmless."""
        self._since_ns.pop(link, None)
        self._counts.ungreeted = len(self._since_ns)

    def end_silent(self, now_ns: int) -> None:
        late = now_ns - int(GREETING_S * NS)
        for link, _ in list(itertools.takewhile(lambda one: one[1] < late, self._since_ns.items())):
            self._counts.silent += 1
            self._end(link)

    async def stop(self) -> None:
        """No handshake goes on."""
        tasks = list(self._handshakes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, link: Link) -> None:
        self.forget(link)
        if link in self._handshakes:
            self._handshakes[link].cancel()
        link.abort()

    async def _shake_hands(self, link: Link, client: socket.socket) -> None:
        """From a socket to a link that can be talked to, through TLS where there is any."""
        timeout = {"ssl_handshake_timeout": GREETING_S} if self._tls else {}
        kept = None
        try:
            kept = client.dup() if self._tls else None  # the loop closes its own when the handshake fails
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: link, client, ssl=self._tls, **timeout)
        except OSError as problem:
            self._counts.handshakes_failed += 1
            self.forget(link)
            _say(kept, last_words(problem))
        except BaseException:
            self.forget(link)
            raise
        finally:
            if kept is not None:
                kept.close()

    def _shaken(self, link: Link, client: socket.socket) -> None:
        """Also when it was cancelled before it began."""
        del self._handshakes[link]
        self._coming.discard(link)
        if link not in self._arrived:
            client.close()


def _say(client: socket.socket | None, words: bytes) -> None:
    """As far as it is taken at once."""
    if client is not None and words:
        with suppress(OSError):
            client.send(words)
