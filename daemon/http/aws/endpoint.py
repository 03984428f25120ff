"""Answers requests to AWS IoT's API: who asks, what for, is it well-formed, and what the handler says.

Authentication comes first, so that a stranger learns nothing of what there is. Whatever goes wrong is an error as AWS
writes it: `x-amzn-ErrorType` and {"message"}; never a page, never a stack trace.
"""

import asyncio
import itertools
import threading
from collections.abc import Mapping
from typing import Any, Final, Protocol
from uuid import uuid4

import msgspec
import structlog
from aiohttp import web

from daemon.control.plane import Call, ControlPlane
from daemon.control.refusal import InvalidRequestException, Refusal, ServiceUnavailableException
from daemon.http import guards
from daemon.http.access import Denied, Role
from daemon.http.aws import model, paging, request, route
from daemon.http.aws.members import Fault
from daemon.http.aws.operations import Handler, handler_of, handlers
from daemon.store.writer import StoreClosed

READS: Final = ("Get", "List", "Describe", "Validate", "Search")
OPERATES: Final = frozenset(
    {
        "PutVerificationStateOnViolation",
        "StartDetectMitigationActionsTask",
        "CancelDetectMitigationActionsTask",
    }
)
UNKNOWN: Final = "UnknownOperationException"
PREPARING: Final = threading.Lock()
"""The service model is loaded once, whoever asks first."""
RUN: Final = str(uuid4())[:24]
REQUESTS: Final = itertools.count()
"""Together the ids of requests, in the form of a UUID: the system is asked for chance once, not at every answer."""

log = structlog.get_logger(__name__)


class Meter(Protocol):
    def called(self, operation: str, code: str) -> None:
        """A request was answered; `code` is "ok" or the error's."""
        ...


class Endpoint:
    """One per daemon. `plane` is what the handlers work on."""

    def __init__(self, plane: ControlPlane, meter: Meter) -> None:
        self._plane, self._meter = plane, meter
        self._tree: route.Node | None = None

    def prepare(self) -> route.Node:
        """Load the service model and the handlers: call it in a thread, or the first requests wait for it."""
        with PREPARING:
            if self._tree is None:
                handlers()
                self._tree = route.tree(model.load().values())
            return self._tree

    async def _prepared(self) -> route.Node:
        if self._tree is None:
            return await asyncio.to_thread(self.prepare)
        return self._tree

    async def answer(self, asked: web.Request) -> web.Response:
        name = "unknown"
        try:
            path, _, query = asked.raw_path.partition("?")
            found = route.find(await self._prepared(), asked.method, path)
            if found is None:
                await guards.admitted(asked, "read")
                return self._error(name, 404, UNKNOWN, "AWS IoT has no such operation")
            operation, labels = found
            name = operation.name
            actor = await guards.admitted(asked, need_of(name))
            handler = _handler(name)
            given = request.parameters(operation, labels, query, asked.headers, await guards.body(asked))
            answer = await handler(Call(self._plane, name, paging.opened(name, given), actor))
            response = _json(operation.status, operation.write(paging.sealed(name, answer)))
        except Exception as problem:  # noqa: BLE001  # isolation boundary: one request's bug is not the daemon's end
            return self._refusal(name, problem)
        self._meter.called(name, "ok")
        return response

    def _refusal(self, name: str, problem: Exception) -> web.Response:
        said = _said(problem)
        if said is None:
            log.error("api.failed", operation=name, exc_info=problem)
            said = 500, "InternalFailureException", "internal error; the daemon's log has the details"
        members = problem.members if isinstance(problem, Refusal) else None
        return self._error(name, *said, members)

    def _error(
        self, name: str, status: int, code: str, message: str, members: Mapping[str, str] | None = None
    ) -> web.Response:
        self._meter.called(name, code)
        answer = _json(status, {"message": message, **(members or {})})
        answer.headers["x-amzn-ErrorType"] = code
        return answer


def add(app: web.Application, endpoint: Endpoint) -> None:
    """Give `app` the API: every path that nothing else has. Call it after all others."""
    app.router.add_route("*", r"/{path:[\s\S]*}", endpoint.answer)  # line breaks, too


def need_of(operation: str) -> Role:
    """The role that an operation of the model needs."""
    if operation in OPERATES:
        return "operate"
    return "read" if operation.startswith(READS) else "admin"


def _said(problem: Exception) -> tuple[int, str, str] | None:
    """Status, code and message of what can go wrong; None: a bug of ours."""
    bad = InvalidRequestException.__name__
    match problem:
        case Denied():
            said = problem.status, problem.code, problem.message
        case Refusal():
            said = model.status_of(problem.code) or 400, problem.code, problem.message
        case Fault():
            said = 400, bad, str(problem)
        case web.HTTPRequestEntityTooLarge():
            said = 400, bad, f"the body is longer than {guards.BODY_BYTES_MAX} bytes"
        case web.RequestPayloadError() | ConnectionResetError():
            said = 400, bad, "the body can't be read to its end"
        case web.HTTPException():
            said = problem.status, bad, problem.reason
        case StoreClosed() | TimeoutError():
            said = 503, ServiceUnavailableException.__name__, "the store does not take this now; it may do it yet"
        case _:
            return None
    return said


def _handler(operation: str) -> Handler:
    handler = handler_of(operation)
    if handler is None:
        raise InvalidRequestException(f"{operation} is not implemented by detectd")
    return handler


def _json(status: int, body: Mapping[str, Any]) -> web.Response:
    headers = {"x-amzn-RequestId": f"{RUN}{next(REQUESTS):012x}"}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)
