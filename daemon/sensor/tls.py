"""TLS at the sensor: towards clients, whose certificates it verifies where it is told to; towards the broker behind."""

import ssl
from pathlib import Path
from typing import Final

from config.model import Tls

PROTOCOLS: Final = ["x-amzn-mqtt-ca", "mqtt"]
"""What clients may name in ALPN: AWS's do on port 443. Naming another one or none is no fault."""


def listener(tls: Tls) -> ssl.SSLContext:
    """Raises OSError: a file can't be read, or is not what it should be."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
    made.load_cert_chain(tls.cert, tls.key)
    made.verify_mode = ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE
    made.set_alpn_protocols(PROTOCOLS)
    return made


def upstream(ca: Path | None) -> ssl.SSLContext:
    """Trusts `ca`, else what the system trusts. Raises OSError."""
    return ssl.create_default_context(cafile=ca)
