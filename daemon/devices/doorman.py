"""Who a client of a broker is, whether it may come in, and which things it speaks for.

A sensor (daemon/sensor) asks `admit` once for each connection, and the `Pass` that comes back for each topic.

Who it is: the name under which the fingerprint of its certificate is listed, else the certificate's common name, else
the user whose password it knows, else (it need not show anything, or its certificate says no more than that the CA
knows it) its client id. Which thing that is: `config.clients.thing_of`. Gateways speak for further ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, assert_never

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from config.address import address_of
from config.clients import thing_of
from config.model import Client, Devices, Embedded
from daemon.clock import Clock
from daemon.devices.credentials import NAME_MAX, Device, DevicesFile, fingerprint_of
from daemon.devices.logins import Login, Logins
from daemon.logs import RateLimited
from daemon.sensor.door import BAD_LOGIN, NOT_AUTHORIZED, UNAVAILABLE, Hello, Refusal

AWS_COMMON_NAME: Final = "AWS IoT Certificate"
"""Of every certificate that AWS issued to a device."""
WRAPPINGS_MAX: Final = 4
_WRAPPINGS: Final = {"$share": 2, "$queue": 1, "$exclusive": 1, "$delayed": 2}
"""Levels that some brokers take off the front of a filter or a topic."""
_EVERYTHING: Final = "#"
_NO_DEVICE: Final = Device()

log = structlog.get_logger(__name__)


class Reason(StrEnum):
    """Why a client was turned away, as it is counted."""

    NO_CREDENTIALS = "no-credentials"
    LOGIN = "login"  # no such user, or another password
    CERTIFICATE = "certificate"  # not the one that is listed
    REVOKED = "revoked"
    CLIENT_ID = "client-id"  # not its own
    NAME = "name"  # no name of a thing
    THROTTLED = "throttled"
    BUSY = "busy"


_CODES: Final = {Reason.LOGIN: BAD_LOGIN, Reason.BUSY: UNAVAILABLE}  # who is told to try again, tries again


@dataclass(frozen=True, slots=True)
class Proof:
    """How a client showed that it is `name`; `kept` is what must still be on file: a fingerprint, or a hash's text."""

    name: str
    by: Literal["fingerprint", "authority", "fleet", "password", "word"]
    kept: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Things:
    """Names of things; a prefix stands for all that begin with it."""

    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def have(self, thing: str) -> bool:
        """A wildcard in the place of a thing's name is had by those only who have every thing."""
        return thing in self.names or (thing != "" and thing.startswith(self.prefixes))


@dataclass(frozen=True, slots=True)
class Pass:
    """What a client may, once it is in. `judges` False: everything, unread. `user`: who it is, for people."""

    user: str
    judges: bool
    things: Things = Things()
    proof: Proof = Proof("", "word")

    def may_publish(self, topic: str) -> bool:
        """Topics of things other than its own are closed to it; all others are open."""
        if not self.judges or not topic.startswith("$"):
            return True
        thing = thing_in(topic)
        return thing is None or self.things.have(thing)

    def may_subscribe(self, topic_filter: str) -> bool:
        """As `may_publish`. One that begins with a wildcard reaches no topic that begins with `$` (MQTT 4.7.2)."""
        return self.may_publish(topic_filter)


@dataclass(frozen=True, slots=True)
class Door:
    """What a doorman stands at. `checks`: nobody behind it does. `must_show`: nobody comes in on its word alone."""

    checks: bool
    must_show: bool


OTHERS: Final = Door(checks=False, must_show=False)
"""In front of a broker that lets in whom it likes: what clients say of themselves is for that broker to check."""


def door_of(embedded: Embedded) -> Door:
    """The embedded broker's. Off loopback a device shows something, also while nothing is on file yet."""
    tls, near = embedded.tls, address_of(embedded.mqtt).is_loopback
    return Door(checks=True, must_show=not near or (tls is not None and tls.ca is not None))


class Doorman:
    """One per listener. `refusals` are plain numbers for telemetry."""

    def __init__(
        self, door: Door, settings: Devices, clients: Iterable[Client], file: DevicesFile, logins: Logins, clock: Clock
    ) -> None:  # fmt: skip
        self.refusals = dict.fromkeys(Reason, 0)
        self._door, self._file, self._logins, self._clock = door, file, logins, clock
        self._settings, self._clients = settings, tuple(clients)
        self._configured = 0
        self._lines = RateLimited()
        if door.must_show and not file.current:
            log.info("devices.none", so="only who shows a certificate that the CA signed comes in; see detectd devices")

    @property
    def revision(self) -> int:
        """Grows when something changes that `still_good` looks at."""
        return self._configured + self._file.revision

    def configure(self, settings: Devices, clients: Iterable[Client]) -> None:
        """Take over what a reload brought. Never fails."""
        before, now = (self._settings, self._clients), (settings, tuple(clients))
        if before != now:
            self._settings, self._clients = now
            self._configured += 1

    async def admit(self, hello: Hello) -> Pass | Refusal:
        """Whether this client may come in, and as whom. Takes up to some seconds where a password must be checked."""
        proof = await self._proof(hello)
        given = proof if isinstance(proof, Reason) else self._pass(hello, proof)
        return self._refusal(given, hello) if isinstance(given, Reason) else given

    def still_good(self, hello: Hello, given: Pass) -> bool:
        """Whether `admit` would give the same again: what was shown is still on file, and opens the same. Quick."""
        return self._pass(hello, given.proof) == given

    # ---- who it is ----

    async def _proof(self, hello: Hello) -> Proof | Reason:
        if not self._door.checks:
            return Proof(_named_by(hello.certificate) or _user(hello) or hello.client_id, "word")
        shown = self._by_certificate(hello) if hello.certificate else None
        if shown is not None:
            return shown
        if self._must_show:
            return await self._by_password(hello)
        return Proof(hello.client_id, "word")  # a user name that nobody checks is not who it is

    @property
    def _must_show(self) -> bool:
        return self._door.checks and (self._door.must_show or bool(self._file.current))

    def _by_certificate(self, hello: Hello) -> Proof | Reason | None:
        """None: it says only that the client is one of the fleet, and there is a password that says who."""
        assert hello.certificate is not None
        fingerprint = fingerprint_of(hello.certificate)
        listed = self._file.current.by_fingerprint.get(fingerprint)
        if listed is not None:
            return Proof(listed, "fingerprint", fingerprint)
        name = _named_by(hello.certificate)
        if name:
            return self._flaw(name) or Proof(name, "authority", fingerprint)
        if _user(hello) and hello.password is not None:
            return None
        # Its client id must do, as on AWS; but not one of a device that has shown the operator something better.
        name = hello.client_id
        return self._unlisted_flaw(name) or Proof(name, "fleet", fingerprint)

    def _flaw(self, name: str) -> Reason | None:
        """Why the CA's word for this name is not good enough."""
        device = self._file.current.devices.get(name, _NO_DEVICE)
        if device.revoked:
            return Reason.REVOKED
        return Reason.CERTIFICATE if device.fingerprints else None

    def _unlisted_flaw(self, client_id: str) -> Reason | None:
        """Likewise for a client id that no certificate has: its name, and its thing's, are not on file at all."""
        names = {client_id, thing_of(client_id, self._clients)} & self._file.current.devices.keys()
        if not names:
            return None
        return Reason.REVOKED if any(self._file.current.devices[name].revoked for name in names) else Reason.CERTIFICATE

    async def _by_password(self, hello: Hello) -> Proof | Reason:
        credentials, user = self._file.current, _user(hello)
        if not user or hello.password is None:
            return Reason.NO_CREDENTIALS
        own = credentials.hashes.get(user)
        kept = own or credentials.decoy_for(user)
        if kept is None:
            return Reason.LOGIN
        match await self._logins.judge(user, hello.password, kept, hello.ip):
            case Login.GOOD:
                return Proof(user, "password", kept.text)
            case Login.WRONG:
                return Reason.LOGIN
            case Login.THROTTLED:
                return Reason.THROTTLED
            case Login.BUSY:
                return Reason.BUSY
            case never:
                assert_never(never)

    # ---- what that opens ----

    def _pass(self, hello: Hello, proof: Proof) -> Pass | Reason:
        if not self._holds(proof):  # the file may have changed while the password was checked
            return Reason.REVOKED
        if not self._binds:
            return Pass(_user(hello) if proof.by == "word" else proof.name, judges=False, proof=proof)
        if not _is_name(proof.name):
            return Reason.NAME
        things = self._things(proof.name)
        if hello.client_id != proof.name and not things.have(thing_of(hello.client_id, self._clients)):
            # The broker ends the connection that has the same client id: nobody may do that to another.
            return Reason.CLIENT_ID
        return Pass(proof.name, judges=True, things=things, proof=proof)

    def _holds(self, proof: Proof) -> bool:
        credentials = self._file.current
        device = credentials.devices.get(proof.name, _NO_DEVICE)
        match proof.by:
            case "fingerprint":
                return credentials.by_fingerprint.get(proof.kept) == proof.name
            case "authority":
                return self._flaw(proof.name) is None and proof.kept not in credentials.by_fingerprint
            case "fleet":
                return self._unlisted_flaw(proof.name) is None and proof.kept not in credentials.by_fingerprint
            case "password":
                return device.password == proof.kept
            case "word":
                return not self._must_show
            case never:
                assert_never(never)

    @property
    def _binds(self) -> bool:
        identity = self._settings.identity
        return identity == "on" or (identity == "auto" and self._must_show)

    def _things(self, name: str) -> Things:
        also = self._settings.gateways.get(name, ())
        names = {thing_of(name, self._clients), *(one for one in also if not one.endswith("*"))}
        return Things(
            frozenset(filter(_is_name, names)), tuple(one.removesuffix("*") for one in also if one.endswith("*"))
        )

    def _refusal(self, reason: Reason, hello: Hello) -> Refusal:
        self.refusals[reason] += 1
        client = hello.client_id[:NAME_MAX]
        self._lines.warning(
            log, "devices.refused", self._clock.now_ns(), reason=str(reason), client=client, ip=hello.ip
        )
        return Refusal(str(reason), _CODES.get(reason, NOT_AUTHORIZED))


def thing_in(topic: str) -> str | None:
    """The THING of `$aws/things/THING/…`; a wildcard where a filter means several; None: it is no thing's topic.

    A topic or a filter may be wrapped, as in `$share/GROUP/FILTER`.
    """
    for _ in range(WRAPPINGS_MAX):
        levels = topic.split("/", 3)
        wrapping = _WRAPPINGS.get(levels[0])
        if wrapping is None:
            return _thing_at(levels)
        topic = "/".join(levels[wrapping:])
    return _EVERYTHING  # no honest client wraps so often


def _thing_at(levels: list[str]) -> str | None:
    if levels[0] != "$aws" or len(levels) == 1:
        return None
    if levels[1] == _EVERYTHING:
        return _EVERYTHING
    return levels[2] if levels[1] in {"things", "+"} and len(levels) > 2 else None


def _is_name(text: str) -> bool:
    """Whether it can stand in a topic as one level that is no wildcard."""
    return text != "" and not set(text) & set("+#/\0")


def _user(hello: Hello) -> str:
    """The user name; AWS's SDKs put their version behind a `?`, often with nothing before it."""
    return (hello.username or "").partition("?")[0]


def _named_by(der: bytes | None) -> str:
    """The common name of a certificate; "" where there is none, more than one, or the one that AWS gives to all."""
    if der is None:
        return ""
    try:
        names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return str(names[0].value) if len(names) == 1 and names[0].value != AWS_COMMON_NAME else ""
