"""What actors ask for is made durable, then told: the only reader of effects (design.md §4.7).

Store before telling: a crash between the two repeats a notice under its own id; the other way round loses one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import structlog

from actors.effects import Transition
from actors.group import GroupActor
from actors.notice import event_id
from config.model import NS
from daemon.clock import Clock
from daemon.store.store import Store
from daemon.telemetry import Telemetry

TURN: Final = 64

log = structlog.get_logger(__name__)


class Performer:
    """Commits transitions; keeps count of what is in alarm. `stored` is the last durable position by actor."""

    def __init__(self, store: Store, telemetry: Telemetry, clock: Clock) -> None:
        self._store, self._telemetry, self._clock = store, telemetry, clock
        self.stored: dict[str, int] = {}
        self._told: dict[str, int] = {}  # violation id -> its last violation, ns, as the store has it

    async def perform(self, actor: str, position: int, effects: Sequence[Transition]) -> None:
        """Returns once the effects are durable; waits while the disk is full, and so does the log's reader."""
        if effects:
            before = self._clock.monotonic_ns()
            new = set(await self._store.commit(effects, {actor: position} if actor else {}))
            self._telemetry.store_commit_seconds.observe((self._clock.monotonic_ns() - before) / NS)
            self._tell([effect for effect in effects if event_id(effect.violation_id, effect.event_type) in new])
        elif actor:
            self._store.note_positions({actor: position})
        if actor:
            self.stored[actor] = position

    async def refresh(self, actors: Mapping[str, GroupActor]) -> None:
        """Hand the last violating values of open alarms to the store; called now and then, not per datapoint.

        Only those that moved are looked at, and the loop gets its turn in between: reading a set again takes 50 µs.
        """
        told: dict[str, int] = {}
        for alarms in [actor.alarms for actor in actors.values()]:
            for at, place in enumerate(alarms.moved(self._told)):
                if place in alarms.openings:  # it may have ended while others had their turn
                    self._store.touch(*alarms.last_violation(place))
                if at % TURN == TURN - 1:
                    await asyncio.sleep(0)
            told |= alarms.standing()
        self._told = told
        self._telemetry.active_violations.set(len(told))

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
