"""AWS Signature Version 4, the server's side: was this request signed with the secret of the key that it names?

What is signed must be what is acted on. So a path with empty, `.` or `..` segments is refused (signers normalise it
away), the payload must be signed, and what a header says to us counts only under the signature.
Paths are encoded a second time before they are signed, as for every service but S3.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from multidict import MultiMapping

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SERVICE: Final = "iot"
SKEW_S: Final = 300.0
STAMP: Final = "%Y%m%dT%H%M%SZ"

_HEADER_BYTES_MAX: Final = 8192
_DATE: Final = "x-amz-date"
_HASH: Final = "x-amz-content-sha256"
_SPEAKING: Final = (_HASH, "x-amz-security-token", "x-amzn-principal")
"""Headers that say something to us: where they are there, they must be signed."""
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_SIGNED_HEADER: Final = re.compile(r"[!-9<-@\[-~]+")  # printable, lower case, and neither : nor ;
_STAMP: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_CANONICAL_QUERY: Final = re.compile(r"[A-Za-z0-9._~&=%-]*")
_PRINTABLE: Final = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came. `target` is the request line's: path and query, undecoded."""

    method: str
    target: str
    headers: MultiMapping[str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its signature. `time_s`: when it was signed, epoch seconds; `stamp`: the same in text."""

    key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str
    time_s: float

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class Unsigned:
    """No signature at all."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A signature that can't be looked at: what is wrong with its form."""

    message: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Signed too long ago, or in the future."""

    message: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """Not signed with this secret, or not for us."""

    message: str


def claimed(request: Request) -> Claim | Unsigned | Malformed:
    """What the Authorization header and the date of a request say, in either form that SDKs send."""
    given = request.headers.getall("Authorization", ())
    if not given and "x-amz-signature" in request.query.lower():
        return Malformed("signed URLs are not taken (they end up in histories): sign with an Authorization header")
    if not given:
        return Unsigned()
    if len(given) > 1 or len(given[0]) > _HEADER_BYTES_MAX:
        return Malformed("one Authorization header is wanted, of at most 8 KiB")
    parts = _parts(given[0])
    return Malformed(f"Authorization should be: {ALGORITHM} {_FORM}") if parts is None else _claim(request, parts)


def flaw(claim: Claim, request: Request, secret: str, *, region: str, now_s: float) -> Expired | Wrong | None:
    """Why a claim does not hold; None: it does. `region` "" takes any.

    The signature is computed and compared in any case, so that the time taken says nothing about which of these it is.
    """
    is_signed = _is_signed(claim, request, secret)
    if claim.service != SERVICE or claim.date != claim.stamp[:8] or (region and claim.region != region):
        return Wrong(f"the credential's scope should be {claim.stamp[:8]}/{region or 'REGION'}/{SERVICE}/aws4_request")
    if abs(now_s - claim.time_s) > SKEW_S:
        now = datetime.fromtimestamp(now_s, UTC).strftime(STAMP)
        return Expired(f"Signature expired: {claim.stamp} is more than {SKEW_S / 60:g} minutes from {now}, our time")
    if not _is_normal(request.path):
        return Wrong('a path is signed and asked for without empty, "." and ".." segments')
    if not _is_payload(request):
        return Wrong(f"{_HASH} is not the SHA-256 of the payload; unsigned and streamed payloads are not taken")
    return None if is_signed else Wrong("the signature is not that of this request with this key's secret")


# The form

_FORM: Final = "Credential=ID/DATE/REGION/iot/aws4_request, SignedHeaders=A;B, Signature=HEX"


def _parts(text: str) -> dict[str, str] | None:
    algorithm, _, rest = text.partition(" ")
    pairs = [pair.strip().partition("=")[::2] for pair in rest.split(",")]
    parts = dict(pairs)
    if algorithm != ALGORITHM or len(pairs) != 3 or parts.keys() != {"Credential", "SignedHeaders", "Signature"}:
        return None
    return parts


def _claim(request: Request, parts: dict[str, str]) -> Claim | Malformed:
    credential = parts["Credential"].split("/")
    if len(credential) != 5 or credential[4] != "aws4_request" or not _SIGNATURE.fullmatch(parts["Signature"]):
        return Malformed(f"Authorization should be: {ALGORITHM} {_FORM}")
    names = tuple(parts["SignedHeaders"].split(";"))
    date = _DATE if _DATE in request.headers else "date"
    if problem := _names_problem(request, names, date):
        return Malformed(problem)
    moment = _moment(request.headers.getall(date, ()))
    if moment is None:
        return Malformed("one X-Amz-Date like 20261125T233703Z is wanted, or one Date")
    key_id, day, region, service, _ = credential
    stamp = moment.strftime(STAMP)
    return Claim(key_id, day, region, service, names, parts["Signature"], stamp, moment.timestamp())


def _names_problem(request: Request, names: tuple[str, ...], date: str) -> str | None:
    if len(set(names)) != len(names) or not all(_SIGNED_HEADER.fullmatch(name) for name in names):
        return "SignedHeaders names headers in lower case, each once, with ; between them"
    for name in names:
        if name not in request.headers:
            return f"the header {name[:100]!r} is signed but not there"
    for name in ("host", date, *(name for name in _SPEAKING if name in request.headers)):
        if name not in names:
            return f"the header {name} must be among SignedHeaders"
    return None


def _moment(given: list[str] | tuple[str, ...]) -> datetime | None:
    if len(given) != 1 or len(given[0]) > 64:
        return None
    try:
        if _STAMP.fullmatch(given[0]):
            return datetime.strptime(given[0], STAMP).replace(tzinfo=UTC)
        moment = parsedate_to_datetime(given[0])
        # "-0000", which Python's own writer of dates puts there, comes back without a zone.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# What is signed


def _is_signed(claim: Claim, request: Request, secret: str) -> bool:
    key = _signing_key(secret, claim)
    matches = [
        hmac.compare_digest(_signature(key, claim, text), claim.signature) for text in _canonical(claim, request)
    ]
    return any(matches)


def _signing_key(secret: str, claim: Claim) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in claim.scope.split("/"):
        key = hmac.digest(key, _bytes(part), "sha256")
    return key


def _signature(key: bytes, claim: Claim, canonical: str) -> str:
    digest = hashlib.sha256(_bytes(canonical)).hexdigest()
    return hmac.digest(key, _bytes(f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{digest}"), "sha256").hex()


def _canonical(claim: Claim, request: Request) -> Iterator[str]:
    """The request in the form that is signed, once for each form that its query may have been signed in."""
    headers = [f"{name}:{_folded(request.headers, name)}" for name in claim.signed_headers]
    tail = (*headers, "", ";".join(claim.signed_headers), hashlib.sha256(request.body).hexdigest())
    for query in _queries(request.query):
        yield "\n".join((request.method, quote(_bytes(request.path), safe="/~") or "/", query, *tail))


def _queries(query: str) -> Iterator[str]:
    """As it is written; and as it should be, where that is something else than another spelling of a `%`."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&")] if query else []
    if _PRINTABLE.fullmatch(query):
        yield _joined(pairs)
    if not _CANONICAL_QUERY.fullmatch(query):
        yield _joined([(_spelled(name), _spelled(value)) for name, value in pairs])


def _joined(pairs: Iterable[tuple[str, ...]]) -> str:
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _spelled(text: str) -> str:
    return quote(unquote_to_bytes(_bytes(text.replace("+", " "))), safe="-_.~")


def _folded(headers: MultiMapping[str], name: str) -> str:
    return ",".join(" ".join(value.split()) for value in headers.getall(name))


def _is_normal(path: str) -> bool:
    segments = path.split("/")
    return (
        segments[0] == ""
        and not any(one in {"", ".", ".."} for one in segments[1:-1])
        and segments[-1] not in {".", ".."}
    )


def _is_payload(request: Request) -> bool:
    stated = request.headers.getall(_HASH, ())
    return not stated or list(stated) == [hashlib.sha256(request.body).hexdigest()]


def _bytes(text: str) -> bytes:
    # aiohttp keeps bytes that are no UTF-8 as surrogates.
    return text.encode("utf-8", "surrogateescape")
