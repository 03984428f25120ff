"""What a Mosquitto's log file tells of its clients: lines become broker events.

Tried with Debian's 2.0.11 (`log_dest file PATH`); the lines of 2.0.x are the same. PUBLISH lines are debug lines, which
never reach `$SYS/broker/log/#`: only the file has them.

    log_type  line                                                       event
    notice    New client connected from IP:PORT as ID (p2, c1, k60).     connected; `, u'USER'` is there where given
    notice    Client ID disconnected.                                    disconnected; so are `closed its connection`,
              `has exceeded timeout`, `disconnected due to …` and `disconnected: …`
    notice    Bad socket read/write on client ID: Unknown error.         disconnected: after a denied PUBLISH, too
    error     Client ID already connected, closing old connection.       disconnected: another took its place
    debug     Received PUBLISH from ID (d0, q1, r0, m1, 'TOPIC', ... (5 bytes))    published
    debug     Sending PUBLISH to ID (…)                                  delivered
    debug     Denied PUBLISH from ID (…)                                 denied
    notice    Client <unknown> disconnected, not authorised.             none: it does not say who it was

A login that fails has no name in the log, so there is no `connect-failed`: it is counted (`nameless`), and that is all.
A subscription is never denied in words: with an `acl_file` it is granted, and nothing is delivered. Wanted are
`log_type error`, `notice`, `information` and `debug`, and `connection_messages true` (the default). Leave `subscribe`
and `unsubscribe` (and so `all`) out: their lines begin with a client's id, which may look like another line.

**Who writes what.** An id, a topic and a user name may hold quotes, spaces and whole pieces of log lines (no line
ends: Mosquitto refuses control characters). A line that can be taken apart in two ways counts for nobody (`ambiguous`),
unless all strange ids that are connected are known: that is so when the log was followed since the broker's start
(`log_type information`), over our own restarts too. So a client can hide behind a strange id, and is seen to do so, but
it can't speak for another. Mosquitto cuts lines at 999 bytes: a PUBLISH line that lost its end has no size, and counts
with 0 bytes (`cut`) under the same condition. A broker that starts has no clients: who was connected has left.

**Time** is the line's: epoch seconds (the default), or ISO 8601 with `log_timestamp_format`, which is local time
where it names no offset; without either, the time of reading. Seconds only: what the core does with the order of
events of a second is theirs to say, and they are handed over in the order of the lines.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final, Protocol

import msgspec

from actors.events import Event, Kind
from daemon.brokers._tally import Tally
from daemon.brokers._told import client_id_of, ip_of, text_of
from daemon.clock import NS

LINE_BYTES_MAX: Final = 4096  # Mosquitto's are shorter than 1000
CONNECTED_MAX: Final = 100_000
STRANGE_MAX: Final = 100
CUT_BYTES: Final = 900  # what a line of 999 bytes has at least, besides its time and its first words
UNKNOWN: Final = b"<unknown>"

_PUBLISHES: Final[dict[bytes, Kind]] = {
    b"Received PUBLISH from ": "published",
    b"Dropped too large PUBLISH from ": "published",
    b"Sending PUBLISH to ": "delivered",
    b"Denied PUBLISH from ": "denied",
}
_ARRIVAL: Final = b"New client connected from "
_CLIENT: Final = b"Client "
_BROKEN: Final = b"Bad socket read/write on client "
_BROKER: Final = b"mosquitto version "
_WORDS: Final = (*_PUBLISHES, _ARRIVAL, _CLIENT, _BROKEN, _BROKER)
# No end of a line is the end of another one here, so an id can't choose which of them is found.
_FAREWELLS: Final = (
    b" disconnected.",
    b" closed its connection.",
    b" has exceeded timeout, disconnecting.",
    b" already connected, closing old connection.",
    b" disconnected, not authorised.",
    b" been disconnected by administrative action.",
)
_NOT_AUTHORISED: Final = b" disconnected, not authorised."

_head: Final = re.compile(rb"(?:(\d{1,12}): )?(%s)?" % b"|".join(map(re.escape, _WORDS))).match
_iso: Final = re.compile(rb"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?): ").match
# Without a parenthesis in id and topic there is one way to cut the line.
_plain: Final = re.compile(rb"([^(]+) \(d\d, q\d, r\d, m\d+, '([^(]*)', \.\.\. \((\d{1,10}) bytes\)\)").fullmatch
_whole: Final = re.compile(rb"(.*)', \.\.\. \((\d{1,10}) bytes\)\)", re.DOTALL).fullmatch
_details: Final = re.compile(rb"(?= \(d\d, q\d, r\d, m\d+, '(.*))", re.DOTALL).finditer
_nameless_login: Final = re.compile(rb"(.*) \(p\d, c\d, k\d+\)\.", re.DOTALL).fullmatch
_login: Final = re.compile(rb"(?= \(p\d, c\d, k\d+, u'(.*)'\)\.)", re.DOTALL).finditer
_starting: Final = re.compile(rb"\d+\.\d+\.\S* starting").fullmatch
_because: Final = re.compile(rb"(.*)(?: disconnected due to [A-Za-z ]+\.| disconnected: [^:]*\.)", re.DOTALL).fullmatch


class LineCounts(Protocol):
    """Totals that the lines add to."""

    lines: int
    unreadable: int
    ambiguous: int
    cut: int
    nameless: int
    forgotten: int


class Knowledge(msgspec.Struct, frozen=True):
    """Of strange ids: those that are connected, in hex; and whether there are no others."""

    strange: tuple[Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$")], ...] = ()
    is_whole: bool = False


class Lines:
    """Reads lines in their order. Remembers who is connected: at most CONNECTED_MAX, the oldest are forgotten."""

    def __init__(self, counts: LineCounts, known: Knowledge = Knowledge()) -> None:  # noqa: B008  # it is frozen
        self._counts = counts
        self._connected: dict[bytes, str] = {}  # id -> session
        # Connected ids that look like a piece of a line, each with a space behind it.
        self._strange: tuple[bytes, ...] = tuple(bytes.fromhex(one) + b" " for one in known.strange)
        self._knows_all = known.is_whole
        self._has_started = False  # the broker, and nobody has come yet
        self._stamp = b""
        self._stamp_ns = 0

    @property
    def known(self) -> Knowledge:
        """For whoever goes on after these lines."""
        return Knowledge(tuple(one[:-1].hex() for one in self._strange), self._knows_all)

    def missed(self) -> None:
        """Lines were lost before those that come next."""
        self._knows_all = self._has_started = False

    def take(self, lines: Iterable[bytes], now_ns: int, tally: Tally) -> None:
        """Add what lines say, each without its end, to the tally. Never raises."""
        for line in lines:
            self._counts.lines += 1
            if len(line) <= LINE_BYTES_MAX:
                self._take(line, now_ns, tally)
            else:
                self._counts.unreadable += 1

    def _take(self, line: bytes, now_ns: int, tally: Tally) -> None:
        head = _head(line)
        assert head is not None  # all of it is optional
        stamp, word = head.groups()
        end = head.end()
        if word is None:
            if stamp is not None or not line:
                return  # one of the many lines that say nothing of this
            stamp, word, end = _otherwise_stamped(line)
            if word is None:
                return
        if self._strange and self._may_be_forged(line, end - len(word)):
            self._counts.ambiguous += 1
            return
        time_ns = now_ns if stamp is None else self._instant_ns(stamp, now_ns)
        self._say(word, line[end:], time_ns, stamp, tally)

    def _say(self, word: bytes, rest: bytes, time_ns: int, stamp: bytes | None, tally: Tally) -> None:
        kind = _PUBLISHES.get(word)
        if kind is not None:
            self._message(kind, rest, time_ns, tally)
        elif word == _ARRIVAL:
            self._arrival(rest, time_ns, stamp, tally)
        elif word == _CLIENT:
            self._farewell(*_parted(rest), time_ns, tally)
        elif word == _BROKEN:
            self._farewell(rest.rpartition(b": ")[0], b"", time_ns, tally)  # what the system says has no colon
        elif _starting(rest):
            self._start(time_ns, tally)

    # ---- messages ----

    def _message(self, kind: Kind, rest: bytes, time_ns: int, tally: Tally) -> None:
        plain = _plain(rest)
        found = plain.groups() if plain is not None else self._dissected(rest)
        if found is None:
            return
        client, topic, size = found
        client_id = client_id_of(client.decode(errors="replace"))
        if not client_id:
            self._counts.unreadable += 1
        elif kind == "denied":
            tally.add(kind, client_id, time_ns, topic=_text(topic))
        else:
            tally.add(kind, client_id, time_ns, topic=_text(topic), size=int(size))

    def _dissected(self, rest: bytes) -> tuple[bytes, bytes, bytes] | None:
        """(id, topic, bytes) of a line with parentheses in it, or without its end."""
        whole = _whole(rest)
        if whole is None:
            return self._cut_short(rest)
        text, size = whole.groups()
        ways = [(text[: cut.start()], cut[1]) for cut in _details(text)]
        if len(ways) > 1:
            ways = self._possible(ways)
            self._counts.ambiguous += len(ways) != 1
        else:
            self._counts.unreadable += not ways
        return (*ways[0], size) if len(ways) == 1 else None

    def _cut_short(self, rest: bytes) -> tuple[bytes, bytes, bytes] | None:
        if len(rest) < CUT_BYTES:
            self._counts.unreadable += 1
            return None
        self._counts.cut += 1
        ways = self._possible([(rest[: cut.start()], cut[1]) for cut in _details(rest)])
        self._counts.ambiguous += len(ways) != 1
        return (*ways[0], b"0") if len(ways) == 1 else None

    def _possible(self, ways: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Of some ways to part id and topic those whose id can be there. The first has no such piece in its id."""
        if not self._knows_all:
            return []
        return [way for place, way in enumerate(ways) if place == 0 or way[0] + b" " in self._strange]

    # ---- connections ----

    def _arrival(self, rest: bytes, time_ns: int, stamp: bytes | None, tally: Tally) -> None:
        address, _, text = rest.partition(b" as ")  # Mosquitto writes the address: the first is the right one
        nameless = _nameless_login(text)
        ways = [(nameless[1], b"")] if nameless is not None else [(text[: cut.start()], cut[1]) for cut in _login(text)]
        if len(ways) != 1:
            self._strange_arrival(len(ways))
            return
        client, user = ways[0]
        client_id = client_id_of(client.decode(errors="replace"))
        if not client_id:
            self._counts.unreadable += 1
            return
        self._knows_all |= self._has_started
        self._has_started = False
        # Without the time, a port used again would pass for the same connection.
        session = f"{_text(address)}@{_text(stamp)}" if stamp is not None else ""
        self._remember(client, session)
        ip = ip_of(_text(address), has_port=True)
        event = Event(
            event="connected", client_id=client_id, time=time_ns, ip=ip, user=_text(user), session=text_of(session)
        )
        tally.put(event)

    def _strange_arrival(self, ways: int) -> None:
        if ways:
            self._counts.ambiguous += 1
        else:
            self._counts.cut += 1
        self._knows_all = self._has_started = False

    def _start(self, time_ns: int, tally: Tally) -> None:
        for client, session in self._connected.items():
            name = client.decode(errors="replace")
            tally.put(Event(event="disconnected", client_id=name, time=time_ns, session=session))
        self._connected.clear()
        self._strange = ()
        self._knows_all, self._has_started = False, True

    def _farewell(self, client: bytes, end: bytes, time_ns: int, tally: Tally) -> None:
        if not client:
            self._counts.unreadable += 1
            return
        if client == UNKNOWN:
            self._counts.nameless += 1
            return
        client_id = client_id_of(client.decode(errors="replace"))
        if not client_id:
            self._counts.unreadable += 1
            return
        session = self._connected.pop(client, None)
        self._strange = _without(client, self._strange)
        if session is None and end == _NOT_AUTHORISED:
            tally.add("connect-failed", client_id, time_ns)  # later versions know the name
            return
        tally.put(Event(event="disconnected", client_id=client_id, time=time_ns, session=text_of(session or "")))

    def _remember(self, client: bytes, session: str) -> None:
        self._connected.pop(client, None)
        self._connected[client] = session
        if len(self._connected) > CONNECTED_MAX:  # its session only: who is strange is known apart
            del self._connected[next(iter(self._connected))]
            self._counts.forgotten += 1
        if not _is_strange(client):
            return
        self._strange = _without(client, self._strange)
        if len(self._strange) < STRANGE_MAX:
            self._strange = (*self._strange, client + b" ")
        else:
            self._knows_all = False

    def _may_be_forged(self, line: bytes, start: int) -> bool:
        """Whether this may be a line that a subscription logs: `ID QOS FILTER`, from an id made to look like ours."""
        return line.startswith(self._strange, start) or line.startswith(self._strange)

    # ---- time ----

    def _instant_ns(self, stamp: bytes, now_ns: int) -> int:
        if stamp != self._stamp:  # thousands of lines share a second
            self._stamp, self._stamp_ns = stamp, _read_ns(stamp)
        return min(self._stamp_ns, now_ns) or now_ns


def _otherwise_stamped(line: bytes) -> tuple[bytes | None, bytes | None, int]:
    """(time, word, where it ends) of a line whose time is not epoch seconds; no word: it says nothing of this."""
    iso = _iso(line)
    start = iso.end() if iso is not None else line.find(b": ") + 2
    if start < 2:
        return None, None, 0
    word = next((word for word in _WORDS if line.startswith(word, start)), None)
    return (iso[1] if iso is not None else None), word, start + len(word or b"")


def _parted(rest: bytes) -> tuple[bytes, bytes]:
    """(id, how it left) of a line `Client …`; b"" where it says something else."""
    for end in _FAREWELLS:
        if rest.endswith(end):
            return rest.removesuffix(end), end
    because = _because(rest)
    return (because[1], rest[because.end(1) :]) if because is not None else (b"", b"")


def _is_strange(client: bytes) -> bool:
    """Whether a line that begins with an id may look like one of ours, or the id like a piece of one with a message."""
    start = client + b" "
    begins = start.startswith(_WORDS) or any(word.startswith(start) for word in _WORDS) or b": " in start
    return begins or next(_details(client), None) is not None


def _without(client: bytes, strange: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(one for one in strange if one != client + b" ") if strange else strange


def _read_ns(stamp: bytes) -> int:
    """0: it is no time."""
    if stamp.isdigit():
        return int(stamp) * NS
    try:
        return int(datetime.fromisoformat(stamp.decode().replace(",", ".")).timestamp()) * NS
    except (ValueError, OverflowError, OSError):
        return 0


def _text(text: bytes) -> str:
    return text_of(text.decode(errors="replace"))
