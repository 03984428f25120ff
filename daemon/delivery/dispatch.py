"""From the outbox to the receivers: one courier each, woken by the commit, in order per thing, nothing forgotten.

Fresh notices are handed over in memory; what does not fit, what failed and what an earlier process left is read
from SQLite (`daemon.delivery.lanes`). A slow receiver holds up nobody else, and a thing whose notice fails holds up
only that thing's next ones. A kill between an attempt and its mark sends a notice again, under the same id.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import aiohttp

from actors.effects import Transition
from actors.notice import Notice
from config.model import AlertTarget, AwsOut, Receivers, Rules, Topic
from daemon.clock import Clock
from daemon.delivery.courier import (
    FLIGHTS_MAX,
    NEWS_NS,
    Courier,
    Crashed,
    Died,
    Failed,
    News,
    Sent,
    Stats,
    Status,
    Switched,
)
from daemon.notifiers import build_all
from daemon.notifiers._base import Notifier, Tools
from daemon.store import outbox
from daemon.store.store import Store
from daemon.store.writer import StoreClosed

__all__ = ["Crashed", "Died", "Dispatch", "Failed", "News", "Plan", "Sent", "Stats", "Status", "Switched"]

RECENT_MAX: Final = 100
TOPIC: Final = "sns:"
"""How the receivers of profiles' `alertTargets` are named: this and the topic's ARN."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Receivers that are built, and not yet in use."""

    notifiers: Mapping[str, Notifier]
    tools: Tools | None = None  # that they were built with, where topics of profiles are to be built so too

    @property
    def warnings(self) -> list[str]:
        return [f"receiver '{name}': {text}" for name, one in self.notifiers.items() for text in one.warnings]


def _ignore(_: News) -> None: ...


class Dispatch:
    """Delivers what the store commits. `prepare` then `apply`, at the start and at every reload; `stop` at the end.

    The session stays the caller's. `on_news` hears of every attempt, in the loop; it must not raise.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        session: aiohttp.ClientSession,
        *,
        on_news: Callable[[News], None] = _ignore,
        flights_max: int = FLIGHTS_MAX,
    ) -> None:
        self.stats: dict[str, Stats] = {}
        self.recent: deque[News] = deque(maxlen=RECENT_MAX)
        self._store = store
        self._clock = clock
        self._tools = Tools(session, clock.now_ns)
        self._on_news = on_news
        self._flights_max = flights_max
        # In here time only passes: a wall clock that steps back must not hold a delivery for a year.
        self._offset_ns = clock.now_ns() - clock.monotonic_ns()
        self._workers: dict[str, Courier] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._named: dict[str, str | None] = {}  # profile -> the receiver that its alertTargets name
        self._topics: dict[str, str | None] = {}  # the same, and profiles that have just ended
        self._started = False
        store.route = self.route
        store.on_notices = self._offer

    def prepare(self, receivers: Receivers, aws: AwsOut | None = None) -> Plan:
        """Build every receiver, touching nothing. Raises `daemon.notifiers.ReceiverError` with all problems."""
        tools = replace(self._tools, endpoint_urls=aws.endpoint_urls if aws else {})
        return Plan(build_all(receivers, tools), tools)

    async def apply(self, plan: Plan) -> None:
        """Use these receivers from now on. Workers of unchanged ones go on as they are; one that is disabled is
        tried again, for a reload is an operator's word (a start is not). Removed ones finish what they are
        sending, and their rows wait as `orphaned`.
        """
        self._tools = plan.tools or self._tools
        for name in [name for name in self._workers if name not in plan.notifiers and not name.startswith(TOPIC)]:
            self._retire(name)
        await self._exchange_topics()
        if not self._started:
            await self._add_topics(self._topics, await self._store.read(lambda con: outbox.awaited(con, TOPIC)))
        for name, notifier in plan.notifiers.items():
            if name in self._workers:
                await self._exchange(name, notifier)
            else:
                await self._add(name, notifier)
        if not self._started:
            await self._orphan()
        self._started = True

    async def use_topics(self, rules: Rules) -> None:
        """Let the profiles of `rules` be heard by the topics that they name. Before the first `apply` this is only
        noted: nothing is sent before it is known where AWS is.

        A topic that no profile names any more stays while something is to come: rows that wait, and the ends of its
        open alarms, which are for those who heard of the beginning. Then it goes, at the next change.
        """
        named = {profile.security_profile_name: _topic_of(profile.alert_targets) for profile in rules.profiles}
        # These rules are only on their way into the log: what a profile that ends says until then is heard as before.
        ended = {profile: name for profile, name in self._named.items() if profile not in named}
        if self._started:
            await self._add_topics(named)
        self._named, self._topics = named, ended | named
        if self._started:
            await self._retire_topics()

    async def _add_topics(self, named: Mapping[str, str | None], left: Sequence[str] = ()) -> None:
        for name in sorted({*filter(None, named.values()), *left} - self._workers.keys()):
            await self._add(name, self._topic(name))

    async def _retire_topics(self) -> None:
        idle = [name for name in self._workers if name.startswith(TOPIC) and name not in self._topics.values()]
        if not idle:
            return
        # The writer is asked: what was routed to them until now is stored before it answers.
        busy = await self._store.write(lambda con: outbox.awaited(con, TOPIC))
        for name in idle:
            if name not in busy:
                self._retire(name)

    async def _exchange_topics(self) -> None:
        for name in [name for name in self._workers if name.startswith(TOPIC)]:
            await self._exchange(name, self._topic(name))

    def _topic(self, name: str) -> Notifier:
        options = Topic(name, name.removeprefix(TOPIC))
        return build_all(Receivers(topics=(options,)), self._tools)[name]

    def route(self, transition: Transition) -> Sequence[str]:
        """Who hears of a transition: every receiver of the configuration, and the topic of its profile (design.md §5).

        The end of an alarm is offered to all; the store keeps it to those who were told of the beginning.
        """
        if transition.event_type != "in-alarm":
            return tuple(self._workers)
        topic = self._topics.get(transition.profile)
        return tuple(name for name in self._workers if not name.startswith(TOPIC) or name == topic)

    def _offer(self, notices: Sequence[Notice]) -> None:
        by_receiver: dict[str, list[Notice]] = {}
        for notice in notices:
            by_receiver.setdefault(notice.receiver, []).append(notice)
        for name, fresh in by_receiver.items():
            if (worker := self._workers.get(name)) is not None:
                worker.offer(fresh)

    async def _add(self, name: str, notifier: Notifier) -> None:
        if name in self._leaving:
            await self._leaving[name]
        now_ns = self._now_ns()
        await self._store.write(lambda con: outbox.adopt(con, name, now_ns - NEWS_NS, now_ns))
        digest, why = (await self._store.read(outbox.disabled)).get(name, ("", ""))
        worker = Courier(name, notifier, self._store, self._clock, self._offset_ns, self._flights_max, self._tell)
        self.stats[name] = worker.stats = self.stats.get(name, Stats())
        self._workers[name] = worker
        if digest and digest == notifier.identity:
            worker.disabled = why
        elif digest:
            await worker.enable()
        worker.start()

    async def _exchange(self, name: str, notifier: Notifier) -> None:
        worker = self._workers[name]
        worker.notifier = notifier
        if worker.disabled:
            await worker.enable()

    def _retire(self, name: str) -> None:
        worker = self._workers.pop(name)
        self._leaving[name] = asyncio.get_running_loop().create_task(self._bury(name, worker), name=f"retire-{name}")

    async def _bury(self, name: str, worker: Courier) -> None:
        try:
            await worker.stop()
            await self._orphan(also=name)
            if name.startswith(TOPIC):  # there is no end to the topics that profiles may have named
                self.stats.pop(name, None)
        finally:
            del self._leaving[name]

    async def _orphan(self, also: str | None = None) -> None:
        kept = [name for name in (*self._workers, *self._leaving) if name != also]
        now_ns = self._now_ns()
        with contextlib.suppress(StoreClosed):
            await self._store.write(lambda con: outbox.orphan(con, kept, now_ns))

    async def stop(self, deadline_s: float = 10.0) -> bool:
        """Send nothing new, finish what is in flight; False where `deadline_s` was not enough, and it was cut
        off. The rest stays in the outbox.
        """
        self._store.on_notices = lambda _: None
        workers = list(self._workers.values())
        ends = [asyncio.create_task(worker.stop()) for worker in workers] + list(self._leaving.values())
        late = (await asyncio.wait(ends, timeout=deadline_s))[1] if ends else set()
        for worker in workers:
            worker.cut_off()
        for end in late:
            end.cancel()
        await asyncio.gather(*ends, *(worker.stop() for worker in workers), return_exceptions=True)
        return not late

    async def enable(self, name: str) -> bool:
        """Try a disabled receiver again; False where it is not disabled, or not there."""
        worker = self._workers.get(name)
        return worker is not None and bool(worker.disabled) and await worker.enable()

    async def resend(self, ids: Sequence[int]) -> list[Notice]:
        """Queue rows of the outbox again; those that could be. Fresh ids, the same webhook ids."""
        return await self._store.outbox_resend(ids)

    async def drop(self, ids: Sequence[int]) -> list[int]:
        """Never send these rows, unless they are just being sent; the ids of those that could be dropped."""
        dropped = await self._store.outbox_drop(ids)
        for worker in self._workers.values():
            worker.lanes.forget(dropped)
        return dropped

    def rescan(self) -> None:
        """Look into the outbox now: another process changed it."""
        for worker in self._workers.values():
            worker.rescan()

    def status(self) -> list[Status]:
        return [worker.status() for worker in self._workers.values()]

    async def backlogs(self) -> dict[str, outbox.Backlog]:
        """Depth and oldest age, by receiver, removed ones included."""
        return await self._store.backlogs()

    def _tell(self, news: News) -> None:
        self.recent.append(news)
        self._on_news(news)

    def _now_ns(self) -> int:
        return self._clock.monotonic_ns() + self._offset_ns


def _topic_of(targets: Mapping[str, AlertTarget]) -> str | None:
    sns = targets.get("SNS")
    return TOPIC + sns.alert_target_arn if sns else None
