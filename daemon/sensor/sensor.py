"""One sensor: listens, asks the doorman, connects to the broker, bounds everybody, and books what it hears.

A slow or hostile client costs only itself: connections, those that have not greeted, those that wait to be let through,
bytes held and topics summed are all bounded, and what a bound turns away is counted.
"""

import asyncio
import errno
import itertools
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Any, Final, Protocol

import structlog

from config.address import Address
from daemon.brokers._tally import KEYS_MAX
from daemon.clock import NS, Clock, sleep
from daemon.logs import RateLimited
from daemon.sensor import answers
from daemon.sensor.books import Books
from daemon.sensor.connect import Connect
from daemon.sensor.counts import Counts
from daemon.sensor.denied import OwnRefusals, nothing_refused
from daemon.sensor.door import Anyone, Doorman, Hello, Pass, Refusal
from daemon.sensor.ledger import Log
from daemon.sensor.link import BrokerSide, Link
from daemon.sensor.stream import Room
from daemon.sensor.tls import last_words

CONNECTIONS_MAX: Final = 100_000
UNGREETED_MAX: Final = 10_000
WAITING_MAX: Final = 20_000
GREETING_S: Final = 10.0  # until the CONNECT is there, TLS included
PATIENCE_S: Final = 10.0  # until the broker is there
RETRY_S: Final = 0.1
LEAVING_S: Final = 10.0  # for what was written last to be taken
FLUSH_S: Final = 1.0
BACKLOG: Final = 1024
ACCEPTED_AT_ONCE: Final = 128
FILES_KEPT: Final = 256  # descriptors for all else
SLICE: Final = 1000  # connections looked at before others have their turn
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
PORTS: Final = 20_000  # connections from one address to one listener: it has 28 000 ports to offer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The broker behind. `login`: takes the place of what clients say, where they must not get past the sensor."""

    address: Callable[[], Address]
    tls: ssl.SSLContext | None = None
    login: tuple[bytes, bytes] | None = None
    patience_s: float = 0.0  # for one that is not there


class Gate(Protocol):
    """Whether the broker is ready for clients; waited for by one task."""

    async def opened(self) -> None: ...
    async def shut(self) -> None: ...


class AlwaysOpen:
    """A broker that is not ours: whether it is there shows when somebody wants to go there."""

    async def opened(self) -> None:
        return

    async def shut(self) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Bounds:
    connections: int = CONNECTIONS_MAX
    ungreeted: int = UNGREETED_MAX
    waiting: int = WAITING_MAX
    keys: int = KEYS_MAX


class Sensor:
    """Call `listen`, then run `run` as a task; cancel that, and `stop`."""

    def __init__(
        self, name: str, upstream: Upstream, doorman: Doorman, writer: Log, clock: Clock, *,
        tls: ssl.SSLContext | None = None, gate: Gate | None = None, refuses: OwnRefusals = nothing_refused,
        bounds: Bounds | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.counts = Counts()
        self.room = Room()
        self.refuses = refuses
        self._upstream, self._doorman, self._clock, self._tls = upstream, doorman, clock, tls
        self._gate: Gate = gate or AlwaysOpen()
        self._bounds = bounds or Bounds()
        self.books = Books(name, writer, clock, self.counts, self._bounds.keys)
        self._socket: socket.socket | None = None
        self._accepts = False
        self._is_open = asyncio.Event()
        self._run, self._number = token_hex(4), 0
        self._links: set[Link] = set()
        self._handshakes: dict[Link, asyncio.Task[None]] = {}
        self._ungreeted: dict[Link, None] = {}  # oldest first; TLS handshakes included
        self._leaving: dict[Link, int] = {}  # until when
        self._revision = doorman.revision
        self._tasks: set[asyncio.Task[None]] = set()
        self._warnings = RateLimited(per_s=1)
        self._stopping = False

    # Listening

    async def listen(self, address: Address) -> Address:
        """Bind; clients that come wait until `run` lets them through. Raises OSError, with the address."""
        _raise_limit()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        loop = asyncio.get_running_loop()
        info = await loop.getaddrinfo(address.host, address.port, family=family, type=socket.SOCK_STREAM)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(info[0][4])
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"{address}: bind: {_words(error)}") from None
        listener.setblocking(False)
        self._socket = listener
        self._accept_again()
        return Address(address.host, listener.getsockname()[1])

    def _accept_again(self) -> None:
        if self._socket is not None and not self._accepts:
            self._accepts = True
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _accept_no_more(self) -> None:
        if self._socket is not None and self._accepts:
            self._accepts = False
            asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, _peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: the sweep tries again
                self._warn("sensor.accept_failed", why=str(error))
                self._accept_no_more()
                return
            self._take_in(client)

    def _take_in(self, client: socket.socket) -> None:
        self.counts.accepted += 1
        if self.counts.connections + len(self._handshakes) >= min(self._bounds.connections, _links_max()):
            self.counts.crowded += 1
            client.close()
            return
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            client.setsockopt(socket.IPPROTO_TCP, option, value)
        self._number += 1
        link = Link(self, f"{self._run}-{self._number:x}", self._clock.monotonic_ns())
        self._ungreeted[link] = None
        self._handshakes[link] = self._spawn(self._shake_hands(link, client))
        self._bound_ungreeted()

    async def _shake_hands(self, link: Link, client: socket.socket) -> None:
        """From a socket to a link that can be talked to, through TLS where there is any."""
        timeout = {"ssl_handshake_timeout": GREETING_S} if self._tls else {}
        kept = None
        try:
            kept = client.dup() if self._tls else None  # the loop closes its own when the handshake fails
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: link, client, ssl=self._tls, **timeout)
        except OSError as problem:
            self.counts.handshakes_failed += 1
            self._drop_ungreeted(link)
            _say(kept, last_words(problem))
        except BaseException:
            self._drop_ungreeted(link)
            raise
        finally:
            self._handshakes.pop(link, None)
            if link not in self._links:
                client.close()
            if kept is not None:
                kept.close()

    # What links tell (daemon.sensor.link.Around)

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def arrived(self, link: Link) -> None:
        self._links.add(link)
        self.counts.connections = len(self._links)
        if self._stopping:
            link.abort()

    def _bound_ungreeted(self) -> None:
        """The oldest goes: who means it greets at once."""
        while len(self._ungreeted) > self._bounds.ungreeted:
            self.counts.crowded += 1
            self._end_ungreeted(next(iter(self._ungreeted)))
        self.counts.ungreeted = len(self._ungreeted)

    def _end_ungreeted(self, link: Link) -> None:
        self._drop_ungreeted(link)
        if link in self._handshakes:
            self._handshakes[link].cancel()
        link.abort()

    def _drop_ungreeted(self, link: Link) -> None:
        self._ungreeted.pop(link, None)
        self.counts.ungreeted = len(self._ungreeted)

    def greeted(self, link: Link) -> None:
        self._drop_ungreeted(link)
        if self.counts.waiting >= self._bounds.waiting or self._stopping:
            self.counts.crowded += 1
            link.close()
            return
        self.counts.waiting += 1
        self._spawn(self._let_in(link))

    def ended(self, link: Link, *, by_broker: bool) -> None:
        self._links.discard(link)
        self.counts.connections = len(self._links)
        self._drop_ungreeted(link)
        if link.has_unsent:
            self._leaving[link] = self._clock.monotonic_ns() + int(LEAVING_S * NS)
        # What ends with the daemon or its broker is no doing of the device: the next start writes that all have ended.
        by_itself = not self._stopping and self._is_open.is_set()
        if link.is_in:
            self.counts.disconnected += 1
            self.counts.left += link.said_bye
            if by_itself:
                self.books.ended(link, by_broker=by_broker)
        elif link.has_greeted and not self._stopping:
            self.books.failed(link)

    # Letting in

    async def _let_in(self, link: Link) -> None:
        try:
            await self._introduce(link)
        except TimeoutError:
            self.counts.unreachable += 1
            link.close()
        except OSError as problem:
            self.counts.unreachable += 1
            self._warn("sensor.broker_unreachable", why=str(problem))
            link.close()
        except Exception as problem:  # noqa: BLE001  # isolation boundary: what one client brings about is not the sensor's end
            self._warn("sensor.admission_failed", why=repr(problem))
            link.close()
        finally:
            self.counts.waiting -= 1

    async def _introduce(self, link: Link) -> None:
        connect = link.connect
        assert connect is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._is_open.wait()
        hello = Hello(connect.client_id, connect.username, connect.password, link.certificate, link.ip)
        link.hello = hello
        speaks_otherwise = self._upstream.login is not None and connect.level == 5
        if speaks_otherwise:
            # nats-server refuses MQTT 5 before it asks who it is, in its own words.
            given: Pass | Refusal = Anyone("")
        else:
            given = await self._doorman.admit(hello)
        if not isinstance(given, Refusal) and not _may_leave_will(connect, given):
            self.books.denied(link, connect.will_topic or "")
            given = Refusal("its last will is for a topic that is not its own", 5)
        elif isinstance(given, Refusal) and given.code in {4, 5}:
            self.books.denied(link)
        if isinstance(given, Refusal):
            self.counts.refused += 1
            link.turn_away(answers.connack_refused(given.code, connect.level))
            return
        broker = await self._reach(link)
        if link.has_ended or not self._is_open.is_set():
            broker.abort()
            link.close()
            return
        is_revoked = not speaks_otherwise and not self._doorman.still_good(
            hello, given
        )  # while we reached for the broker
        if is_revoked:
            self.counts.revoked += 1
            broker.abort()
            link.turn_away(answers.connack_refused(5, connect.level))
            return
        link.pass_through(broker, self._greeting(connect), hello, given)

    def _greeting(self, connect: Connect) -> bytes:
        if self._upstream.login is None or connect.level == 5:
            return connect.whole
        return connect.as_user(*self._upstream.login)

    async def _reach(self, link: Link) -> asyncio.Transport:
        """A connection to the broker. Raises OSError, TimeoutError."""
        deadline_ns = self._clock.monotonic_ns() + int(self._upstream.patience_s * NS)
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await self._connect(link, self._upstream.address())
            except OSError:
                if self._clock.monotonic_ns() >= deadline_ns or link.has_ended:
                    raise
                await sleep(self._clock, RETRY_S)

    async def _connect(self, link: Link, to: Address) -> asyncio.Transport:
        name = to.host if self._upstream.tls else None
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: BrokerSide(link), to.host, to.port, ssl=self._upstream.tls, server_hostname=name,
            local_addr=self._from(to),
        )  # fmt: skip
        return transport

    def _from(self, to: Address) -> tuple[str, int] | None:
        """Our own end: with very many clients one loopback address has not ports enough."""
        place = len(self._links) // PORTS
        return (f"127.0.{place}.1", 0) if place and to.host.startswith("127.") else None

    # Looking after

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mind_the_gate(), name=f"sensor {self.name} gate")
            tasks.create_task(self.books.run(), name=f"sensor {self.name} books")
            tasks.create_task(self._sweep(), name=f"sensor {self.name} sweep")

    async def _mind_the_gate(self) -> None:
        while True:
            await self._gate.opened()
            await self.books.cut()
            self._is_open.set()
            await self._gate.shut()
            self._is_open.clear()
            self.books.forget_doubtful()
            for link in [link for link in self._links if link.is_through]:
                link.abort()

    async def _sweep(self) -> None:
        while True:
            await sleep(self._clock, FLUSH_S)
            self.books.hurry()
            now = self._clock.monotonic_ns()
            self._end_silent(now)
            self._see_off(now)
            if self.books.is_away:  # better that its events are incomplete than that the broker is
                self.books.let_the_crowd_go()
            if self._revision != self._doorman.revision:
                await self._recheck()
            self._accept_again()

    def _end_silent(self, now: int) -> None:
        late = now - int(GREETING_S * NS)
        for link in list(itertools.takewhile(lambda one: one.since_ns < late, self._ungreeted)):
            self.counts.silent += 1
            self._end_ungreeted(link)

    def _see_off(self, now: int) -> None:
        """Those that are gone, and those that don't take what was said to them last."""
        for link, until in list(self._leaving.items()):
            if now >= until or not link.has_unsent:
                del self._leaving[link]
                link.abort()

    async def _recheck(self) -> None:
        self._revision = self._doorman.revision
        for at, link in enumerate(list(self._links)):
            if not link.has_ended and not link.recheck(self._doorman):
                self.counts.revoked += 1
                link.close()
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def status(self) -> Mapping[str, Any]:
        """For `/-/status`: JSON, no secrets."""
        return {"open": self._is_open.is_set(), "log": "away" if self.books.is_away else "ok", **asdict(self.counts)}

    # The end

    async def stop(self) -> None:
        """End all connections, and book what was heard. `run` must have been cancelled before."""
        self._stopping = True
        self._accept_no_more()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = list(self._links)
        for link in links:
            link.close()
        await self.books.close()
        for link in [*links, *self._leaving]:
            link.abort()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _warn(self, event: str, **fields: Any) -> None:
        self._warnings.warning(log, event, self._clock.monotonic_ns(), sensor=self.name, **fields)


def _say(client: socket.socket | None, words: bytes) -> None:
    """As far as it is taken at once."""
    if client is not None and words:
        with suppress(OSError):
            client.send(words)


def _may_leave_will(connect: Connect, given: Pass) -> bool:
    return connect.will_topic is None or not given.judges or given.may_publish(connect.will_topic)


def _raise_limit() -> None:
    """Each client takes two descriptors; what shells give is 1024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _links_max() -> int:
    """As many as there are descriptors for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(1, (soft - FILES_KEPT) // 2)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower() if error.errno == errno.EADDRINUSE else error.strerror or str(error)
