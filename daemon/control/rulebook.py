"""The files' rules beside the API's: taken over into the tables, previewed, and put in force through the log."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from config.diff import Change
from config.kinds import Kinds
from config.merge import merged
from config.model import Rules, Settings
from daemon.control import audit
from daemon.control.announce import Announcer
from daemon.control.files import refuse_broken, take_files, without_members
from daemon.control.refusal import InvalidRequestException
from daemon.control.rules import api_rules
from daemon.store.store import Store


class RulesConflict(Exception):
    """At the start: what the API made needs something that the files no longer have. Says what to do."""


class Rulebook:
    """What a configuration means for the rules in force. `path` is the configuration's main file."""

    def __init__(self, store: Store, kinds: Kinds, path: Path, clock: Callable[[], int]) -> None:
        self.announcer: Announcer | None = None  # once there is a log
        self._store, self._kinds, self._clock = store, kinds, clock
        self._actor = audit.Actor(str(path))

    async def preview(self, files: Rules) -> Rules:
        """What would be in force with these of files."""
        return await asyncio.to_thread(merged, files, await self._store.read(api_rules))

    async def check(self, previewed: Rules) -> None:
        """Before anything is built of it. Raises as `take_over`, which would find the same."""
        await asyncio.to_thread(refuse_broken, without_members(previewed), self._kinds)

    async def take_over(self, settings: Settings) -> None:
        """Make the tables say what the files say.

        Raises:
            InvalidRequestException: with what the API made, they make no valid whole. Nothing has changed.
        """
        now_ns = self._clock()
        await self._store.write(lambda con: take_files(con, settings, self._kinds, self._actor, now_ns))

    async def note(self, change: Change) -> None:
        """Put a reload into the audit trail: what it changed."""
        now_ns, detail = self._clock(), msgspec.to_builtins(change)
        await self._store.write(lambda con: audit.note(con, now_ns, self._actor, "Reload", "configuration", detail))

    async def begin(self, settings: Settings) -> None:
        """Take over what the files say at the start. Raises `RulesConflict`."""
        try:
            await self.take_over(settings)
        except InvalidRequestException as problem:
            raise RulesConflict(
                "what the API made does not go with these files; put back what they lack, "
                f"or start once more with the old ones and change it through the API: {problem.message}"
            ) from None

    async def put_in_force(self, settings: Settings) -> None:
        """Take a configuration's rules over, and wait until they are in force. Raises as `take_over`."""
        assert self.announcer is not None
        await self.take_over(settings)
        await self.announcer.announce(self._actor.who, settings.rules)
