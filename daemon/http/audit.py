"""The audit trail to administrators: who changed what (`detectd audit`)."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import msgspec
from aiohttp import web

from daemon.control import audit
from daemon.control.audit import Con
from daemon.http import guards

T = TypeVar("T")
LIMIT_MAX: Final = 1000


class Trail(Protocol):
    """What the endpoint needs of the daemon: questions to its tables (`ControlPlane`)."""

    def read(self, run: Callable[[Con], T]) -> Awaitable[T]: ...


TRAIL: Final[web.AppKey[Trail]] = web.AppKey("trail")


def add(app: web.Application, trail: Trail) -> None:
    """Give `app` the endpoint, answered from `trail`."""
    app[TRAIL] = trail
    app.router.add_get("/-/audit", listing)


@guards.needs("admin")
async def listing(request: web.Request) -> web.Response:
    """`?since_ns=…`, `?before=ID` for the next page, `?limit=`; newest first. Role `admin`."""
    since, before = guards.number(request, "since_ns", 0), guards.number(request, "before", 2**62)
    size = min(guards.number(request, "limit", 250), LIMIT_MAX)
    rows = await request.app[TRAIL].read(lambda con: audit.entries(con, since, size, before))
    return web.Response(body=msgspec.json.encode({"audit": rows}), content_type="application/json")
