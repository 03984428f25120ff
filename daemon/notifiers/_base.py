"""What a notifier promises: one attempt to tell one receiver of one notice, and an honest outcome.

`send` makes exactly one attempt and returns within a time of its own (it never waits for ever), raises nothing
but `CancelledError`, retries nothing and logs nothing: schedule, order, counters and logs are dispatch's, once
for all kinds. It may be called for several notices at once, and again for the same one after a crash, so what it
sends carries `notice.webhook_id`. No secret may get into an outcome, a repr or an exception.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from actors.delivery import Delivered, Disabled, Outcome, Reason, Refused, Retry
from actors.notice import Notice
from daemon.notifiers._aws import Chain

__all__ = [
    "Delivered",
    "Disabled",
    "Notice",
    "Notifier",
    "NotifierKind",
    "Outcome",
    "Reason",
    "Refused",
    "Retry",
    "Tools",
]


class Notifier(Protocol):
    """One receiver, ready to be told. The HTTP session belongs to whoever built it, and is not closed here."""

    @property
    def identity(self) -> str:
        """A hash of all its options, secrets included: two that are equal need not be exchanged in a reload."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know about these options."""
        ...

    async def send(self, notice: Notice) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What a notifier is built with."""

    session: aiohttp.ClientSession
    clock: Callable[[], int]  # wall time, ns
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)  # AWS service -> where it is, if not at AWS
    aws: Chain = field(default_factory=Chain)  # credentials for AWS, which all share


@dataclass(frozen=True, slots=True)
class NotifierKind:
    """The constant `NOTIFIER` of a module of this package. `build` raises ValueError or OSError, without a secret."""

    options: type[Any]  # a Struct of config.model with a `name`
    build: Callable[[Any, Tools], Notifier]
