"""What there is to see: alarms as the webhooks tell them, the fleet as it is, the daemon's own numbers."""

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field

import aiohttp
from fleet import Fleet
from prometheus_client.parser import text_string_to_metric_families
from receiver import Delivery, Receiver

DELIVERIES_SHOWN_MAX = 200
SAMPLE_S = 1.0
SPAN_S = 5.0


@dataclass(slots=True)
class Board:
    """Read by the views, written by the demo. `alarms` is {violation id: its in-alarm}."""

    fleet: Fleet
    groups: dict[str, tuple[str, ...]]
    receiver: Receiver
    url: str
    started_s: float = field(default_factory=time.time)
    alarms: dict[str, Delivery] = field(default_factory=dict)
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=DELIVERIES_SHOWN_MAX))
    raised: int = 0
    ended: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    _history: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=round(SPAN_S / SAMPLE_S) + 1))

    def take(self, delivery: Delivery) -> None:
        self.deliveries.appendleft(delivery)
        if delivery.type == "in-alarm":
            self.raised += 1
            self.alarms[delivery.violation_id] = delivery
        else:
            self.ended += 1
            self.alarms.pop(delivery.violation_id, None)

    def alarmed(self) -> set[str]:
        return {alarm.thing for alarm in self.alarms.values()}

    @property
    def accepted_per_s(self) -> float:
        if len(self._history) < 2:
            return 0.0
        (then_s, before), (now_s, after) = self._history[0], self._history[-1]
        return (after - before) / (now_s - then_s)

    async def keep_sampling(self) -> None:
        """The daemon's /metrics, once a second, until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    await self._sample(session)
                await asyncio.sleep(SAMPLE_S)

    async def _sample(self, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{self.url}/metrics") as answer:
            self.numbers = _sums(await answer.text())
        self._history.append((time.monotonic(), self.numbers.get("detectd_reports_accepted_total", 0.0)))


def _sums(text: str) -> dict[str, float]:
    """{sample name: the sum over its labels}."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums
