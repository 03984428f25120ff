"""TLS at the sensor: towards clients, whose certificates it verifies where it is told to; towards the broker behind.

An idle client costs 28 kB, one that showed a certificate 45 to 49 kB (plain: 4 kB). OpenSSL 3.0 alone keeps 17 and 30
of these. It gives back its read and write buffers as it is; no tickets, stateful ones or TLS 1.2 save next to nothing.
"""

import ssl
from pathlib import Path
from typing import Any, Final, cast

from config.model import Tls
from daemon import certificates

PROTOCOLS: Final = ["x-amzn-mqtt-ca", "mqtt"]
"""What clients may name in ALPN: AWS's do on port 443. Naming another one or none is no fault."""


def listener(tls: Tls) -> ssl.SSLContext:
    """Raises OSError: a file can't be read, or is not what it should be."""
    made = _Listener(ssl.PROTOCOL_TLS_SERVER)
    certificates.put_into(made, tls)
    made.set_alpn_protocols(PROTOCOLS)
    return made


def upstream(ca: Path | None) -> ssl.SSLContext:
    """Trusts `ca`, else what the system trusts. Raises OSError."""
    return ssl.create_default_context(cafile=ca)


def last_words(problem: BaseException) -> bytes:
    """What a client whose handshake failed is still to be told: the alert that says why."""
    words: bytes = getattr(problem, _WORDS, b"")
    return words


_WORDS: Final = "last_words"


class _Object(ssl.SSLObject):
    """asyncio and uvloop close the socket of a failed handshake before its alert is sent: so it goes with the error."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as problem:
            setattr(problem, _WORDS, self.outgoing.read())
            raise


class _Listener(ssl.SSLContext):
    sslobject_class = _Object

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        made = cast("_Object", super().wrap_bio(incoming, outgoing, *args, **options))
        made.outgoing = outgoing
        return made
