"""What a request must be before any handler sees it: from whom, from where, and no longer than it may be.

On an open loopback listener the browser of whoever sits at the machine is the way in: a page from anywhere may send
requests to 127.0.0.1, or give itself a name that resolves to it. So the Host must be a loopback name, the Origin ours,
and the request not cross-site (design.md §5). With access keys the signature covers all that, and the rule is off.
"""

import asyncio
import functools
import ipaddress
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict, CIMultiDictProxy

from config.address import parse_address
from daemon.control.audit import Actor
from daemon.http.access import Access, Denied, Role
from daemon.http.connections import Busy

BODY_BYTES_MAX: Final = 1024 * 1024
BODY_S: Final = 30.0

ACCESS: Final[web.AppKey[Access]] = web.AppKey("access", Access)

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


class Starting(web.HTTPServiceUnavailable):
    """What was asked for can't be done yet."""

    def __init__(self) -> None:
        text = "the daemon is still starting; ask again when it is ready"
        super().__init__(text=text, headers={"Retry-After": "1"})


class Meter(Protocol):
    """What the guards count; daemon/telemetry.py has the numbers."""

    def answered(self, status: int) -> None: ...
    def refused(self, reason: str) -> None:
        """`reason` is one of: host, origin, cross-site, too-large; connections, address, slow (http/connections.py)."""
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


def guarded(access: Access, meter: Meter) -> Middleware:
    """The outermost middleware: refusals, the bound on time, and a JSON answer for whatever goes wrong inside."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        with Busy(request):
            response = await _answer(request, handler, access, meter)
            _dress(response)
        meter.answered(response.status)
        return response

    return guard


def needs(role: Role, *, basic: bool = False) -> Callable[[Handler], Handler]:
    """A handler behind this answers only who has this role (`daemon/http/access.py`). `basic`: HTTP Basic will do."""

    def behind(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def admitting(request: web.Request) -> web.StreamResponse:
            await admitted(request, role, basic=basic)
            return await handler(request)

        return admitting

    return behind


async def admitted(request: web.Request, role: Role, *, basic: bool = False) -> Actor:
    """Who asks, where they have this role.

    Raises:
        Denied: they have not, or it is not known who they are.
        HTTPRequestEntityTooLarge, HTTPRequestTimeout: as `body`.
    """
    access, whence = request.app[ACCESS], address(request)
    if basic and request.headers.get("Authorization", "").lower().startswith("basic "):
        return access.admit_basic(request.headers, whence, role)
    access.refuse_unread(request.method, request.raw_path, request.headers, whence)
    return access.admit(request.method, request.raw_path, request.headers, await body(request), whence, role)


def address(request: web.Request) -> str:
    """Whose request it is: the other end of the connection; behind a proxy, who the proxy says that it was.

    Only the last entry of X-Forwarded-For is the proxy's own word; those before it are whatever the client wrote.
    """
    peer = request.remote or ""
    if not request.app[ACCESS].behind_proxy:
        return peer
    last = ",".join(request.headers.getall("X-Forwarded-For", ())).rpartition(",")[2].strip()
    with_port = parse_address(last)  # some proxies write it
    try:
        return str(ipaddress.ip_address(with_port.host if with_port else last.strip("[]")))
    except ValueError:
        return peer


async def body(request: web.Request) -> bytes:
    """The request's body.

    Raises:
        HTTPRequestEntityTooLarge: longer than BODY_BYTES_MAX.
        HTTPRequestTimeout: it took longer than BODY_S to arrive.
    """
    if not request.body_exists:
        return b""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body took too long to arrive") from None


def number(request: web.Request, name: str, default: int | None = None) -> int:
    """A number of the query that fits the store's columns. Raises HTTPBadRequest."""
    text = request.query.get(name, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 2**63):
        raise web.HTTPBadRequest(text=f"`{name}` must be a whole number, from 0 to {2**63 - 1}")
    return int(text)


def error(status: int, message: str, problems: Sequence[str] = ()) -> web.Response:
    """A refusal in JSON: {"message": …} and, where there are several, {"problems": […]}."""
    return web.json_response({"message": message, **({"problems": list(problems)} if problems else {})}, status=status)


async def _answer(request: web.Request, handler: Handler, access: Access, meter: Meter) -> web.StreamResponse:
    if access.is_open and (why := refusal(request.headers)) is not None:
        meter.refused(why[0])
        return error(403, why[1])
    try:
        return await handler(request)
    except Denied as problem:
        return _denied(problem)
    except web.HTTPRequestEntityTooLarge:
        meter.refused("too-large")
        return error(413, f"the body is longer than {BODY_BYTES_MAX} bytes")
    except web.HTTPException as problem:
        return _in_json(problem)
    except Exception:  # isolation boundary: one request's bug is not the daemon's end, nor the client's to read
        log.exception("http.failed", method=request.method, path=request.path[:200])
        return error(500, "internal error; the daemon's log has the details")


def _dress(response: web.StreamResponse) -> None:
    """Give it the security headers that it does not set itself."""
    headers = response.headers
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)


def _denied(problem: Denied) -> web.Response:
    answer = error(problem.status, problem.message)
    answer.headers["x-amzn-ErrorType"] = problem.code
    if problem.status == 401:  # HTTP wants to hear which scheme would do
        answer.headers["WWW-Authenticate"] = 'Basic realm="detectd"'
    return answer


def _in_json(problem: web.HTTPException) -> web.Response:
    text = problem.text or problem.reason
    answer = error(problem.status, text.removeprefix(f"{problem.status}: "))
    for name in ("Allow", "Location", "Retry-After"):
        if name in problem.headers:
            answer.headers[name] = problem.headers[name]
    return answer


def _is_own(origin: str, headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> bool:
    # The very same host and port: another program's page on this machine is a stranger too.
    try:
        url = urlsplit(origin)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and url.netloc == headers.get("Host")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@functools.lru_cache(maxsize=64)
def _is_loopback(name: str) -> bool:
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # never asked of DNS (RFC 6761 §6.3)
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
