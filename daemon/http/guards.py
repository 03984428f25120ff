"""What a request must be, and how long a connection may dawdle, before any handler sees it.

On an open loopback listener the browser of whoever sits at the machine is the way in: a page from anywhere may send
requests to 127.0.0.1, or give itself a name that resolves to it. So the Host must be a loopback name, the Origin ours,
and the request not cross-site (design.md §5). With access keys the signature covers all that, and the rule is off.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict, CIMultiDictProxy

BODY_BYTES_MAX: Final = 1024 * 1024
HEAD_S: Final = 10.0  # from the first byte (or the connection) to the end of the headers
IDLE_S: Final = 75.0  # between requests; also the longest wait for a client that doesn't read its answer
BODY_S: Final = 30.0
CONNECTIONS_MAX: Final = 512

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Server": "detectd",
}

log = structlog.get_logger(__name__)


class Meter(Protocol):
    """What the guards count; daemon/telemetry.py has the numbers."""

    def answered(self, status: int) -> None: ...
    def refused(self, reason: str) -> None:
        """`reason` is one of: host, origin, cross-site, connections, slow, too-large."""
        ...


def refusal(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> tuple[str, str] | None:
    """Why an open loopback listener refuses a request: (reason, message), or None for one that may pass.

    A request without Host, Origin and Sec-Fetch-Site comes from no browser, and passes.
    """
    for host in headers.getall("Host", ()):
        if not _is_loopback(_hostname(f"//{host}")):
            return "host", f"the Host {host!r} is not a loopback name: use http://127.0.0.1 or http://localhost"
    for origin in headers.getall("Origin", ()):
        if not _is_own(origin, headers):
            return "origin", f"requests from pages of {origin!r} are not answered"
    if any(site.strip().lower() == "cross-site" for site in headers.getall("Sec-Fetch-Site", ())):
        return "cross-site", "requests from other sites' pages are not answered"
    return None


def guarded(open_loopback: bool, meter: Meter) -> Middleware:
    """The outermost middleware: refusals, the bound on time, and a JSON answer for whatever goes wrong inside."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        with _Busy(request):
            response = await _answer(request, handler, open_loopback, meter)
        meter.answered(response.status)
        return response

    return guard


async def dress(_request: web.Request, response: web.StreamResponse) -> None:
    """Give every response the security headers that it does not set itself (`on_response_prepare`)."""
    for name, value in SECURITY_HEADERS.items():
        if name == "Server" or name not in response.headers:
            response.headers[name] = value


async def body(request: web.Request) -> bytes:
    """The request's body.

    Raises:
        HTTPRequestEntityTooLarge: longer than BODY_BYTES_MAX.
        HTTPRequestTimeout: it took longer than BODY_S to arrive.
    """
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body took too long to arrive") from None


def error(status: int, message: str, problems: Sequence[str] = ()) -> web.Response:
    """A refusal in JSON: {"message": …} and, where there are several, {"problems": […]}."""
    return web.json_response({"message": message, **({"problems": list(problems)} if problems else {})}, status=status)


class Connections:
    """Makes the protocol of each connection, at most CONNECTIONS_MAX at a time, and ends those that dawdle.

    aiohttp bounds the time between requests, not the time in which a request's headers may drip in.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        meter: Meter,
        *,
        most: int = CONNECTIONS_MAX,
        head_s: float = HEAD_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self.open: dict[asyncio.BaseTransport, Connection] = {}
        self.make, self.meter = make, meter
        self.most, self.head_s, self.idle_s = most, head_s, idle_s

    def __call__(self) -> "Connection":
        return Connection(self)


class Connection(asyncio.Protocol):
    """Stands before aiohttp's own protocol and keeps the time: waiting for a request, busy with one, or idle."""

    def __init__(self, all_of_them: Connections) -> None:
        self._all = all_of_them
        self._inner = all_of_them.make()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.BaseTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._turned_away = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._all.open) >= self._all.most:
            self._turned_away = True
            self._all.meter.refused("connections")
            _abort(transport)
            return
        self._transport = transport
        self._all.open[transport] = self
        self._allow(self._all.head_s)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._idle:  # the first bytes of the next request
            self._idle = False
            self._allow(self._all.head_s)
        if not self._turned_away:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._turned_away else self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, problem: Exception | None) -> None:
        self._stop_timer()
        if self._transport is not None:
            del self._all.open[self._transport]
            self._inner.connection_lost(problem)

    def busy(self) -> None:
        """A request's headers are complete and its handler runs: how long that takes is the handler's affair."""
        self._idle = False
        self._stop_timer()

    def idle(self) -> None:
        """The handler is done: the client reads its answer and may send the next request."""
        self._idle = True
        self._allow(self._all.idle_s)

    def _allow(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if not self._idle:
            self._all.meter.refused("slow")
        if self._transport is not None:
            _abort(self._transport)


CONNECTIONS: Final[web.AppKey[Connections]] = web.AppKey("connections", Connections)


class _Busy:
    """Tells the connection of a request that it is busy, for as long as the block lasts."""

    def __init__(self, request: web.Request) -> None:
        connections = request.app.get(CONNECTIONS)
        transport = request.transport
        self._connection = connections.open.get(transport) if connections and transport else None

    def __enter__(self) -> None:
        if self._connection is not None:
            self._connection.busy()

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.idle()


async def _answer(request: web.Request, handler: Handler, open_loopback: bool, meter: Meter) -> web.StreamResponse:
    if open_loopback and (why := refusal(request.headers)) is not None:
        meter.refused(why[0])
        return error(403, why[1])
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        meter.refused("too-large")
        return error(413, f"the body is longer than {BODY_BYTES_MAX} bytes")
    except web.HTTPException as problem:
        return _in_json(problem)
    except Exception:  # isolation boundary: one request's bug is not the daemon's end, nor the client's to read
        log.exception("http.failed", method=request.method, path=request.path[:200])
        return error(500, "internal error; the daemon's log has the details")


def _in_json(problem: web.HTTPException) -> web.Response:
    text = problem.text or problem.reason
    answer = error(problem.status, text.removeprefix(f"{problem.status}: "))
    for name in ("Allow", "Location", "Retry-After"):
        if name in problem.headers:
            answer.headers[name] = problem.headers[name]
    return answer


def _is_own(origin: str, headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> bool:
    # The very same host and port: another program's page on this machine is a stranger too.
    return urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc == headers.get("Host")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):  # never asked of DNS (RFC 6761 §6.3)
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _abort(transport: asyncio.BaseTransport) -> None:
    # Every stream transport can abort; the type that a protocol is promised does not say so.
    cast("asyncio.WriteTransport", transport).abort()
