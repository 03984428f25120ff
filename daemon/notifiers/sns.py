"""An alarm as a message to an SNS topic (spec.md §9.1): signed by botocore, sent by the session that all share.

Not botocore's own client: its calls block, and a topic that does not answer would hold threads that others need.
Retrying is dispatch's.
"""

import asyncio
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec

from config.model import Topic
from config.topics import region_of
from daemon.notifiers._aws import Found, NoCredentials
from daemon.notifiers._base import Delivered, Notice, NotifierKind, Outcome, Reason, Refused, Retry, Tools
from daemon.notifiers._failure import failure

T = TypeVar("T")
MESSAGE_BYTES_MAX: Final = 262_144
LOOP_BYTES_MAX: Final = 65_536
"""Longer ones are encoded in a thread: that takes up to 10 ms."""
ANSWER_BYTES_MAX: Final = 65_536
FIFO: Final = ".fifo"
OMITTED: Final = "detectd:omitted"
"""The key of `violationEventAdditionalInfo` that says what was left out of a message that was too long."""
THROTTLED: Final = frozenset(
    {
        "KMSThrottling",
        "KMSThrottlingException",
        "RequestLimitExceeded",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
KEYS_REFUSED: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Nothing is wrong with the message: it is tried again, with the credentials and the clock of then."""

_CODE: Final = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,80})\s*</Code>")
_PUBLISHED: Final = re.compile(rb"<MessageId>[^<]+</MessageId>")


class SnsNotifier:
    """Publishes notices to one topic."""

    def __init__(self, options: Topic, tools: Tools) -> None:
        self._options, self._tools = options, tools
        self._url = tools.endpoint_urls.get("sns", "")
        self._region = region_of(options.arn)
        self.identity = sha256("\0".join((options.arn, str(options.timeout_s), self._url)).encode()).hexdigest()
        self.warnings: tuple[str, ...] = ()

    async def send(self, notice: Notice) -> Outcome:
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._publish(notice)
        except NoCredentials as problem:
            return Retry(Reason.CLIENT_ERROR, str(problem))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return failure(error)

    async def _publish(self, notice: Notice) -> Outcome:
        found = await self._tools.aws.find()
        url = self._url or await self._tools.aws.endpoint("sns", self._region)
        url = url.rstrip("/") + "/"  # as it is sent: what is signed must be the same
        made = await _aside(len(notice.message), lambda: self._request(found, url, notice))
        if made is None:
            return Refused(Reason.CLIENT_ERROR, f"the message is longer than {MESSAGE_BYTES_MAX} bytes")
        headers, body = made
        async with self._tools.session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            status, text = answer.status, await _read(answer.content)
        if code_of(text) in KEYS_REFUSED:
            self._tools.aws.refused(found)
        return judged(status, text)

    def _request(self, found: Found, url: str, notice: Notice) -> tuple[dict[str, str], bytes] | None:
        """Headers and body; None where the message can't be made short enough."""
        message = shortened(notice.message)
        if message is None:
            return None
        return signed(found.keys, self._region, url, form(self._options.arn, notice, message))


async def _aside(size_bytes: int, make: Callable[[], T]) -> T:
    """Make something out of so many bytes, where the loop must not wait for it in a thread."""
    return make() if size_bytes <= LOOP_BYTES_MAX else await asyncio.to_thread(make)


def form(arn: str, notice: Notice, message: bytes) -> dict[str, str]:
    """What Publish is told: no subject, no attributes."""
    told = {"Action": "Publish", "Version": "2010-03-31", "TopicArn": arn, "Message": message.decode()}
    if arn.endswith(FIFO):  # in order per thing, and a repeat after a crash is dropped there
        told["MessageGroupId"] = sha256(notice.thing.encode()).hexdigest()
        told["MessageDeduplicationId"] = sha256(notice.webhook_id.encode()).hexdigest()
    return told


def signed(keys: Any, region: str, url: str, told: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request as botocore signs it."""
    from botocore.auth import SigV4Auth  # noqa: PLC0415  # only who uses a topic waits for it
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415

    body = urlencode(told).encode()
    content = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", url, headers=content, data=body)
    SigV4Auth(keys, "sns", region).add_auth(request)
    return dict(request.headers.items()), body


async def _read(content: aiohttp.StreamReader) -> bytes:
    """An answer, which may come in pieces; of a long one the beginning."""
    text = b""
    while len(text) < ANSWER_BYTES_MAX and (piece := await content.read(ANSWER_BYTES_MAX - len(text))):
        text += piece
    return text


def code_of(body: bytes) -> str:
    """SNS's own code for an error; empty where there is none."""
    found = _CODE.search(body)
    return found[1].decode() if found else ""


def judged(status: int, body: bytes) -> Outcome:
    """5xx and throttling are tried again, what SNS refuses is not (spec.md §9.1).

    What is no answer of SNS is tried again too: something stands in between, or the endpoint is another's.
    """
    if 200 <= status < 300 and _PUBLISHED.search(body):
        return Delivered()
    code = code_of(body)
    detail = f"HTTP {status} {code}".rstrip()
    if status == 429 or code in THROTTLED:
        return Retry(Reason.THROTTLED, detail)
    if status >= 500:
        return Retry(Reason.SERVER_ERROR, detail)
    if code and code not in KEYS_REFUSED:
        return Refused(Reason.CLIENT_ERROR, detail)
    if 300 <= status < 400:
        return Retry(Reason.REDIRECT, detail)
    return Retry(Reason.CLIENT_ERROR if status >= 400 else Reason.PROTOCOL, detail if code else f"{detail}, not by SNS")


def shortened(message: bytes) -> bytes | None:
    """A message that SNS takes. One that is too long goes without what the API tells as well, the criteria's value
    first, then the metric's, and says so in `violationEventAdditionalInfo`. None: that is not enough.
    """
    if len(message) <= MESSAGE_BYTES_MAX:
        return message
    for parts in (("behavior.criteria.value",), ("metricValue",), ("behavior.criteria.value", "metricValue")):
        shorter = _without(message, parts)
        if len(shorter) <= MESSAGE_BYTES_MAX:
            return shorter
    return None


def _without(message: bytes, parts: tuple[str, ...]) -> bytes:
    body = msgspec.json.decode(message)
    for part in parts:
        *path, last = part.split(".")
        holder = body
        for name in path:
            holder = holder.get(name, {})
        holder.pop(last, None)
    body["violationEventAdditionalInfo"] = body.get("violationEventAdditionalInfo", {}) | {OMITTED: " ".join(parts)}
    return msgspec.json.encode(body)


NOTIFIER: Final = NotifierKind(options=Topic, build=SnsNotifier)
