"""What a broker does with our own message: decides whether devices get replies, and says it in words.

On each connection one message goes out to ourselves, to a reply topic under the prefix, and is listened for. Where
replies are off it goes to a topic of our own instead, and only marks the end of the backlog (daemon/brokers/mqtt.py).
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from config.model import Bridge

KICKS_MAX: Final = 2  # connections lost in a row right after our message before it is taken for the cause


class Verdict(Enum):
    """What was found, in words that an operator can act on."""

    UNTRIED = "not tried yet"
    CARRIED = "the broker carries topics under the prefix and takes replies"
    MISSING = (
        "the broker took a message under the prefix but did not deliver it back: it takes no replies from us; "
        "if no reports come either, it does not carry such topics, and another `prefix` is needed"
    )
    REFUSED = "the broker refuses our replies: allow this user to publish them, or set `replies: off`"
    KICKED = (
        "the broker ends the connection when a reply is published (AWS IoT Core does): reports are read all the same"
    )
    UNHEARD = "we may not subscribe to our own test message, so whether replies arrive is not known: they are sent"


_TAKES_REPLIES: Final = frozenset({Verdict.CARRIED, Verdict.UNHEARD})
# Learnt once, not tried again while we run: some brokers end the connection for it each time (Mosquitto 2.0.11 does
# after it has refused a QoS 1 publish).
_FINAL: Final = frozenset({Verdict.REFUSED, Verdict.KICKED})


class SelfTest:
    """The state of the test over all connections of one bridge. `changed` is called with each new verdict."""

    def __init__(self, options: Bridge, client_id: str, changed: Callable[[], None]) -> None:
        self.verdict = Verdict.UNTRIED
        self.is_under_way = False  # our message is out and neither back nor given up
        self.topic = f"{options.prefix}/things/{client_id}/defender/metrics/json/accepted"
        self._mode = options.replies if options.reports else "off"
        self._changed = changed
        self._payload = b""
        self._kicks = 0
        if self._mode == "off":
            self.topic = f"detectd/{client_id}/probe"

    @property
    def words(self) -> str:
        return "replies are off" if self._mode == "off" else self.verdict.value

    @property
    def is_good(self) -> bool:
        return self.verdict in _TAKES_REPLIES

    def may_reply(self) -> bool:
        """Whether replies may go out now; with `auto` not before it is known: one may cost the connection."""
        return self._mode == "on" or (self._mode == "auto" and self.is_good)

    def may_yet_reply(self) -> bool:
        """Whether a reply is worth keeping: it may go, or it is not known yet."""
        return self.may_reply() or (self._mode == "auto" and self.verdict is Verdict.UNTRIED)

    def begin(self, now_ns: int) -> bytes | None:
        """The message for this connection; None where it has been learnt that the broker will not have it."""
        if self.verdict in _FINAL:
            return None
        self.is_under_way = True
        self._payload = b"detectd %d" % now_ns
        return self._payload

    def heard(self, payload: bytes) -> bool:
        """A message came on our topic; True: it is that of this connection, and all before it was backlog."""
        if payload != self._payload:
            return False
        self._end(Verdict.CARRIED)
        self._kicks = 0
        return True

    def unheard(self) -> None:
        """The subscription to our topic was refused."""
        self._end(Verdict.UNHEARD)

    def refused(self) -> None:
        """The broker answered that we may not publish it."""
        self._end(Verdict.REFUSED)

    def missed(self) -> None:
        """It has been waited for long enough. If it comes after all, `heard` corrects this."""
        if self.is_under_way:
            self._end(Verdict.MISSING)

    def cut_off(self, *, is_suspect: bool = True) -> None:
        """The connection is lost. While our message was under way that may be what it cost; twice in a row it is."""
        if not (self.is_under_way and is_suspect):
            self.is_under_way = False
            return
        self._kicks += 1
        self._end(Verdict.KICKED if self._kicks >= KICKS_MAX else self.verdict)

    def _end(self, verdict: Verdict) -> None:
        self.is_under_way = False
        if verdict is not self.verdict:
            self.verdict = verdict
            self._changed()
