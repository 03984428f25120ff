"""Where a broker is and how to get in: a bridge's URL, and the files that hold its password and certificates."""

import ssl
from typing import Final
from urllib.parse import SplitResult, urlsplit

from config.model import Bridge
from config.secret import read_secret
from daemon.brokers._wire import Address

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class Where:
    """What the URL says; `resolve` adds what must be read from files."""

    def __init__(self, options: Bridge) -> None:
        """Raises ValueError where the URL can't be used."""
        url = urlsplit(options.url)
        self.scheme = url.scheme
        self.host, self.port = _host_and_port(options, url)
        self.client_id = options.client_id or f"detectd-{options.name}"
        self.path = (url.path or "/mqtt") if url.scheme in ("ws", "wss") else None
        self._options = options

    def resolve(self) -> Address:
        """Reads password and certificates: at every attempt, so that a renewed one is used. Blocks.

        Raises:
            OSError, ValueError, ConfigError: a file can't be read, or holds no such thing.
        """
        options = self._options
        return Address(
            host=self.host,
            port=self.port,
            transport="websockets" if self.path else "tcp",
            path=self.path,
            client_id=self.client_id,
            username=options.username,
            password=read_secret(options.password_file) if options.password_file else None,
            tls=_tls(options) if self.scheme in ("mqtts", "wss") else None,
        )


def _host_and_port(options: Bridge, url: SplitResult) -> tuple[str, int]:
    if url.username is not None or url.password is not None:
        raise ValueError(f"bridge {options.name!r}: no user or password in the URL: use `username` and `password_file`")
    try:
        port = url.port
    except ValueError:
        port = 0
    if not url.hostname or port == 0:
        raise ValueError(f"bridge {options.name!r}: the URL names no host, or no possible port")
    return url.hostname, port or PORTS[url.scheme]


class _ClosedOnFailure(ssl.SSLSocket):
    """paho forgets the socket of a handshake that failed; it would stay open until the collector comes by."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT002  # the standard library's signature
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls(options: Bridge) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    context.sslsocket_class = _ClosedOnFailure
    if options.cert is not None:
        context.load_cert_chain(options.cert, options.key)
    if options.alpn:
        context.set_alpn_protocols(list(options.alpn))
    return context
