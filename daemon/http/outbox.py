"""The outbox to operators: what waits, what died, and another try (`detectd outbox`)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from aiohttp import web

from actors.delivery import State
from daemon.http import guards
from daemon.store.outbox import Row

LIMIT_MAX: Final = 1000


class Outbox(Protocol):
    """What the endpoints need of the daemon."""

    async def outbox_rows(self, states: Sequence[State], before_id: int, limit: int) -> Sequence[Row]:
        """Newest first."""
        ...

    async def outbox_resend(self, row: int) -> bool:
        """Queue it again under its own webhook id; False where that can't be."""
        ...

    async def outbox_drop(self, row: int) -> bool:
        """Never send it; False where it is not waiting."""
        ...


OUTBOX: Final[web.AppKey[Outbox]] = web.AppKey("outbox")


def add(app: web.Application, outbox: Outbox) -> None:
    """Give `app` the endpoints, answered from `outbox`."""
    app[OUTBOX] = outbox
    app.router.add_get("/-/outbox", listing)
    app.router.add_post("/-/outbox/resend", resend)
    app.router.add_post("/-/outbox/drop", drop)


@guards.needs("read")
async def listing(request: web.Request) -> web.Response:
    """`?state=queued|dead|…`, `?before=ID` for the next page, `?limit=`. Role `read`."""
    named = request.query.get("state", "")
    if named and named not in set(State):
        return guards.error(400, f"`state` must be one of {', '.join(State)}")
    states = (State(named),) if named else (State.QUEUED, State.DEAD, State.ORPHANED)
    before, limit = guards.number(request, "before", 2**62), guards.number(request, "limit", 250)
    rows = await request.app[OUTBOX].outbox_rows(states, before, min(limit, LIMIT_MAX))
    return web.json_response({"outbox": [_shown(row) for row in rows]})


@guards.needs("operate")
async def resend(request: web.Request) -> web.Response:
    """`?id=…`. Role `operate`."""
    return await _act(request, "resend", request.app[OUTBOX].outbox_resend)


@guards.needs("admin")
async def drop(request: web.Request) -> web.Response:
    """`?id=…`. Role `admin`: nobody will be told."""
    return await _act(request, "drop", request.app[OUTBOX].outbox_drop)


async def _act(request: web.Request, name: str, do: Callable[[int], Awaitable[bool]]) -> web.Response:
    row = guards.number(request, "id")
    if not await do(row):
        return guards.error(404, f"row {row} is not there, or not in a state in which that can be done")
    return web.json_response({"done": name})


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state.value,
        "receiver": row.receiver,
        "thing": row.thing,
        "event": row.event_type,
        "webhook_id": row.webhook_id,
        "attempts": row.attempts,
        "created": row.created_ns / 1e9,
        "why": row.why,
    }
