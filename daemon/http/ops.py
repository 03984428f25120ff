"""The endpoints that operators and their machines ask: alive, ready, numbers, status, reload (design.md §5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

import msgspec
from aiohttp import web

from daemon.http import guards


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A configuration was accepted; `changed` is False where it says the same as the one before."""

    generation: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The operator's fault: each problem as `file:line:column: path: message`. Nothing has changed."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Ours, or the machine's: the configuration was good but could not be put in force. Nothing has changed."""

    message: str


Answer = Reloaded | Refused | Failed


class Daemon(Protocol):
    """What the endpoints need of the daemon. All but `reload` answer from memory, at once."""

    def unready(self) -> Sequence[str]:
        """Why the daemon can't do its work now, in words; empty: it can."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Positions, actors, generation, storage, brokers …: JSON, no secrets."""
        ...

    def metrics(self) -> bytes: ...

    async def reload(self) -> Answer: ...


DAEMON: Final[web.AppKey[Daemon]] = web.AppKey("daemon")


def add(app: web.Application, daemon: Daemon) -> None:
    """Give `app` the endpoints, answered from `daemon`."""
    app[DAEMON] = daemon
    for path in ("/-/healthy", "/healthz"):
        app.router.add_get(path, healthy)
    for path in ("/-/ready", "/readyz"):
        app.router.add_get(path, ready)
    app.router.add_get("/-/status", status)
    app.router.add_get("/metrics", metrics)
    app.router.add_post("/-/reload", reload)


async def healthy(_request: web.Request) -> web.Response:
    """200 as long as the loop turns: whoever gets no answer should restart us. Open to everyone."""
    return web.json_response({"healthy": True})


async def ready(request: web.Request) -> web.Response:
    """200, or 503: configuration in force, state restored, log readable, nothing lost or full.

    Open to everyone; the reasons are for who has the role `read`.
    """
    reasons = list(request.app[DAEMON].unready())
    shown = reasons if await _may_read(request) else []
    answer: dict[str, Any] = {"ready": not reasons, **({"reasons": shown} if shown else {})}
    return web.json_response(answer, status=503 if reasons else 200)


async def _may_read(request: web.Request) -> bool:
    """A load balancer signs nothing, and hears one word; credentials that are shown must be good."""
    if request.app[guards.ACCESS].is_open:
        return True
    return "Authorization" in request.headers and bool(await guards.admitted(request, "read"))


@guards.needs("read")
async def status(request: web.Request) -> web.Response:
    """Role `read`."""
    body = msgspec.json.encode(request.app[DAEMON].status())
    return web.Response(body=body, content_type="application/json")


@guards.needs("read", basic=True)
async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text format, whatever the scraper would rather have. Role `read`, by HTTP Basic too."""
    # The version belongs to the content type, which aiohttp's argument for it would not let through.
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=request.app[DAEMON].metrics(), headers=headers)


@guards.needs("admin")
async def reload(request: web.Request) -> web.Response:
    """200 in force, 400 refused with every problem's place, 500 could not be put in force. Role `admin`."""
    answer = await request.app[DAEMON].reload()
    match answer:
        case Reloaded(generation, changed):
            return web.json_response({"generation": generation, "changed": changed})
        case Refused(problems):
            return guards.error(400, "the configuration is not valid; the old one stays in force", problems)
        case Failed(message):
            return guards.error(500, f"{message}; the old configuration stays in force")
        case _:
            assert_never(answer)
