"""A new configuration, all or nothing: read, check, diff, build everything; only then touch what runs (design.md §4).

New rules take effect at their place in the log, as an entry of it. A configuration that says the same as the one
before changes nothing and tells nobody.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import structlog

from actors.world import World
from config.diff import Change, diff
from config.kinds import Kinds
from config.load import ConfigError, Loaded, load
from config.model import Rules, Settings
from daemon import logs
from daemon.control.refusal import InvalidRequestException
from daemon.delivery.dispatch import Dispatch, Plan
from daemon.http.access import Access, Keys, keys_of
from daemon.http.ops import Answer, Failed, Refused, Reloaded
from daemon.notifiers import ReceiverError
from daemon.telemetry import Telemetry

APPLY_S: Final = 30.0  # how long a reload waits for its entry to come by in the log

log = structlog.get_logger(__name__)


class Rulebook(Protocol):
    """Where files' rules and the API's become the rules in force (daemon/control/)."""

    async def preview(self, files: Rules) -> Rules:
        """What would be in force with these of files."""
        ...

    async def check(self, previewed: Rules) -> None:
        """Before anything is built of it. Raises InvalidRequestException: files and API make no valid whole."""
        ...

    async def note(self, change: Change) -> None:
        """Put a reload into the audit trail."""
        ...

    async def put_in_force(self, settings: Settings) -> None:
        """Take a configuration's rules over, and wait until they are in force.

        Raises:
            InvalidRequestException: with what the API made, they make no valid whole. Nothing has changed.
        """
        ...


class Reloader:
    """Holds the settings in force. `generation` counts the configurations that were put in force."""

    def __init__(
        self, path: Path, loaded: Loaded, kinds: Kinds, dispatch: Dispatch, telemetry: Telemetry,
        rulebook: Rulebook, access: Access, apply_bridges: Callable[[Settings], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.loaded, self.generation = loaded, 1
        self._path, self._kinds, self._dispatch, self._telemetry = path, kinds, dispatch, telemetry
        self._rulebook, self._access, self._apply_bridges = rulebook, access, apply_bridges
        self._lock = asyncio.Lock()
        self.last_problems: tuple[str, ...] = ()

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    async def reload(self) -> Answer:
        """Read the files again and put them in force, or say why not."""
        async with self._lock:
            answer = await self._reload()
        match answer:
            case Reloaded(generation=generation, changed=changed):
                self.last_problems = ()
                self._telemetry.reload_successful.set(1)
                self._telemetry.reload_success_time.set_to_current_time()
                self._telemetry.config_generation.set(generation)
                log.info("config.reloaded", generation=generation, changed=changed)
            case Refused(problems=problems):
                self._failed(problems)
            case Failed(message=message):
                self._failed((message,))
        return answer

    def _failed(self, problems: tuple[str, ...]) -> None:
        if problems != self.last_problems:  # a watcher may look at the same bad file again
            log.error("config.refused", problems=list(problems), generation=self.generation)
        self.last_problems = problems
        self._telemetry.reload_successful.set(0)
        self._telemetry.reload_failures.inc()

    async def _reload(self) -> Answer:
        try:
            loaded = await asyncio.to_thread(load, self._path, self._kinds)
        except ConfigError as problem:
            return Refused(tuple(str(one) for one in problem.problems))
        change = diff(self.settings, loaded.settings)
        if change.needs_restart:
            return Refused(
                tuple(f"{field}: can't be changed while the daemon runs; restart it" for field in change.needs_restart)
            )
        try:
            keys = await asyncio.to_thread(keys_of, loaded.settings)
            plan = self._dispatch.prepare(loaded.settings.receivers, loaded.settings.aws)
            rules = await self._rulebook.preview(loaded.settings.rules)
            await self._rulebook.check(rules)
            await asyncio.to_thread(World, rules, self._kinds, "")
        except (ReceiverError, ConfigError) as problem:
            return Refused((str(problem),))
        except InvalidRequestException as problem:
            return self._conflict(problem)
        except Exception as problem:  # the reload's boundary: a bug in building leaves the old one in force
            log.exception("config.build-failed")
            return Failed(f"could not build it: {problem!r}")
        return await self._put_in_force(loaded, change, plan, keys)

    def _conflict(self, problem: InvalidRequestException) -> Refused:
        """What the API made needs something that these files lack."""
        return Refused(tuple(f"{self._path}: with what the API made: {one}" for one in problem.message.splitlines()))

    async def _put_in_force(self, loaded: Loaded, change: Change, plan: Plan, keys: Keys) -> Answer:
        for warning in (*loaded.warnings, *plan.warnings):
            log.warning("config.warning", problem=str(warning))
        settings = loaded.settings
        if change.rules_changed or settings.origin != self.settings.origin:
            try:
                async with asyncio.timeout(APPLY_S):
                    await self._rulebook.put_in_force(settings)
            except InvalidRequestException as problem:
                return self._conflict(problem)
            except TimeoutError:
                return Failed(f"the log did not take the change within {APPLY_S:g} s; it takes effect when it does")
        self._access.apply(keys)
        await self._dispatch.apply(plan)
        await self._apply_bridges(settings)
        logs.set_level(settings.logging.level)
        changed = settings != self.settings
        if changed:
            await self._rulebook.note(change)
        self.loaded = loaded
        self.generation += changed
        return Reloaded(self.generation, changed)
