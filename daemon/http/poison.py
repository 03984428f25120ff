"""Entries that were set aside: shown, tried again, forgotten (`detectd poison`)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from aiohttp import web

from daemon.http import guards


class Keeper(Protocol):
    """What the endpoints need of the daemon."""

    async def poisoned(self) -> Sequence[dict[str, Any]]:
        """What was set aside, oldest first."""
        ...

    async def retry(self, actor: str, position: int) -> bool:
        """Put it into the log again, for this actor only; False where it is not there."""
        ...

    async def drop(self, actor: str, position: int) -> bool:
        """Forget it; False where it is not there."""
        ...


KEEPER: Final[web.AppKey[Keeper]] = web.AppKey("keeper")


def add(app: web.Application, keeper: Keeper) -> None:
    """Give `app` the endpoints, answered from `keeper`."""
    app[KEEPER] = keeper
    app.router.add_get("/-/poison", listing)
    app.router.add_post("/-/poison/retry", retry)
    app.router.add_post("/-/poison/drop", drop)


@guards.needs("read")
async def listing(request: web.Request) -> web.Response:
    """Role `read`."""
    return web.json_response({"poison": list(await request.app[KEEPER].poisoned())})


@guards.needs("operate")
async def retry(request: web.Request) -> web.Response:
    """`?actor=…&position=…`. Role `operate`."""
    return await _act(request, "retry", request.app[KEEPER].retry)


@guards.needs("admin")
async def drop(request: web.Request) -> web.Response:
    """`?actor=…&position=…`. Role `admin`: a report is lost by it."""
    return await _act(request, "drop", request.app[KEEPER].drop)


async def _act(request: web.Request, name: str, do: Callable[[str, int], Awaitable[bool]]) -> web.Response:
    actor, position = request.query.get("actor", ""), guards.number(request, "position")
    if not await do(actor, position):
        return guards.error(404, f"nothing was set aside for actor {actor!r} at position {position}")
    return web.json_response({"done": name})
