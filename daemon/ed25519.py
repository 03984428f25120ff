"""Signatures by Ed25519 (RFC 8032, section 5.1), for telling our own nats-server who may come in.

Signing only, and only on this machine: the key never leaves the data directory, and whoever could time us can read it
there. That is why thirty lines of arithmetic do instead of a cryptographic library of 4 MB. About 0.5 ms a signature.
"""

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha512
from typing import Final, NamedTuple

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_WINDOW_BITS: Final = 4
_WINDOWS: Final = 64


class _Point(NamedTuple):
    """Extended coordinates: the affine point is (x/z, y/z), and t = xy/z."""

    x: int
    y: int
    z: int
    t: int


_NEUTRAL: Final = _Point(0, 1, 1, 0)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`seed`: 32 random bytes."""

    seed: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return _encoded(_times_base(self._secret()[0]))

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message always gives the same ones."""
        scalar, prefix = self._secret()
        nonce = _number(sha512(prefix + message).digest()) % _ORDER
        commitment = _encoded(_times_base(nonce))
        challenge = _number(sha512(commitment + self.public + message).digest()) % _ORDER
        return commitment + ((nonce + challenge * scalar) % _ORDER).to_bytes(32, "little")

    def _secret(self) -> tuple[int, bytes]:
        digest = sha512(self.seed).digest()
        # A multiple of 8 between 2^254 and 2^255, as the standard wants it.
        return _number(digest[:32]) & (2**255 - 8) | 2**254, digest[32:]


def _times_base(scalar: int) -> _Point:
    point = _NEUTRAL
    for row in _multiples_of_base():
        point = _add(point, row[scalar & (2**_WINDOW_BITS - 1)])
        scalar >>= _WINDOW_BITS
    return point


@cache
def _multiples_of_base() -> tuple[tuple[_Point, ...], ...]:
    """Row i holds 0, 1, … 15 times 16^i B: a scalar's digits pick what to add, and nothing is doubled."""
    rows, step = [], _base()
    for _ in range(_WINDOWS):
        row = [_NEUTRAL]
        for _ in range(2**_WINDOW_BITS):
            row.append(_add(row[-1], step))
        step = row.pop()
        rows.append(tuple(row))
    return tuple(rows)


def _base() -> _Point:
    """The point with y = 4/5 and an even x."""
    y = 4 * pow(5, -1, _P) % _P
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    x = x if x % 2 == 0 else _P - x
    return _Point(x, y, 1, x * y % _P)


def _add(p: _Point, q: _Point) -> _Point:
    a = (p.y - p.x) * (q.y - q.x) % _P
    b = (p.y + p.x) * (q.y + q.x) % _P
    c = 2 * p.t * q.t * _D % _P
    d = 2 * p.z * q.z % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return _Point(e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _encoded(point: _Point) -> bytes:
    inverse = pow(point.z, -1, _P)
    x, y = point.x * inverse % _P, point.y * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
