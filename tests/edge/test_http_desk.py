"""What operators decide on over HTTP: numbers that are none, rows that are not there, and too early a question."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from open_server import opened

from actors.delivery import State
from daemon.http import guards, outbox, poison
from daemon.store.outbox import Row
from daemon.telemetry import Telemetry


@dataclass
class Desk:
    """A daemon that has nothing, or is still starting."""

    is_started: bool = True
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def _act(self, *what: Any) -> bool:
        if not self.is_started:
            raise guards.Starting
        self.asked.append(what)
        return False

    async def poisoned(self) -> Sequence[dict[str, Any]]:
        return []

    async def retry(self, actor: str, position: int) -> bool:
        return self._act("retry", actor, position)

    async def drop(self, actor: str, position: int) -> bool:
        return self._act("drop", actor, position)

    async def outbox_rows(self, states: Sequence[State], before_id: int, limit: int) -> Sequence[Row]:
        self._act(tuple(states), before_id, limit)
        return []

    async def outbox_resend(self, row: int) -> bool:
        return self._act("resend", row)

    async def outbox_drop(self, row: int) -> bool:
        return self._act("drop", row)


def serving(desk: Desk) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    def add(app: web.Application) -> None:
        poison.add(app, desk)
        outbox.add(app, desk)

    return opened(add, Telemetry())


ACTS = ["poison/retry?actor=a&position=", "poison/drop?actor=a&position=", "outbox/resend?id=", "outbox/drop?id="]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("wrong", ["", "x", "-1", "1.5", "\u0663", str(2**63), "9" * 5000])
async def test_a_number_that_is_none_of_the_stores_is_refused_by_name(act: str, wrong: str) -> None:
    desk = Desk()
    async with serving(desk) as session, session.post(f"/-/{act}{wrong}") as answer:
        name = act.rpartition("=")[0].replace("&", "?").rpartition("?")[2]
        assert (answer.status, (await answer.json())["message"]) == (
            400,
            f"`{name}` must be a whole number, from 0 to {2**63 - 1}",
        )
    assert not desk.asked


@pytest.mark.parametrize("act", ACTS)
async def test_what_is_not_there_is_a_404(act: str) -> None:
    desk = Desk()
    async with serving(desk) as session, session.post(f"/-/{act}{2**63 - 1}") as answer:
        assert answer.status == 404
    assert [what[-1] for what in desk.asked] == [2**63 - 1]


@pytest.mark.parametrize("act", ACTS)
async def test_while_the_daemon_starts_nothing_can_be_done_yet(act: str) -> None:
    async with serving(Desk(is_started=False)) as session, session.post(f"/-/{act}1") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "still starting" in (await answer.json())["message"]


@pytest.mark.parametrize("query", ["before=x", f"before={2**64}", f"limit={2**63}", "state=nonsense"])
async def test_a_listing_says_what_is_wrong_with_its_query(query: str) -> None:
    desk = Desk()
    async with serving(desk) as session, session.get(f"/-/outbox?{query}") as answer:
        assert answer.status == 400
        assert f"`{query.partition('=')[0]}` must be" in (await answer.json())["message"]
    assert not desk.asked


async def test_a_page_is_bounded() -> None:
    desk = Desk()
    async with serving(desk) as session, session.get(f"/-/outbox?limit={10**9}&state=dead&before=7") as answer:
        assert (answer.status, await answer.json()) == (200, {"outbox": []})
    assert desk.asked == [((State.DEAD,), 7, outbox.LIMIT_MAX)]
