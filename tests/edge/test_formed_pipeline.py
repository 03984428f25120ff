"""What actors form reaches whoever keeps it through the running pipeline, also where new rules replace the actors."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from builders import START, rules, world

from actors.controls import CHANGE, Change
from actors.effects import Formed
from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed
from actors.messages import Frames
from config.model import NS, Rules, SecurityProfile
from daemon.clock import SystemClock
from daemon.pipeline import Pipeline
from daemon.supervisor import Supervisor
from daemon.telemetry import Telemetry

SENT, SIZE = "aws:num-messages-sent", "aws:message-byte-size"


class Log:
    """A log of these entries, in batches of one."""

    def __init__(self, *entries: tuple[float, str, bytes]) -> None:
        self._entries = entries

    async def batches(self, after: int) -> AsyncIterator[Frames]:
        assert after == 0
        for position, (at, subject, payload) in enumerate(self._entries, 1):
            yield frames_of([(position, START + round(at * NS), subject, payload, None, 0)])
        await asyncio.Event().wait()


class Silent:
    async def answer(self, _routed: object) -> None:
        """No device waits."""


def retaining(*metrics: str) -> Rules:
    return rules(SecurityProfile("p", additional_metrics_to_retain=metrics, targets=("all/things",)))


def published(at: float) -> tuple[float, str, bytes]:
    event = Event(event="published", client_id="d1", time=START + round(at * NS), bytes=1, bytes_min=1, bytes_max=1)
    return at, SUBJECT + EMBEDDED, packed([event])


async def test_windows_that_end_with_a_change_of_rules_are_told_though_their_actor_is_replaced() -> None:
    told: list[tuple[str, int, float]] = []

    def formed(_key: str, pieces: Sequence[Formed]) -> None:
        told.extend((piece.series.metric, piece.position, (piece.end - START) / NS) for piece in pieces)

    async def definition(_digest: str) -> Rules:
        return retaining(SENT, SIZE)

    async def nothing(*_: Any) -> Any:
        """What else there is to tell is of no interest."""

    telemetry, clock = Telemetry(), SystemClock()
    change = (340, CHANGE, msgspec.json.encode(Change(digest="new")))
    log = Log(published(1), change, published(345), (700, "detectd.log.tick", b""))
    supervisor = Supervisor(nothing, nothing, nothing, telemetry, lambda: clock.monotonic_ns() / NS, formed=formed)
    pipeline = Pipeline(
        world(retaining(SENT)), supervisor, Silent(), definition, nothing, nothing, telemetry, clock
    )  # fmt: skip
    running = asyncio.create_task(pipeline.run(log, 0))
    await asyncio.wait_for(pipeline.reached(4), 10)
    await supervisor.drained()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await supervisor.stop()
    assert sorted(told) == [(SIZE, 4, 600), (SENT, 2, 300), (SENT, 4, 600)]
