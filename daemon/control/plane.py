"""What the handlers of the API work on: read the tables, change them in one transaction, and the rest is told.

A change is a function of the connection that runs in the store's one writing thread (it may run more than once, and
does nothing but SQL): it checks and writes in the same transaction, and refuses by raising a `Refusal`, which undoes
it. The audit trail gets its row in that transaction too. When it is committed the announcer hears of it, and what
decides alarms goes into the log within a moment (`daemon/control/announce.py`).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from config.kinds import Kinds
from config.model import Account, Settings
from daemon.control import audit
from daemon.control.arns import arn_of, resource_of
from daemon.history.recorder import History
from daemon.store.store import Store

T = TypeVar("T")
Con = sqlite3.Connection


CHANGE_S: Final = 30.0  # then the storage is not taking writes
DEFINITIONS: Final = ("securityprofile/", "custommetric/", "dimension/")
TAKE: Final = ("Delete", "Detach", "Update")
GIVE: Final = ("Create", "Attach", "Update")


class Announcing(Protocol):
    """What is told of definitions that go, in part or whole, and come again (`daemon.control.announce.Announcer`)."""

    def taken(self, resource: str) -> None: ...
    async def settle(self, resource: str) -> None: ...


def _nobody() -> None: ...


def _nowhere() -> None: ...


class ControlPlane:
    """The state that the API manages. `settings` gives the configuration in force."""

    def __init__(
        self, store: Store, kinds: Kinds, settings: Callable[[], Settings], clock: Callable[[], int],
        on_change: Callable[[], None] = _nobody,
    ) -> None:  # fmt: skip
        self.store, self.kinds = store, kinds
        self._settings, self._clock, self._on_change = settings, clock, on_change
        self.history: History | None = None  # until it is open
        self.announcer: Announcing | None = None  # until there is a log
        self.endpoint: Callable[[], str | None] = _nowhere  # where devices connect

    @property
    def account(self) -> Account:
        return self._settings().account

    @property
    def settings(self) -> Settings:
        return self._settings()

    def now_ns(self) -> int:
        return self._clock()

    def arn(self, resource: str) -> str:
        """The ARN of a resource like "securityprofile/NAME"."""
        return arn_of(self.account, resource)

    def resource(self, arn: str) -> str:
        """The resource that an ARN names. Raises `InvalidRequestException`."""
        return resource_of(self.account, arn)

    async def read(self, run: Callable[[Con], T]) -> T:
        """Ask the tables, on a read-only connection. What `run` raises is raised here; it may be run twice."""
        return await self.store.glance(run)

    async def change(
        self, run: Callable[[Con], T], actor: audit.Actor, action: str, resource: str, detail: Mapping[str, Any],
        *, rules: bool = True,
    ) -> T:  # fmt: skip
        """Change the tables, audit row and all. `rules`: it may concern what decides alarms, or who is where.

        What is given back (a definition that is made again, a profile that is attached again or has a behavior again)
        was gone in between, with its alarms and values: that is in force first (spec.md §3.6).

        Raises:
            StoreClosed, TimeoutError: the storage does not take it now; it may do it yet.
            Others: what `run` raises.
        """
        announcer = self.announcer if resource.startswith(DEFINITIONS) else None
        async with asyncio.timeout(CHANGE_S):
            if announcer is not None and action.startswith(GIVE):
                await announcer.settle(resource)
            now_ns = self._clock()

            def work(con: Con) -> T:
                result = run(con)
                audit.note(con, now_ns, actor, action, resource, detail)
                return result

            result = await self.store.write(work)
        if announcer is not None and action.startswith(TAKE):
            announcer.taken(resource)
        if rules:
            self._on_change()
        return result


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an operation, parsed and validated against the service model.

    `params` has the model's own names (`securityProfileName`); instants are integer ns; absent members are absent.
    """

    plane: ControlPlane
    operation: str
    params: Mapping[str, Any]
    actor: audit.Actor

    async def read(self, run: Callable[[Con], T]) -> T:
        return await self.plane.read(run)

    async def change(self, run: Callable[[Con], T], resource: str, *, rules: bool = True) -> T:
        """Change the tables in the name of whoever calls."""
        return await self.plane.change(run, self.actor, self.operation, resource, self.params, rules=rules)
