"""How values are spelled as integers: floats in order, addresses as 128 bits, thing names as canonical UTF-8."""

import re
import struct
import unicodedata
from ipaddress import IPv6Address
from typing import Any, Final, cast
from urllib.parse import quote

import numpy as np
from numba import njit

NAME_BYTES_MAX: Final = 128  # spec.md §2.1
MAPPED: Final = 0xFFFF << 32  # ::ffff:0:0/96, where IPv4 lives among the IPv6 addresses
I64_MAX: Final = 2**63 - 1

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4: Final = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")

_DOUBLE: Final = struct.Struct("<d")
_LONG: Final = struct.Struct("<q")
_BARE: Final = "_-:"  # what a bridge's token may hold besides letters and digits
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


def key_of(value: float) -> int:
    """The order-preserving int64 image of a finite float: 0.0 and -0.0 are 0, negative floats have negative keys."""
    bits = cast("int", _LONG.unpack(_DOUBLE.pack(value))[0])
    return bits if bits >= 0 else -(bits & I64_MAX)


def float_of(key: int) -> float:
    """The inverse of `key_of`."""
    bits = key if key >= 0 else -key - I64_MAX - 1
    return cast("float", _DOUBLE.unpack(_LONG.pack(bits))[0])


@njit(nogil=True)
def compiled_key_of(value: float) -> int:
    """`key_of`, to be called from kernels."""
    double: Any = np.float64(value)
    bits: int = double.view(np.int64)
    return bits if bits >= 0 else -(bits & I64_MAX)


def address_key(text: str) -> tuple[int, int]:
    """The 128 bits of an address literal, (hi, lo); IPv4 as ::ffff:a.b.c.d. ValueError where it is none."""
    if IPV4.fullmatch(text):  # three times as fast as `ipaddress`
        a, b, c, d = map(int, text.split("."))
        return 0, MAPPED | a << 24 | b << 16 | c << 8 | d
    value = int(IPv6Address(text))
    return value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF


def thing_name(token: bytes, bridged: bool) -> bytes | None:
    """The thing that a subject's token names, or None where it names none (spec.md §2.1: ≤ 128 bytes, no controls).

    nats-server spells a `.` of an MQTT level as `//` and an empty level as `/`; a bridge writes `bridge_token`.
    """
    name = _percent_decoded(token) if bridged else token.replace(b"//", b".")
    if name is None or b"/" in name or not 0 < len(name) <= NAME_BYTES_MAX:
        return None
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    # `+` and `#` can be in no topic that was published to; a reply there would be an error of ours.
    fit = all(unicodedata.category(char) != "Cc" and char not in "+#" for char in text)
    return name if fit else None


def bridge_token(name: str) -> str:
    """`name` as a NATS token: everything outside [A-Za-z0-9_-:] percent-encoded. `thing_name` is the inverse."""
    return quote(name, safe=_BARE).replace(".", "%2E").replace("~", "%7E")


def _percent_decoded(token: bytes) -> bytes | None:
    """None where a `%` is not followed by two hexadecimal digits."""
    first, *rest = token.split(b"%")
    decoded = [first]
    for piece in rest:
        if len(piece) < 2 or not _HEX.issuperset(piece[:2]):
            return None
        decoded.append(bytes.fromhex(piece[:2].decode()) + piece[2:])
    return b"".join(decoded)
