"""What a NATS cluster's system account tells: who connects by MQTT, who leaves, who is refused. Nothing of messages.

    $SYS.ACCOUNT.ACCOUNT.CONNECT           connected
    $SYS.ACCOUNT.ACCOUNT.DISCONNECT        disconnected
    $SYS.SERVER.SERVER.CLIENT.AUTH.ERR     connect-failed

Seen with nats-server 2.12 to 2.15: `client` has `client_type` "mqtt" and the MQTT client id as `client_id`. A refused
login is told of twice, as AUTH.ERR and as a DISCONNECT with the same reason of a connection that never was: only the
first counts. A server that drops a client because its rights were changed does the same for one that was connected:
then only the second counts. So connections are remembered, SESSIONS_MAX of them.

These events are sent once, to who is there: what happens while we are not connected is never heard.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from actors.events import Event
from config.model import Nats
from config.problem import ConfigError
from config.secret import read_secret
from daemon import cancellation
from daemon.brokers._base import Listener
from daemon.brokers._outlet import Outlet
from daemon.brokers._tally import Tally, payloads
from daemon.brokers._told import UNREADABLE, client_id_of, ip_of, past_ns, text_of
from daemon.clock import Clock, sleep
from daemon.log.streams import instant_ns

NAME: Final = "cluster"
CONNECTIONS: Final = "$SYS.ACCOUNT.*.*"  # one subscription, so that the two kinds keep their order
REFUSALS: Final = "$SYS.SERVER.*.CLIENT.AUTH.ERR"
REFUSED: Final = "Authentication Failure"
SESSIONS_MAX: Final = 100_000
PENDING_MAX: Final = 65_536  # events that wait for us; nats-py drops beyond
PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
FLUSH_S: Final = 1.0
AGAIN_S: Final = 2.0
LAST_WORD_S: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SystemTotals:
    """Totals since the start; daemon/telemetry.py reads them (SOURCE_TOTALS has the meanings)."""

    heard: int = 0
    unreadable: int = 0
    forgotten: int = 0
    shed: int = 0
    reconnects: int = 0
    stored: int = 0
    repeated: int = 0
    refused: int = 0
    connected: bool = False
    last_heard_ns: int = 0  # wall time, 0: none yet


class _Client(msgspec.Struct, frozen=True):
    """Any, since a strange value in one member says nothing against the others."""

    client_type: Any = None
    client_id: Any = None
    host: Any = None
    user: Any = None
    id: Any = None


class _Server(msgspec.Struct, frozen=True):
    id: Any = None


class _Told(msgspec.Struct, frozen=True):
    client: _Client
    server: _Server = _Server()
    timestamp: Any = None
    reason: Any = None


class Advisories:
    """Reads single messages of the system account; remembers who is connected."""

    def __init__(self, totals: SystemTotals) -> None:
        self._totals = totals
        self._sessions: dict[str, None] = {}  # the oldest first

    def hear(self, subject: str, payload: bytes, received_ns: int, tally: Tally) -> None:
        """Add what a message says to the tally. Never raises."""
        word = subject.rpartition(".")[2]
        if word not in ("CONNECT", "DISCONNECT", "ERR"):
            return
        self._totals.heard += 1
        try:
            told = _decoder.decode(payload)
        except UNREADABLE:
            self._totals.unreadable += 1
            return
        if told.client.client_type != "mqtt":
            return
        client_id = client_id_of(told.client.client_id)
        if client_id:
            self._count(word, client_id, told, received_ns, tally)
        elif word != "ERR":  # one that is refused before it said who it is has none
            self._totals.unreadable += 1

    def _count(self, word: str, client_id: str, told: _Told, received_ns: int, tally: Tally) -> None:
        session = text_of(f"{told.server.id}:{told.client.id}")
        time_ns, ip = _time_ns(told.timestamp, received_ns), ip_of(told.client.host)
        user = text_of(told.client.user)
        match word:
            case "CONNECT":
                self._remember(session)
                tally.put(
                    Event(event="connected", client_id=client_id, time=time_ns, ip=ip, user=user, session=session)
                )
            case "DISCONNECT" if self._forget(session) or told.reason != REFUSED:
                tally.put(Event(event="disconnected", client_id=client_id, time=time_ns, user=user, session=session))
            case "ERR" if session not in self._sessions:
                tally.add("connect-failed", client_id, time_ns, ip=ip, user=user)

    def _remember(self, session: str) -> None:
        self._sessions[session] = None
        if len(self._sessions) > SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
            self._totals.forgotten += 1

    def _forget(self, session: str) -> bool:
        """Whether it was known."""
        known = session in self._sessions
        self._sessions.pop(session, None)
        return known


class NatsSystem:
    """`run` until cancelled: a connection of its own, made again whenever it is lost."""

    def __init__(self, options: Nats, outlet: Outlet, listener: Listener, clock: Clock, totals: SystemTotals) -> None:
        self.name = NAME
        self.totals = totals
        self._options, self._outlet, self._listener, self._clock = options, outlet, listener, clock
        self._advisories = Advisories(totals)
        self._tally = Tally()
        self._leaving: tuple[list[bytes], str] | None = None  # handed over, and perhaps not stored yet
        self._why = "not connected yet"
        self._away_since_ns: int | None = None

    async def run(self) -> None:
        """Never returns and never raises but CancelledError; then what was heard is stored, if the log answers soon."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(), name="cluster events")
                tasks.create_task(self._flush_each_second(), name="cluster events flush")
        finally:
            await self._last_words()

    def status(self) -> Mapping[str, Any]:
        """For `/-/status`."""
        return {"connected": self.totals.connected, "why": self._why}

    async def _listen(self) -> None:
        while True:
            try:
                why = await self._connection()
            except (NatsError, ConfigError, OSError, TimeoutError, ValueError) as problem:
                why = str(problem) or repr(problem)
            except Exception as problem:  # isolation boundary: this source's bug is not the daemon's end
                log.exception("source.failed", source=NAME)
                why = f"internal error: {problem!r}"
            cancellation.heed()
            self._tell_down(why)
            await sleep(self._clock, AGAIN_S)

    async def _connection(self) -> str:
        """From the attempt to the end of it; why it ended."""
        gone = asyncio.Event()

        async def closed() -> None:
            gone.set()

        assert self._options.system_credentials_file is not None
        secret = await asyncio.to_thread(read_secret, self._options.system_credentials_file)
        user, _, password = secret.reveal().partition(":")
        nc = Client()
        try:
            await nc.connect(
                [url.strip() for url in self._options.url.split(",")], user=user, password=password,
                name="detectd events", allow_reconnect=False, connect_timeout=5, ping_interval=20, closed_cb=closed,
                error_cb=self._trouble,
            )  # fmt: skip
            await self._subscribe(nc)
            await self._tell_up()
            await gone.wait()
        finally:
            self.totals.connected = False
            await nc.close()  # what a failed attempt opened, too
        return "the connection was lost"

    async def _subscribe(self, nc: Client) -> None:
        for subject in (CONNECTIONS, REFUSALS):
            await nc.subscribe(
                subject, cb=self._heard, pending_msgs_limit=PENDING_MAX, pending_bytes_limit=PENDING_BYTES_MAX
            )
        await nc.flush()

    async def _heard(self, message: Msg) -> None:
        if self._tally.is_full:  # the log does not take them, and the server does not wait
            self.totals.shed += 1
            return
        now_ns = self._clock.now_ns()
        self._advisories.hear(message.subject, message.data, now_ns, self._tally)
        self.totals.last_heard_ns = now_ns

    async def _trouble(self, problem: Exception) -> None:
        if isinstance(problem, SlowConsumerError):
            self.totals.shed += 1
            return
        log.debug("source.trouble", source=NAME, why=str(problem))

    async def _flush_each_second(self) -> None:
        while True:
            await sleep(self._clock, FLUSH_S)
            await self._flush()

    async def _last_words(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self._flush()  # what a cancelled flush did not finish: the log knows what it has
                await self._flush()

    async def _flush(self) -> None:
        if self._leaving is None and len(self._tally):
            self._leaving = list(payloads(self._tally.taken())), token_hex(8)
        if self._leaving is not None:
            await self._outlet.hand_over(*self._leaving)
            self._leaving = None

    async def _tell_up(self) -> None:
        if self._away_since_ns is not None:
            self.totals.reconnects += 1
        await self._listener.up(NAME, self._away_since_ns)
        self._away_since_ns, self._why, self.totals.connected = None, "", True
        log.info("source.reading", source=NAME)

    def _tell_down(self, why: str) -> None:
        if self._away_since_ns is None:
            self._away_since_ns = self._clock.now_ns()
            log.warning("source.unreadable", source=NAME, why=why)
        self._why = why


def _time_ns(text: object, received_ns: int) -> int:
    """As `_told.instant_ns`, of a time in words."""
    try:
        told_ns = instant_ns(text) if isinstance(text, str) else 0
    except (ValueError, OverflowError):
        told_ns = 0
    return past_ns(told_ns, received_ns)


_decoder: Final = msgspec.json.Decoder(_Told)
