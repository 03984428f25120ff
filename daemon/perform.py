"""What actors ask for is made durable, then told: the only reader of effects (design.md §4.7).

Store before telling: a crash between the two repeats a notice under its own id; the other way round loses one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import structlog

from actors.effects import Transition
from actors.group import GroupActor
from config.model import NS
from daemon.clock import Clock
from daemon.store import Store
from daemon.telemetry import Telemetry

log = structlog.get_logger(__name__)


class Performer:
    """Commits transitions; keeps count of what is in alarm. `stored` is the last durable position by actor."""

    def __init__(self, store: Store, telemetry: Telemetry, clock: Clock) -> None:
        self._store, self._telemetry, self._clock = store, telemetry, clock
        self.stored: dict[str, int] = {}
        self._touched: dict[str, tuple[int, object]] = {}

    async def perform(self, actor: str, position: int, effects: Sequence[Transition]) -> None:
        """Returns once the effects are durable; waits while the disk is full, and so does the log's reader."""
        if effects:
            before = self._clock.monotonic_ns()
            new = set(await self._store.commit(effects, {actor: position} if actor else {}))
            self._telemetry.store_commit_seconds.observe((self._clock.monotonic_ns() - before) / NS)
            self._tell([effect for effect in effects if f"{effect.violation_id}-{effect.event_type}" in new])
        elif actor:
            self._store.note_positions({actor: position})
        if actor:
            self.stored[actor] = position

    def refresh(self, actors: Mapping[str, GroupActor]) -> None:
        """Hand the last violating values of open alarms to the store; called now and then, not per datapoint."""
        open_now = 0
        for actor in actors.values():
            for violation_id, at_ns, value in actor.active():
                open_now += 1
                if self._touched.get(violation_id, (0, None))[0] != at_ns:
                    self._touched[violation_id] = (at_ns, None)
                    self._store.touch(violation_id, at_ns, value)
        if len(self._touched) > 2 * open_now + 1024:  # closed ones need no memory
            known = {violation_id for actor in actors.values() for violation_id, _, _ in actor.active()}
            self._touched = {key: value for key, value in self._touched.items() if key in known}
        self._telemetry.active_violations.set(open_now)

    def _tell(self, new: Sequence[Transition]) -> None:
        now = self._clock.now_ns()
        for effect in new:
            self._telemetry.events.labels(effect.event_type, effect.profile, effect.behavior.name).inc()
            log.info(
                "alarm",
                event_type=effect.event_type,
                thing=effect.thing,
                profile=effect.profile,
                behavior=effect.behavior.name,
                violation_id=effect.violation_id,
                reason=effect.reason,
            )
        if new:
            self._telemetry.latency.observe(np.array([(now - effect.time_ns) / NS for effect in new]))
