"""An alarm as a message to an SNS topic (spec.md §9.1): signed by botocore, sent by the session that all share.

Not botocore's own client: its calls block, and a topic that does not answer would hold threads that others need.
Retrying is dispatch's.
"""

import asyncio
import re
import threading
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import msgspec

from config.model import Topic
from config.topics import region_of
from daemon.notifiers._base import Delivered, Notice, NotifierKind, Outcome, Reason, Refused, Retry, Tools

MESSAGE_BYTES_MAX: Final = 262_144
ANSWER_BYTES_MAX: Final = 65_536
FIFO: Final = ".fifo"
THROTTLED: Final = frozenset(
    {"Throttling", "ThrottlingException", "Throttled", "ThrottledException", "TooManyRequests"}
)
AGAIN: Final = frozenset(
    {
        "ExpiredToken",
        "InvalidClientTokenId",
        "RequestExpired",
        "InvalidSecurity",
        "SignatureDoesNotMatch",
        "KMSThrottling",
        "KMSThrottlingException",
    }
)
"""Refusals that another attempt, with other credentials or another clock, may be spared."""

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,80})</Code>")


class Credentials:
    """botocore's usual chain: environment, files, roles. To be used in threads: some of it asks the network."""

    def __init__(self) -> None:
        self._session: Any = None
        self._found: Any = None
        self._turn = threading.Lock()

    def signer(self, region: str) -> Any:
        """What signs for a region; None: there are no credentials."""
        from botocore.auth import SigV4Auth  # noqa: PLC0415  # only who uses a topic waits for it

        with self._turn:
            self._found = self._found or self._open().get_credentials()
        frozen = self._found.get_frozen_credentials() if self._found else None
        return SigV4Auth(frozen, "sns", region) if frozen else None

    def endpoint(self, region: str) -> str:
        """Where AWS has SNS in a region."""
        with self._turn:
            resolved = self._open().get_component("endpoint_resolver").construct_endpoint("sns", region)
        host = resolved["hostname"] if resolved else f"sns.{region}.amazonaws.com"
        return f"https://{host}"

    def _open(self) -> Any:
        if self._session is None:
            from botocore.session import get_session  # noqa: PLC0415

            self._session = get_session()
        return self._session


class SnsNotifier:
    """Publishes notices to one topic."""

    def __init__(self, options: Topic, tools: Tools, credentials: Credentials) -> None:
        self._options, self._tools, self._credentials = options, tools, credentials
        self._url = tools.endpoint_urls.get("sns", "")
        self._region = region_of(options.arn)
        self.identity = sha256("\0".join((options.arn, str(options.timeout_s), self._url)).encode()).hexdigest()
        self.warnings: tuple[str, ...] = ()

    async def send(self, notice: Notice) -> Outcome:
        message = shortened(notice.message)
        if len(message) > MESSAGE_BYTES_MAX:
            return Refused(Reason.CLIENT_ERROR, f"the message is longer than {MESSAGE_BYTES_MAX} bytes")
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._publish(notice, message)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return _failure(error)

    async def _publish(self, notice: Notice, message: bytes) -> Outcome:
        signer = await asyncio.to_thread(self._credentials.signer, self._region)
        if signer is None:
            return Retry(Reason.CLIENT_ERROR, "no AWS credentials (botocore's chain: environment, files, roles)")
        url = self._url or await asyncio.to_thread(self._credentials.endpoint, self._region)
        url = url.rstrip("/") + "/"
        headers, body = signed(signer, url, self._form(notice, message))
        async with self._tools.session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            return judged(answer.status, await answer.content.read(ANSWER_BYTES_MAX))

    def _form(self, notice: Notice, message: bytes) -> dict[str, str]:
        form = {
            "Action": "Publish",
            "Version": "2010-03-31",
            "TopicArn": self._options.arn,
            "Message": message.decode(),
        }
        if self._options.arn.endswith(FIFO):  # in order per thing, and a repeat after a crash is dropped there
            form["MessageGroupId"] = sha256(notice.thing.encode()).hexdigest()
            form["MessageDeduplicationId"] = sha256(notice.webhook_id.encode()).hexdigest()
        return form


def signed(signer: Any, url: str, form: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request as `signer` (botocore's) signs it."""
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415

    body = urlencode(form).encode()
    content = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", url, headers=content, data=body)
    signer.add_auth(request)
    return dict(request.headers.items()), body


def judged(status: int, body: bytes) -> Outcome:
    """5xx and throttling are tried again, the rest is not (spec.md §9.1)."""
    if 200 <= status < 300:
        return Delivered()
    found = _CODE.search(body)
    code = found[1].decode() if found else ""
    detail = f"HTTP {status} {code}".rstrip()
    if status == 429 or code in THROTTLED:
        return Retry(Reason.THROTTLED, detail)
    if status >= 500 or code in AGAIN or not code:  # not SNS's own answer: something in between
        return Retry(Reason.SERVER_ERROR if status >= 500 else Reason.CLIENT_ERROR, detail)
    return Refused(Reason.CLIENT_ERROR, detail)


def shortened(message: bytes) -> bytes:
    """A message that is too long for SNS goes without its value, which the API has."""
    if len(message) <= MESSAGE_BYTES_MAX:
        return message
    body = msgspec.json.decode(message)
    body.pop("metricValue", None)
    return msgspec.json.encode(body)


def _failure(error: Exception) -> Retry:
    match error:
        case TimeoutError():
            return Retry(Reason.TIMEOUT)
        case aiohttp.ClientSSLError():
            return Retry(Reason.TLS, type(error).__name__)
        case aiohttp.ClientOSError() | OSError():
            return Retry(Reason.UNREACHABLE, getattr(error, "strerror", None) or type(error).__name__)
        case _:
            return Retry(Reason.PROTOCOL, type(error).__name__)


_CREDENTIALS: Final = Credentials()  # one chain per process, as botocore has it


def build(options: Topic, tools: Tools) -> SnsNotifier:
    return SnsNotifier(options, tools, _CREDENTIALS)


NOTIFIER: Final = NotifierKind(options=Topic, build=build)
