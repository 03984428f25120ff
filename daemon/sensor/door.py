"""Who may come in and what they may do there, as a sensor asks it; daemon/devices/doorman.py answers."""

from dataclasses import dataclass, field
from typing import Any, Protocol

UNAVAILABLE, BAD_LOGIN, NOT_AUTHORIZED = 3, 4, 5  # codes of a CONNACK of MQTT 3.1.1


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says of itself."""

    client_id: str
    username: str | None
    password: bytes | None = field(repr=False)
    certificate: bytes | None = field(repr=False)  # DER, verified
    ip: str


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    code: int  # one of those above


class Pass(Protocol):
    """`judges` False: everything may pass unread."""

    @property
    def user(self) -> str: ...
    @property
    def judges(self) -> bool: ...
    def may_publish(self, topic: str) -> bool: ...
    def may_subscribe(self, topic_filter: str) -> bool: ...


class Doorman(Protocol):
    """`revision` grows when credentials or rules change: then `still_good` is asked for everyone who is in."""

    @property
    def revision(self) -> int: ...
    async def admit(self, hello: Hello) -> Pass | Refusal: ...
    def still_good(self, hello: Hello, given: Any) -> bool:
        """`given`: what it gave, so of its own kind."""
        ...


@dataclass(frozen=True, slots=True)
class Anyone:
    """The pass where nobody is judged."""

    user: str
    judges: bool = False

    def may_publish(self, topic: str) -> bool:  # noqa: ARG002 - as every pass
        return True

    def may_subscribe(self, topic_filter: str) -> bool:  # noqa: ARG002 - as every pass
        return True


def still_good(doorman: Doorman, hello: Hello, given: Pass) -> bool:
    """Whether who came in may stay. `Anyone` was given by no doorman, who has no opinion of it."""
    return isinstance(given, Anyone) or doorman.still_good(hello, given)
