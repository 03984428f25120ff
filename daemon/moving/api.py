"""Calls AWS's IoT API, at AWS or anywhere, with botocore: pages, patience, and the kinds of failure told apart."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 8
"""Calls under way at a time. AWS allows most of Detect's 10 a second."""
THROTTLED_MAX: Final = 9
PAUSE_S: Final = 0.25
PAUSE_MAX_S: Final = 10.0
PAGES_MAX: Final = 100_000
ATTEMPTS: Final = 4
"""Of one call, where the connection breaks or the other side stumbles."""

_THROTTLED: Final = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"})
_NOT_OFFERED: Final = frozenset({"UnknownOperationException", "UnknownOperation", "InvalidAction", "NotImplemented"})
_STRANGER: Final = "what answers there does not speak as AWS IoT does"
_STATUSES: Final = frozenset({404, 405, 500, 501})
"""Of an answer that has no error code of AWS's: moto, for one, has 500 for what it doesn't know."""


class ApiError(Exception):
    """Base of all; the message says which operation, and why."""


class NotOffered(ApiError):
    """The endpoint does not have the operation."""


class Gone(ApiError):
    """There is no such resource (any more)."""


class Refused(ApiError):
    """The endpoint's answer is no."""


class Unreachable(ApiError):
    """Nobody answers, or nobody that speaks as AWS IoT does."""


class Misused(ApiError):
    """There are no credentials, or no such region or profile: nothing was asked."""


@dataclass(frozen=True, slots=True)
class Api:
    """`client` is botocore's for `iot`; `sleep` takes seconds."""

    client: Any
    sleep: Callable[[float], None] = time.sleep

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """The answer to an operation (`create_thing`), asked again while it is throttled.

        Raises:
            NotOffered, Gone, Refused, Unreachable, Misused: as they say.
        """
        for attempt in range(THROTTLED_MAX):
            code, answer = self._once(operation, params)
            if code is None:
                return answer
            self.sleep(min(PAUSE_S * 2**attempt, PAUSE_MAX_S))
        raise Refused(f"{operation}: throttled {THROTTLED_MAX} times in a row")

    def listed(self, operation: str, member: str, **params: Any) -> Iterator[Any]:
        """Every element of `member` on every page. Raises as `call`."""
        token: str | None = None
        for _ in range(PAGES_MAX):
            answer = self.call(operation, **params, **({"nextToken": token} if token else {}))
            elements = answer.get(member, ())
            if not isinstance(elements, list | tuple):
                raise Unreachable(f"{operation}: {_STRANGER}")
            yield from elements
            before, token = token, answer.get("nextToken")
            if not token:
                return
            if token == before:
                break
        raise Refused(f"{operation}: the pages never end")

    def each(self, run: Callable[[T], R], items: Sequence[T] | Iterable[T]) -> list[R]:
        """`run` for every item, some at a time; results in the items' order. The first failure ends it."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(run, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _once(self, operation: str, params: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """(None, the answer), or (the code that asks for patience, {})."""
        from botocore import exceptions  # noqa: PLC0415  # botocore takes a while to load
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        try:
            answer = dict(getattr(self.client, operation)(**params))
        except exceptions.ClientError as problem:
            code = str(problem.response.get("Error", {}).get("Code"))
            if code in _THROTTLED:
                return code, {}
            raise _failure(operation, code, problem.response) from problem
        except (exceptions.HTTPClientError, exceptions.ConnectionError, ResponseParserError) as problem:
            raise Unreachable(f"{operation}: {_short(problem)}") from problem
        except exceptions.BotoCoreError as problem:
            raise Misused(f"{operation}: {_short(problem)}") from problem
        except (TypeError, AttributeError, ValueError, RecursionError) as problem:  # of botocore's parser
            raise Unreachable(f"{operation}: {_STRANGER}") from problem
        headers = answer.pop("ResponseMetadata", {}).get("HTTPHeaders", {})
        if not answer and "json" not in headers.get("content-type", "json"):
            raise Unreachable(f"{operation}: {_STRANGER}")
        return None, answer


def api_of(session: Any, region: str, endpoint_url: str | None, trusted: SSLContext | None = None) -> Api:
    """The API as a botocore session's credentials see it; `AWS_MAX_ATTEMPTS` counts, as for AWS's own tools.

    `trusted`: for an endpoint whose certificate no authority that botocore knows has signed.

    Raises:
        Misused: no such region, endpoint or profile.
    """
    from botocore import exceptions  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    attempts = os.environ.get("AWS_MAX_ATTEMPTS", "")
    retries: Any = {"mode": "standard", "total_max_attempts": int(attempts) if attempts.isdecimal() else ATTEMPTS}
    config = Config(retries=retries, connect_timeout=10, read_timeout=30, max_pool_connections=AT_ONCE)
    try:
        client = session.create_client("iot", region, endpoint_url=endpoint_url, config=config)
    except (exceptions.BotoCoreError, ValueError) as problem:
        raise Misused(_short(problem)) from problem
    if trusted is not None:
        from daemon.moving.pinned import pin  # noqa: PLC0415

        pin(client, trusted, AT_ONCE)
    return Api(client)


def _failure(operation: str, code: str, response: dict[str, Any]) -> ApiError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    message = str(response.get("Error", {}).get("Message") or response.get("message") or "")
    if code in _NOT_OFFERED or (code.isdecimal() and status in _STATUSES):
        return NotOffered(f"{operation}: not offered by this endpoint (HTTP {status})")
    if code == "ResourceNotFoundException":
        return Gone(f"{operation}: {message}")
    return Refused(f"{operation}: {code}: {' '.join(message.split())[:500]}")


def _short(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
