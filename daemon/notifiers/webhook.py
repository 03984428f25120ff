"""An alarm as a signed HTTP POST: Standard Webhooks (clients.md §3.9, design.md §5)."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import aiohttp
from standardwebhooks import Webhook as Signer
from standardwebhooks.webhooks import EmptyWebhookSecretError
from yarl import URL

from config.model import NS, Webhook
from daemon.notifiers._base import Delivered, Disabled, Notice, NotifierKind, Outcome, Reason, Retry, Tools
from daemon.notifiers._failure import failure

ANSWER_BYTES_MAX: Final = 65_536
ANSWER_S_MAX: Final = 1.0
"""How much of an answer's body is read, and thrown away, to keep the connection; a longer one closes it."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class WebhookNotifier:
    """POSTs notices to one URL. Signed with every key of the secret file: two keys make a rotation."""

    def __init__(self, options: Webhook, secrets: tuple[str, ...], tools: Tools) -> None:
        self.identity = _identity(options, secrets)
        self.warnings = () if secrets else ("without a secret_file its webhooks are not signed",)
        self._url = URL(options.url)
        self._timeout = aiohttp.ClientTimeout(total=options.timeout_s)
        self._signers = [_signer(secret) for secret in secrets]
        self._tools = tools

    async def send(self, notice: Notice) -> Outcome:
        body = payload(notice)
        headers = self._headers(notice.webhook_id, body)
        try:
            async with self._tools.session.post(
                self._url, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as answer:
                outcome = _judge(answer.status, answer.headers.get("Retry-After"), self._now())
                await _drain(answer)
                return outcome
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return failure(error)

    def _headers(self, webhook_id: str, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Idempotency-Key": webhook_id,
            "webhook-id": webhook_id,
            "webhook-timestamp": str(self._tools.clock() // NS),
        }
        if self._signers:
            # An aware UTC time: the package takes whatever it is given for UTC.
            at = EPOCH + timedelta(seconds=int(headers["webhook-timestamp"]))
            text = body.decode()
            headers["webhook-signature"] = " ".join(signer.sign(webhook_id, at, text) for signer in self._signers)
        return headers

    def _now(self) -> datetime:
        return EPOCH + timedelta(microseconds=self._tools.clock() // 1000)


def payload(notice: Notice) -> bytes:
    """The body: {"type", "timestamp", "data"}. Made of stored bytes only, so every attempt's is the same."""
    at = rfc3339(notice.time_ns)
    return b'{"type":"alarm.%s","timestamp":"%s","data":%s}' % (notice.event_type.encode(), at.encode(), notice.message)


def rfc3339(time_ns: int) -> str:
    """In UTC with milliseconds, as in 2026-01-02T03:04:05.678Z."""
    at = EPOCH + timedelta(milliseconds=time_ns // 1_000_000)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _judge(status: int, retry_after: str | None, now: datetime) -> Outcome:
    """Only 2xx is success; 410 means never again; anything else is tried again (Standard Webhooks)."""
    if 200 <= status < 300:
        return Delivered()
    if status == 410:
        return Disabled(detail="HTTP 410")
    return Retry(_reason(status), f"HTTP {status}", _seconds(retry_after, now))


def _reason(status: int) -> Reason:
    if status == 429:
        return Reason.THROTTLED
    if status < 400:
        return Reason.REDIRECT
    return Reason.CLIENT_ERROR if status < 500 else Reason.SERVER_ERROR


def _seconds(retry_after: str | None, now: datetime) -> float | None:
    """Retry-After in either form of RFC 9110; None for nonsense."""
    if retry_after is None:
        return None
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after.strip()[:12])
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read the answer's body so that the connection can be used again. The outcome is known, whatever comes."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            left = ANSWER_BYTES_MAX
            while left > 0 and (chunk := await answer.content.read(left)):
                left -= len(chunk)
    except (TimeoutError, aiohttp.ClientError, OSError):
        answer.close()


def build(options: Webhook, tools: Tools) -> WebhookNotifier:
    """Raises ValueError for an URL or a secret that can't be used, OSError for a file that can't be read."""
    _check_url(options.url)
    if options.secret_file is None:
        return WebhookNotifier(options, (), tools)
    try:
        secrets = tuple(options.secret_file.read_text("utf-8").split())
        if secrets:
            return WebhookNotifier(options, secrets, tools)
    except (ValueError, EmptyWebhookSecretError):
        pass  # raised again without its cause, whose text may quote the key
    raise ValueError(f"{options.secret_file} must hold a key: whsec_ and base64, or two while one replaces the other")


def _check_url(url: str) -> None:
    try:
        parsed = URL(url)
    except ValueError:
        raise ValueError("its url can't be parsed") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("its url must begin with http:// or https:// and name a host")


def _signer(secret: str) -> Signer:
    if not secret.startswith("whsec_"):
        raise ValueError("no whsec_ prefix")
    return Signer(secret)


def _identity(options: Webhook, secrets: tuple[str, ...]) -> str:
    return sha256("\0".join((options.url, str(options.timeout_s), *secrets)).encode()).hexdigest()


def _user_agent() -> str:
    try:
        return f"detectd/{version('detectd')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "detectd/0"


USER_AGENT: Final = _user_agent()
NOTIFIER: Final = NotifierKind(options=Webhook, build=build)
