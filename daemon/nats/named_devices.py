"""Without a sensor: lets in devices that say a user name. To nats-server only nameless ones are anonymous.

AWS's SDKs name themselves, and the agent's name holds the versions of its SDK
(`?SDK=IoTDeviceSDK/Python&Platform=…`), so no list can have them all. nats-server asks us instead (its *auth callout*),
and we answer: as any device, over MQTT, with the rights of the user `device`. Nameless devices need no answer, so they
come in while the daemon is away; named ones have to wait.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.client import Client
from nats.aio.msg import Msg

SUBJECT: Final = "$SYS.REQ.USER.AUTH"
ACCOUNT: Final = "$G"
WAYS: Final = ("MQTT", "MQTT_WS")
_ACCOUNT_KEY: Final = 0  # nkeys' prefix byte of an account: the key begins with A
_HEADER: Final = b'{"typ":"JWT","alg":"ed25519-nkey"}'

log = structlog.get_logger(__name__)


class NamedDevices:
    """Answers for one nats-server. `publish_denied`, `subscribe_denied`: subjects that no device may use."""

    def __init__(self, seed: bytes, publish_denied: Sequence[str], subscribe_denied: Sequence[str]) -> None:
        self.is_open = False  # while the door is shut, nobody gets an answer
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.issuer = account_key(self._key.public_key().public_bytes_raw())
        self._rights = {
            "pub": {"allow": [">"], "deny": list(publish_denied)},
            "sub": {"allow": [">"], "deny": list(subscribe_denied)},
        }

    async def serve(self, nc: Client) -> None:
        """From now on, for as long as `nc` lives. Raises nats.errors.Error."""

        async def on_request(request: Msg) -> None:
            answer = self.answer(request.data) if self.is_open else None
            if answer is not None:
                await nc.publish(request.reply, answer)

        await nc.subscribe(SUBJECT, cb=on_request)

    def answer(self, request: bytes) -> bytes | None:
        """The signed answer to a signed question; None: not one, left to nats-server's own time limit."""
        try:
            claims = _claims(request)
            asked, issued_s = claims["nats"], claims["iat"]
            user_key, server_id, info = asked["user_nkey"], asked["server_id"]["id"], asked["client_info"]
        except (ValueError, KeyError, TypeError):
            log.warning("nats.callout_unreadable", bytes=len(request))
            return None
        verdict = {"jwt": self._pass(user_key, issued_s)} if info.get("type") == "mqtt" else {"error": "not a device"}
        return self._signed(user_key, server_id, issued_s, {**verdict, "type": "authorization_response"}).encode()

    def _pass(self, user_key: str, issued_s: int) -> str:
        unlimited = {"subs": -1, "data": -1, "payload": -1}
        user = {**self._rights, **unlimited, "type": "user", "allowed_connection_types": WAYS}
        return self._signed(user_key, ACCOUNT, issued_s, user)

    def _signed(self, subject: str, audience: str, issued_s: int, body: Mapping[str, Any]) -> str:
        """A JWT as nats-server reads it. Its time is the question's own, so that no clock is needed."""
        claims = {"iss": self.issuer, "sub": subject, "aud": audience, "iat": issued_s, "nats": {**body, "version": 2}}
        digest = sha256(json.dumps(claims).encode()).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        text = f"{_base64url(_HEADER)}.{_base64url(json.dumps(claims).encode())}"
        return f"{text}.{_base64url(self._key.sign(text.encode()))}"


def account_key(public: bytes) -> str:
    """The public key of an account in nkeys' spelling: a kind, 32 bytes, a checksum."""
    body = bytes([_ACCOUNT_KEY]) + public
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")


def _claims(token: bytes) -> Any:
    """Unverified: only nats-server can publish on the subject that it came by (broker_conf: $SYS is denied)."""
    part = token.split(b".")[1] if token.count(b".") == 2 else b""
    return json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
