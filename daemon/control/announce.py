"""What the tables say goes into the log: the one place where the files' rules and the API's become the rules in force.

A change through the API is in force within a moment of its answer; many in a row are taken together, and after one
that took long there is a rest, so that a large registry under change costs a share of the time and not all of it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from actors.controls import CHANGE
from actors.controls import Change as RulesChange
from config.diff import digest_of, rules_bytes
from config.merge import merged
from config.model import NS, Rules
from daemon.clock import Clock, sleep
from daemon.control.rules import Con, api_rules
from daemon.log.window import NotStored

T = TypeVar("T")
RULES: Final = "rules"  # the key under which the store remembers the digest of the last announced rules
GATHER_S: Final = 0.05  # changes that come together are one entry
REST: Final = 5  # times as long as the last change took
RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class Shelf(Protocol):
    """The part of the store that keeps definitions."""

    async def put_definition(self, digest: str, rules: bytes) -> None: ...
    async def get_meta(self, key: str) -> str | None: ...
    async def put_meta(self, key: str, value: str) -> None: ...
    async def read(self, run: Callable[[Con], T]) -> T: ...


class Announcer:
    """Puts new rules into the log. `files` are the rules of the configuration in force.

    `before` is called with new rules right before they go into the log: whoever must know them first. `forgotten` waits
    until values of what is no longer defined are gone.
    """

    def __init__(
        self, files: Rules, shelf: Shelf, append: Callable[[str, bytes], Awaitable[int]],
        reached: Callable[[int], Awaitable[None]], clock: Clock,
        before: Callable[[Rules], Awaitable[None]] | None = None,
        forgotten: Callable[[], Awaitable[object]] | None = None,
    ) -> None:  # fmt: skip
        self.files = files
        self.announced = 0  # entries written
        self._shelf, self._append, self._reached, self._clock = shelf, append, reached, clock
        self._before, self._forgotten = before, forgotten
        self._changed = asyncio.Event()
        self._taken: set[str] = set()  # resources, since the last entry
        self._turn = asyncio.Lock()

    def changed(self) -> None:
        """The API has changed the tables."""
        self._changed.set()

    def taken(self, resource: str) -> None:
        """The API has deleted a definition, or taken something away from it."""
        self._taken.add(resource)

    async def settle(self, resource: str) -> None:
        """Before something is given to a definition: where something was just taken, wait until it is gone."""
        if resource in self._taken:
            with contextlib.suppress(NotStored):  # the log is away: the two become one change
                await self.announce("api")
                if self._forgotten is not None:
                    await self._forgotten()

    async def run(self) -> None:
        """Announce what the API changes, for ever."""
        while True:
            await self._changed.wait()
            await sleep(self._clock, GATHER_S)
            self._changed.clear()
            began = self._clock.monotonic_ns()
            try:
                await self.announce("api")
            except NotStored as problem:  # the log is away
                log.warning("rules.not-announced", error=repr(problem), again_in_s=RETRY_S)
                self._changed.set()
                await sleep(self._clock, RETRY_S)
            await sleep(self._clock, REST * (self._clock.monotonic_ns() - began) / NS)

    async def announce(self, by: str, files: Rules | None = None) -> None:
        """Put the rules that should be in force into the log, and wait until they are. `files`: new ones."""
        position = await self.put(by, files)
        if position is not None:
            await self._reached(position)

    async def put(self, by: str, files: Rules | None = None) -> int | None:
        """As `announce`, without the wait: the entry's position, None where nothing has changed."""
        async with self._turn:
            self.files = self.files if files is None else files
            self._taken.clear()
            rules = await asyncio.to_thread(merged, self.files, await self._shelf.read(api_rules))
            body = await asyncio.to_thread(rules_bytes, rules)
            digest = digest_of(body)
            if await self._shelf.get_meta(RULES) == digest:
                return None
            if self._before is not None:
                await self._before(rules)
            await self._shelf.put_definition(digest, body)
            position = await self._append(CHANGE, msgspec.json.encode(RulesChange(digest, by)))
            await self._shelf.put_meta(RULES, digest)
            self.announced += 1
            return position
