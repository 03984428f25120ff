"""Who may: access keys with a role each, what a request must show, and how often an address may fail to show it.

Without keys, on loopback and behind no proxy, whoever reaches the daemon may everything: there the rule about
browsers (`daemon/http/guards.py`) is what keeps strangers out. Elsewhere nobody may anything without a key.
"""

import base64
import binascii
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, assert_never

from multidict import MultiMapping

from config.address import parse_address
from config.model import NS, Settings
from config.secret import Secret, read_secret
from daemon.control.audit import Actor
from daemon.http import sigv4
from daemon.http.sigv4 import Claim, Expired, Malformed, Request, Unsigned, Wrong

Role = Literal["read", "operate", "admin"]

ROLES: Final[tuple[Role, ...]] = ("read", "operate", "admin")
"""Each may what those before it may."""
ANY_REGION: Final = "local"
FAILURES_MAX: Final = 20
"""Failed authentications that an address may have at once; one more each second."""
ADDRESSES_MAX: Final = 4096


class Reason(StrEnum):
    """Why a request was denied, as it is counted."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    ROLE = "role"
    THROTTLED = "throttled"


class Denied(Exception):
    """The caller is not who it says, or may not do this: AWS's `code`, and the HTTP status that goes with it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    secret: Secret
    role: Role


@dataclass(frozen=True, slots=True)
class Keys:
    """What a configuration says about access. `region` is what a signature must name; "": any."""

    by_id: dict[str, Key]
    region: str
    is_open: bool
    behind_proxy: bool


def keys_of(settings: Settings) -> Keys:
    """Read the secret files.

    Raises:
        ConfigError: one can't be read.
    """
    http = settings.http
    listen = parse_address(http.listen)
    is_near = listen is not None and listen.is_loopback and not http.behind_proxy
    return Keys(
        {key.id: Key(key.id, read_secret(key.secret_file), key.role) for key in http.access_keys},
        # A signature for another region was meant for another endpoint. An account without one of AWS's regions can't
        # ask this: its clients had to make a region up.
        "" if settings.account.region == ANY_REGION else settings.account.region,
        not http.access_keys and is_near,
        http.behind_proxy,
    )


class Access:
    """One per daemon. `clock` gives the wall clock's ns; `denials` and `evicted` are plain numbers for telemetry."""

    def __init__(self, settings: Settings, clock: Callable[[], int]) -> None:
        """Raises: ConfigError: a secret file can't be read."""
        self.denials = dict.fromkeys(Reason, 0)
        self._clock = clock
        self._keys = keys_of(settings)
        self._failures = Failures()
        # An unknown key is worked through like a known one, with a secret that nobody has.
        self._nobody = Key("", Secret(secrets.token_hex(32)), "read")

    def __repr__(self) -> str:
        return f"<Access {len(self._keys.by_id)} keys>"

    @property
    def is_open(self) -> bool:
        """No keys are asked for."""
        return self._keys.is_open

    @property
    def behind_proxy(self) -> bool:
        return self._keys.behind_proxy

    @property
    def evicted(self) -> int:
        """Addresses whose failures were forgotten early, because ADDRESSES_MAX others had some."""
        return self._failures.evicted

    def apply(self, keys: Keys) -> None:
        """Take over what `keys_of` read; a reload rotates keys by this. Never fails."""
        self._keys = keys

    def admit(
        self, method: str, raw_path: str, headers: MultiMapping[str], body: bytes, address: str, need: Role
    ) -> Actor:
        """Who asks, where their signature is good and their role suffices. `raw_path` has the query, undecoded.

        Raises:
            Denied: missing, malformed or unknown credentials, a wrong or expired signature, a role that does not
                suffice, or too many failures of this address.
        """
        if self.is_open:
            return Actor("local", address)
        request = Request(method, raw_path, headers, body)
        return self._in_role(self._signer(request, self._claim(request, address), address), need, address)

    def refuse_unread(self, method: str, raw_path: str, headers: MultiMapping[str], address: str) -> None:
        """Refuse what can be refused before the body is read: no signature, or none that could be looked at.

        Raises: Denied.
        """
        if not self.is_open:
            self._claim(Request(method, raw_path, headers, b""), address)

    def admit_basic(self, headers: MultiMapping[str], address: str, need: Role) -> Actor:
        """Who asks, by HTTP Basic: an access key's id and secret. For what can't sign, which is Prometheus.

        Raises:
            Denied: as `admit`, with status 401 where HTTP has it.
        """
        if self.is_open:
            return Actor("local", address)
        self._refuse_throttled(address)
        name, _, password = _basic(headers).partition(":")
        key = self._keys.by_id.get(name, self._nobody)
        if Secret(password) != key.secret:
            reason = Reason.SIGNATURE if name in self._keys.by_id else Reason.UNKNOWN_KEY
            message = "user and password should be the id and the secret of an access key"
            raise self._failed(reason, "UnrecognizedClientException", message, address, status=401)
        return self._in_role(key, need, address)

    def _claim(self, request: Request, address: str) -> Claim:
        """What the request's head says of its signature."""
        claim = sigv4.claimed(request)
        if isinstance(claim, Unsigned):
            message = "sign the request with an access key (AWS Signature Version 4)"
            raise self._denied(Reason.MISSING, "MissingAuthenticationTokenException", message)
        self._refuse_throttled(address)
        if isinstance(claim, Malformed):
            raise self._failed(Reason.MALFORMED, "IncompleteSignatureException", claim.message, address)
        return claim

    def _signer(self, request: Request, claim: Claim, address: str) -> Key:
        key = self._keys.by_id.get(claim.key_id, self._nobody)
        now_s = self._clock() / NS
        flaw = sigv4.flaw(claim, request, key.secret.reveal(), region=self._keys.region, now_s=now_s)
        if key is self._nobody:
            raise self._failed(Reason.UNKNOWN_KEY, "UnrecognizedClientException", "no such access key", address)
        match flaw:
            case None:
                return key
            case Expired(message):
                raise self._failed(Reason.EXPIRED, "InvalidSignatureException", message, address)
            case Wrong(message):
                raise self._failed(Reason.SIGNATURE, "InvalidSignatureException", message, address)
            case _:
                assert_never(flaw)

    def _in_role(self, key: Key, need: Role, address: str) -> Actor:
        if ROLES.index(key.role) < ROLES.index(need):
            message = f"the access key {key.id} has the role {key.role}; this needs {need}"
            raise self._denied(Reason.ROLE, "AccessDeniedException", message)
        return Actor(key.id, address)

    def _refuse_throttled(self, address: str) -> None:
        if self._failures.are_spent(address, self._clock()):
            # Before the signature is looked at: else this would still tell whether a guess was right.
            message = "too many failed authentications from this address; try again in some seconds"
            raise self._denied(Reason.THROTTLED, "ThrottlingException", message, status=400)

    def _failed(self, reason: Reason, code: str, message: str, address: str, status: int = 403) -> Denied:
        self._failures.add(address, self._clock())
        return self._denied(reason, code, message, status)

    def _denied(self, reason: Reason, code: str, message: str, status: int = 403) -> Denied:
        self.denials[reason] += 1
        return Denied(status, code, message)


@dataclass(slots=True)
class Bucket:
    left: float
    at_ns: int


class Failures:
    """A token bucket for each address that failed lately: at most `addresses_max`, the one quiet longest goes."""

    def __init__(self, most: int = FAILURES_MAX, per_s: float = 1.0, addresses_max: int = ADDRESSES_MAX) -> None:
        self.evicted = 0
        self._most, self._per_s, self._addresses_max = most, per_s, addresses_max
        self._buckets: dict[str, Bucket] = {}  # in the order of the last failure

    def __len__(self) -> int:
        return len(self._buckets)

    def are_spent(self, address: str, now_ns: int) -> bool:
        """Whether this address must wait."""
        name = network(address)
        bucket = self._refilled(name, now_ns)
        if bucket.left >= self._most:
            self._buckets.pop(name, None)
        return bucket.left < 1

    def add(self, address: str, now_ns: int) -> None:
        """One more failure."""
        name = network(address)
        bucket = self._refilled(name, now_ns)
        self._buckets.pop(name, None)
        self._buckets[name] = Bucket(max(0.0, bucket.left - 1), now_ns)
        if len(self._buckets) > self._addresses_max:
            oldest = next(iter(self._buckets))
            self.evicted += self._refilled(oldest, now_ns).left < self._most
            del self._buckets[oldest]

    def _refilled(self, name: str, now_ns: int) -> Bucket:
        bucket = self._buckets.get(name) or Bucket(self._most, now_ns)
        elapsed_ns = now_ns - bucket.at_ns
        if elapsed_ns:  # a clock that stepped back refills nothing, and holds nobody off for the step
            bucket.left = min(float(self._most), bucket.left + max(0, elapsed_ns) / NS * self._per_s)
            bucket.at_ns = now_ns
        return bucket


def network(address: str) -> str:
    """Who counts as one: an IPv4 address, or the 64 bits of an IPv6 one that its owner may fill at will."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    match ip:
        case ipaddress.IPv6Address(ipv4_mapped=None):
            return str(ipaddress.ip_network((ip, 64), strict=False))
        case ipaddress.IPv6Address(ipv4_mapped=inner):
            return str(inner)
        case _:
            return str(ip)


def _basic(headers: MultiMapping[str]) -> str:
    """`id:secret`; "" where there is none."""
    given = headers.getall("Authorization", ())
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(text.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
