"""What a client may, packet by packet, before it goes on: what is refused is left out, and answered by us.

Only where the doorman judges; all others have no judge, and their packets are not looked at one by one.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from daemon.sensor import answers, packets
from daemon.sensor.asides import Asides
from daemon.sensor.connect import Malformed, TooMuch
from daemon.sensor.door import Pass
from daemon.sensor.packets import COUNT, END, JUDGED, KIND, PACKET_ID, QOS, SINGLE, START, TEXT, TEXT_LEN
from daemon.sensor.stream import Row, Span, Stream

VERDICTS_MAX: Final = 1024  # topics whose verdict is remembered
FILTERS_TOLD: Final = 16  # refused filters of one SUBSCRIBE that are named
WITHHELD_MAX: Final = 1024  # QoS 2 publishes refused and not yet released by the client


class Notes(Protocol):
    """Where it is noted what a client did, and what was refused (daemon/sensor/link.py)."""

    def published(self, topic: bytes, row: Row) -> None: ...
    def said(self, row: Row) -> None:
        """Anything that is neither published nor subscribed to."""
        ...

    def denied(self, topic: str = "", count: int = 1) -> None: ...


def mode(level: int) -> int:
    """How a judge wants the client's stream read."""
    # Aliases mean one thing now and another later, so that MQTT 5 can't be read again in another way.
    return JUDGED | SINGLE if level == 5 else JUDGED


class Judge:
    """Of one client, and of MQTT's `level` that it speaks."""

    __slots__ = ("_asides", "_given", "_level", "_notes", "_swallows", "_verdicts", "_withheld")

    def __init__(self, given: Pass, level: int, notes: Notes, asides: Asides) -> None:
        self._given, self._level, self._notes, self._asides = given, level, notes, asides
        self._swallows = False  # the rest of a refused packet is still to come
        self._verdicts: dict[bytes, bool] | None = None
        self._withheld: set[int] | None = None

    def refused(self, up: Stream, rows: list[Row], skip: int) -> list[Span]:
        """The parts that may not pass of the piece that gave these rows, in order; they are noted, and answered.

        `skip`: the stream's, before it read the piece. Raises Malformed: it can't be judged; TooMuch: more was refused
        than can be kept in mind.
        """
        verdicts: Iterable[bool] = [self._judge(up, row) for row in rows]
        if not self._swallows and all(verdicts):
            return []
        if self._level != 5:
            # Rows that stand for one packet each, judged one after the other: one may bear on the next.
            rows = up.again(skip, SINGLE)
            verdicts = (self._may(up, row) for row in rows)
        return self._refusals(up, rows, verdicts, skip)

    def forget_verdicts(self) -> None:
        """The rules are others."""
        self._verdicts = None

    # Verdicts, noted

    def _judge(self, up: Stream, row: Row) -> bool:
        """Whether a row may pass; what comes of it is noted."""
        kind = row[KIND]
        if kind == packets.PUBLISH:
            return self._judge_publish(up.topic(row), row)
        if kind == packets.SUBSCRIBE:
            return self._judge_filters(self._filters(up, row))
        self._notes.said(row)
        return self._may(up, row)

    def _judge_publish(self, topic: bytes, row: Row) -> bool:
        may = self._may_publish(topic)
        if may:
            self._notes.published(topic, row)
        else:
            self._notes.denied(topic.decode(errors="replace"), row[COUNT])
        return may

    def _judge_filters(self, filters: list[str]) -> bool:
        refused = [each for each in filters if not self._given.may_subscribe(each)]
        for each in refused[:FILTERS_TOLD]:
            self._notes.denied(each)
        if len(refused) > FILTERS_TOLD:
            self._notes.denied("", len(refused) - FILTERS_TOLD)
        return not refused

    # Verdicts, without a trace

    def _may(self, up: Stream, row: Row) -> bool:
        match row[KIND]:
            case packets.PUBLISH:
                return self._may_publish(up.topic(row))
            case packets.SUBSCRIBE:
                return all(map(self._given.may_subscribe, self._filters(up, row)))
            case packets.PUBREL:
                return self._withheld is None or row[PACKET_ID] not in self._withheld
            case _:
                return True

    def _may_publish(self, topic: bytes) -> bool:
        verdicts = self._verdicts
        if verdicts is None or len(verdicts) > VERDICTS_MAX:
            verdicts = self._verdicts = {}
        may = verdicts.get(topic)
        if may is None:
            may = verdicts[topic] = self._given.may_publish(_text(topic))
        return may

    def _filters(self, up: Stream, row: Row) -> list[str]:
        return answers.filters_of(up.whole[row[TEXT] : row[TEXT] + row[TEXT_LEN]], self._level)

    # Refusing

    def _refusals(self, up: Stream, rows: list[Row], verdicts: Iterable[bool], skip: int) -> list[Span]:
        spans = []
        if self._swallows:  # the piece begins inside of a refused packet
            spans.append((0, skip))
            self._swallows = skip > up.done
        for row, may in zip(rows, verdicts, strict=True):
            if not may:
                spans.append((row[START], row[END]))
                self._swallows = row[END] > len(up.whole)
                self._refuse(up, row)
        return spans

    def _refuse(self, up: Stream, row: Row) -> None:
        packet_id = row[PACKET_ID]
        match row[KIND]:
            case packets.PUBLISH:
                if row[QOS] == 2 and self._level != 5:
                    self._withhold(packet_id)
                self._asides.say(answers.publish_refused(row[QOS], packet_id, self._level))
            case packets.SUBSCRIBE:
                self._asides.say(answers.subscribe_refused(packet_id, len(self._filters(up, row)), self._level))
            case packets.PUBREL:
                assert self._withheld is not None
                self._withheld.discard(packet_id)
                self._asides.say(answers.released(packet_id))

    def _withhold(self, packet_id: int) -> None:
        """MQTT 3.1.1 was told that a QoS 2 publish was taken, so its release comes too, and must not go on either."""
        self._withheld = self._withheld if self._withheld is not None else set()
        if len(self._withheld) >= WITHHELD_MAX:
            raise TooMuch("too many refused publishes that the client does not release")
        self._withheld.add(packet_id)


def _text(topic: bytes) -> str:
    """Raises Malformed: what is no text can't be judged."""
    try:
        return topic.decode()
    except UnicodeDecodeError as problem:
        raise Malformed("a topic that is no UTF-8") from problem
