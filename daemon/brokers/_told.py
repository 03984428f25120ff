"""What brokers write about a client, made plain: its id, its address, the moment.

All of it was written by others, and some of it by the client itself: nothing here raises.
"""

from typing import Final

import msgspec

from actors.event_columns import canonical_address
from actors.events import TEXT_BYTES_MAX

INTEGER_MAX: Final = 2**63 - 1  # the core counts in 64 bits
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec's decoders raise: text that is no UTF-8 is not one of its own errors."""


def client_id_of(*candidates: object) -> str:
    """The first that can be a client's id; "" where none can: no thing has such a name."""
    for one in candidates:
        if isinstance(one, str) and one and _can_be_an_id(one):
            return one
    return ""


def _can_be_an_id(text: str) -> bool:
    """No MQTT string holds a NUL, a JSON text may; nothing that we decode holds half a surrogate, a caller's may."""
    return "\0" not in text and len(text.encode(errors="replace")) <= TEXT_BYTES_MAX


def text_of(value: object) -> str:
    """A text, not longer than an event may carry; "" where it is none."""
    return value[:TEXT_BYTES_MAX] if isinstance(value, str) else ""


def count_of(value: object) -> int:
    """A number that is not negative and not beyond 64 bits; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX else 0


def instant_ns(ms: object, received_ns: int) -> int:
    """A broker's milliseconds as ns, or the time of receipt: see `past_ns`."""
    return past_ns(count_of(ms) * 1_000_000, received_ns)


def past_ns(told_ns: int, received_ns: int) -> int:
    """The instant that a broker tells; the time of receipt where it tells none (0), or one that lies ahead of that.

    What was heard has happened: a broker whose clock is fast must not put events into windows to come.
    """
    return told_ns if 0 < told_ns <= received_ns else received_ns


def ip_of(text: object, *, has_port: bool = False) -> str:
    """The address in `1.2.3.4`, `1.2.3.4:56`, `::1`, `[::1]:56`; "" where it is none.

    `has_port`: a port is always behind it; without that, `::1:56` is taken for an address. An IPv4 client of an IPv6
    listener (`::ffff:1.2.3.4`) has its IPv4 address: rules are written for those.
    """
    if not isinstance(text, str) or not 2 <= len(text) <= 64:
        return ""
    host = text.rpartition(":")[0] if has_port else text
    return _plain(host) or (_plain(text.rpartition(":")[0]) if not has_port else "")


def _plain(host: str) -> str:
    return canonical_address(host.removeprefix("[").removesuffix("]")) or ""
