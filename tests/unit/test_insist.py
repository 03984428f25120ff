"""What is handed to the log gets there, however often the log says no."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog
from structlog.testing import capture_logs

from daemon.brokers._base import Entry
from daemon.clock import VirtualClock
from daemon.log.insist import Insistent

ENTRIES = [Entry("a", b"1"), Entry("a", b"2")]


class Refusing:
    """Says no so many times."""

    def __init__(self, times: int, why: type[Exception] = OSError) -> None:
        self.left, self.why = times, why
        self.stored: list[Entry] = []

    async def append_many(self, entries: Sequence[Entry], /) -> Sequence[int]:
        if self.left:
            self.left -= 1
            raise self.why("no")
        self.stored += entries
        return range(len(entries))


async def test_it_pauses_after_each_failure_and_tells_of_the_first_and_of_the_end() -> None:
    log, clock, pauses, failures = Refusing(3), VirtualClock(), [], []

    def pause_s(count: int) -> float:
        pauses.append(count)
        return float(count)

    logger = structlog.get_logger("test", source="plant")
    insistent = Insistent(log.append_many, clock, pause_s, logger, "sensor", failed=lambda: failures.append(1))
    with capture_logs() as lines:
        task = asyncio.create_task(insistent.store(ENTRIES))
        await clock.advance(5.9)
        assert log.stored == []
        await clock.advance(0.1)
        await task
    assert log.stored == ENTRIES
    assert (pauses, len(failures)) == ([1, 2, 3], 3)
    failed = {"source": "plant", "entries": 2, "why": "no", "event": "sensor.log_unreachable"}
    assert lines == [
        failed | {"log_level": "warning"}, failed | {"log_level": "debug"}, failed | {"log_level": "debug"},
        {"source": "plant", "attempts": 4, "event": "sensor.log_reached", "log_level": "info"},
    ]  # fmt: skip


async def test_what_goes_well_is_not_spoken_of() -> None:
    log = Refusing(0)
    with capture_logs() as lines:
        await Insistent(log.append_many, VirtualClock(), float, structlog.get_logger(), "sensor").store(ENTRIES)
    assert (log.stored, lines) == (ENTRIES, [])


async def test_what_is_for_the_caller_is_raised_at_once() -> None:
    log, failures = Refusing(1, KeyError), []
    insistent = Insistent(
        log.append_many,
        VirtualClock(),
        float,
        structlog.get_logger(),
        "source",
        failed=lambda: failures.append(1),
        but=(KeyError,),
    )
    with pytest.raises(KeyError):
        await insistent.store(ENTRIES)
    assert failures == []
