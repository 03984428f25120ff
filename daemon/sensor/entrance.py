"""From a client's greeting to the broker: the doorman is asked, the broker reached, and the two sides joined."""

import asyncio
from collections.abc import Callable
from typing import Final

from daemon.clock import NS, Clock, sleep
from daemon.sensor import answers
from daemon.sensor.books import Books
from daemon.sensor.connect import Connect
from daemon.sensor.counts import Counts
from daemon.sensor.door import BAD_LOGIN, NOT_AUTHORIZED, Anyone, Doorman, Hello, Pass, Refusal, still_good
from daemon.sensor.link import BrokerSide, Link
from daemon.sensor.upstream import Upstream

PATIENCE_S: Final = 10.0  # until the broker is there
RETRY_S: Final = 0.1


class Entrance:
    """`opens` is set while the broker is ready for clients; `most` may be on their way in at a time."""

    def __init__(
        self, upstream: Upstream, doorman: Doorman, books: Books, counts: Counts, clock: Clock, *,
        opens: asyncio.Event, most: int, warn: Callable[..., None],
    ) -> None:  # fmt: skip
        self._upstream, self._doorman, self._books, self._counts, self._clock = upstream, doorman, books, counts, clock
        self._opens, self._most, self._warn = opens, most, warn
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def let_in(self, link: Link) -> None:
        """Who has greeted: let it through to the broker, or close it, in a while."""
        if self._counts.waiting >= self._most or self._is_closed:
            self._counts.crowded += 1
            link.close()
            return
        self._counts.waiting += 1
        task = asyncio.get_running_loop().create_task(self._attempt(link))
        self._tasks.add(task)
        task.add_done_callback(self._attempted)

    async def stop(self) -> None:
        """Nobody comes in any more."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _attempted(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._counts.waiting -= 1

    async def _attempt(self, link: Link) -> None:
        try:
            await self._introduce(link)
        except TimeoutError:
            self._counts.unreachable += 1
            link.close()
        except OSError as problem:
            self._counts.unreachable += 1
            self._warn("sensor.broker_unreachable", why=str(problem))
            link.close()
        except Exception as problem:  # noqa: BLE001  # isolation boundary: what one client brings about is not the sensor's end
            self._warn("sensor.admission_failed", why=repr(problem))
            link.close()

    async def _introduce(self, link: Link) -> None:
        connect = link.connect
        assert connect is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._opens.wait()
        hello = Hello(connect.client_id, connect.username, connect.password, link.certificate, link.ip)
        link.hello = hello
        given = await self._admitted(link, connect, hello)
        if isinstance(given, Refusal):
            self._counts.refused += 1
            link.turn_away(answers.connack_refused(given.code, connect.level))
            return
        broker = await self._reach(link)
        while not self._opens.is_set() and not link.has_ended:  # it has died since: this may be the next one, not ready
            broker.set_protocol(asyncio.Protocol())  # its end is not the link's
            broker.abort()
            async with asyncio.timeout(PATIENCE_S):
                await self._opens.wait()
            broker = await self._reach(link)
        self._join(link, broker, connect, hello, given)

    async def _admitted(self, link: Link, connect: Connect, hello: Hello) -> Pass | Refusal:
        """What the doorman says, its refusals noted."""
        if not self._upstream.speaks(connect.level):
            return Anyone("")  # the broker says so itself, and is not asked anything else
        given = await self._doorman.admit(hello)
        if isinstance(given, Refusal):
            if given.code in (BAD_LOGIN, NOT_AUTHORIZED):
                self._books.denied(link)
            return given
        if connect.will_topic is None or not given.judges or given.may_publish(connect.will_topic):
            return given
        self._books.denied(link, connect.will_topic)
        return Refusal("its last will is for a topic that is not its own", NOT_AUTHORIZED)

    def _join(self, link: Link, broker: asyncio.Transport, connect: Connect, hello: Hello, given: Pass) -> None:
        if link.has_ended:
            broker.abort()
        elif not still_good(self._doorman, hello, given):  # it was revoked while we reached for the broker
            self._counts.revoked += 1
            broker.abort()
            link.turn_away(answers.connack_refused(NOT_AUTHORIZED, connect.level))
        else:
            link.pass_through(broker, self._upstream.greeting(connect), hello, given)

    async def _reach(self, link: Link) -> asyncio.Transport:
        """A connection to the broker. Raises OSError, TimeoutError."""
        deadline_ns = self._clock.monotonic_ns() + int(self._upstream.patience_s * NS)
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await self._upstream.connected(lambda: BrokerSide(link), self._counts.connections)
            except OSError:
                if self._clock.monotonic_ns() >= deadline_ns or link.has_ended:
                    raise
                await sleep(self._clock, RETRY_S)
