"""Answers requests to AWS IoT's API: who asks, what for, is it well-formed, and what the handler says.

Authentication comes first, so that a stranger learns nothing of what there is. Whatever goes wrong is an error as AWS
writes it: `x-amzn-ErrorType` and {"message"}; never a page, never a stack trace.
"""

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Protocol
from uuid import uuid4

import msgspec
import structlog
from aiohttp import web

from daemon.access import Denied, Role
from daemon.control import audit
from daemon.control.plane import Call, ControlPlane
from daemon.control.refusal import InvalidRequestException, Refusal, ServiceUnavailableException
from daemon.http import guards
from daemon.http.aws import model, request, route
from daemon.http.aws.members import Fault
from daemon.http.aws.model import Operation
from daemon.http.aws.operations import Handler, handler_of
from daemon.writer import StoreClosed

ANSWER_S: Final = 30.0  # then the storage is not taking writes
READS: Final = ("Get", "List", "Describe", "Validate", "Search")
OPERATES: Final = frozenset(
    {
        "PutVerificationStateOnViolation",
        "StartDetectMitigationActionsTask",
        "CancelDetectMitigationActionsTask",
    }
)
UNKNOWN: Final = "UnknownOperationException"

log = structlog.get_logger(__name__)


class Access(Protocol):
    """Who may do what (daemon/access.py)."""

    def admit(self, method: str, raw_path: str, headers: Any, body: bytes, address: str, need: Role) -> audit.Actor:
        """Who asks, where they may. `raw_path` has the query.

        Raises:
            Denied: they may not.
        """
        ...

    def refuse_unread(self, method: str, raw_path: str, headers: Any, address: str) -> None:
        """Turn away, before the body is read, who shows no credentials that could be looked at. Raises as `admit`."""
        ...


class Meter(Protocol):
    def called(self, operation: str, code: str) -> None:
        """A request was answered; `code` is "ok" or the error's."""
        ...


class Endpoint:
    """One per daemon. `plane` is what the handlers work on."""

    def __init__(self, plane: ControlPlane, access: Access, meter: Meter) -> None:
        self._plane, self._access, self._meter = plane, access, meter

    @cached_property
    def _tree(self) -> route.Node:
        return route.tree(model.load().values())

    def prepare(self) -> None:
        """Load the service model: call it in a thread, or the first request waits for it."""
        _ = self._tree

    async def answer(self, asked: web.Request) -> web.Response:
        name = "unknown"
        try:
            whence = guards.address(asked)
            self._access.refuse_unread(asked.method, asked.raw_path, asked.headers, whence)
            body = await guards.body(asked)
            path, _, query = asked.raw_path.partition("?")
            found = route.find(self._tree, asked.method, path)
            if found is not None:
                name = found[0].name
            actor = self._admit(asked, body, found[0] if found else None)
            if found is None:
                return self._error(name, 404, UNKNOWN, "AWS IoT has no such operation")
            operation, labels = found
            params = request.parameters(operation, labels, query, asked.headers, body)
            answer = await _handled(self._plane, operation, params, actor)
        except Exception as problem:  # noqa: BLE001  # isolation boundary: one request's bug is not the daemon's end
            return self._refusal(name, problem)
        self._meter.called(name, "ok")
        return _json(operation.status, answer)

    def _admit(self, asked: web.Request, body: bytes, operation: Operation | None) -> audit.Actor:
        need = need_of(operation.name) if operation else "read"
        return self._access.admit(asked.method, asked.raw_path, asked.headers, body, guards.address(asked), need)

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
    app.router.add_route("*", "/{path:.*}", endpoint.answer)


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
        case web.HTTPException():
            said = problem.status, bad, problem.reason
        case StoreClosed() | TimeoutError():
            said = 503, ServiceUnavailableException.__name__, "the store does not take this now; it may do it yet"
        case _:
            return None
    return said


async def _handled(
    plane: ControlPlane, operation: Operation, params: Mapping[str, Any], actor: audit.Actor
) -> dict[str, Any]:
    handler: Handler | None = handler_of(operation.name)
    if handler is None:
        raise InvalidRequestException(f"{operation.name} is not implemented by detectd")
    async with asyncio.timeout(ANSWER_S):
        answer = await handler(Call(plane, operation.name, params, actor))
    written: dict[str, Any] = operation.write(answer)
    return written


def _json(status: int, body: Mapping[str, Any]) -> web.Response:
    headers = {"x-amzn-RequestId": str(uuid4())}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)
