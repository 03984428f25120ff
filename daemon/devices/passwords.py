"""What is kept of a password: a salted scrypt hash, written so that it says how it was made.

scrypt is in the standard library. Argon2 would be as good and one dependency more.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32
MEMORY_BYTES_MAX: Final = 64 * 1024**2
"""What one check may take. A hash that would take more is none of ours."""
PARALLEL_MAX: Final = 4
_SPELLED: Final = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9])\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")


@dataclass(frozen=True, slots=True)
class Cost:
    """scrypt's parameters; N is 2 to the power of `log_n`. A check takes 128 * N * r bytes."""

    log_n: int
    r: int = 8
    p: int = 1

    @property
    def memory_bytes(self) -> int:
        return 128 * self.r * int(2**self.log_n)


CHOSEN: Final = Cost(14)
"""For a password that somebody chose: about 30 ms and 16 MiB."""
GENERATED: Final = Cost(10)
"""For one of 160 random bits: nobody guesses that, however cheap a guess. 2 ms, so that a fleet is back quickly."""


@dataclass(frozen=True, slots=True)
class Hash:
    cost: Cost
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """As it is written down; `parsed` reads it."""
        cost = self.cost
        return f"$scrypt$ln={cost.log_n},r={cost.r},p={cost.p}${_base64(self.salt)}${_base64(self.digest)}"


def generated() -> str:
    """A new password: 160 random bits in 27 characters that survive shells and configuration files."""
    return secrets.token_urlsafe(20)


def hashed(password: bytes, cost: Cost = CHOSEN) -> Hash:
    """Takes as long as `cost` says."""
    salt = secrets.token_bytes(SALT_BYTES)
    return Hash(cost, salt, _digest(password, salt, cost))


def is_right(password: bytes, kept: Hash) -> bool:
    """Takes as long whether it is or not."""
    return hmac.compare_digest(_digest(password, kept.salt, kept.cost), kept.digest)


def decoy(cost: Cost) -> Hash:
    """What a password that nobody has is checked against: as slow as a real one, and never right."""
    return Hash(cost, b"\0" * SALT_BYTES, secrets.token_bytes(DIGEST_BYTES))


def parsed(text: str) -> Hash:
    """What `Hash.text` wrote.

    Raises:
        ValueError: it did not, or a check of it would take more than a check may. The text is not shown.
    """
    spelled = _SPELLED.fullmatch(text)
    if spelled is None:
        raise ValueError("is no scrypt hash")
    cost = Cost(*(int(number) for number in spelled.groups()[:3]))
    if not all((cost.log_n, cost.r, cost.p)) or cost.p > PARALLEL_MAX or cost.memory_bytes > MEMORY_BYTES_MAX:
        raise ValueError("has parameters that are out of bounds")
    kept = Hash(cost, _bytes(spelled[4]), _bytes(spelled[5]))
    if len(kept.digest) != DIGEST_BYTES or kept.text != text:
        raise ValueError("is no scrypt hash of ours")
    return kept


def _digest(password: bytes, salt: bytes, cost: Cost) -> bytes:
    return hashlib.scrypt(
        # OpenSSL asks for a little more than the tables themselves.
        password, salt=salt, n=2**cost.log_n, r=cost.r, p=cost.p, maxmem=2 * MEMORY_BYTES_MAX, dklen=DIGEST_BYTES
    )  # fmt: skip


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("is no scrypt hash: its base64 is broken") from None
