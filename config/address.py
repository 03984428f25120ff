"""Where to listen: `host:port`, an IPv6 address in brackets, and whether only this machine can reach it."""

from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Address:
    """`host` has no brackets; port 0 stands for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether no other machine can reach it. A name other than localhost may lead anywhere."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_everywhere(self) -> bool:
        """Listened on, it is every address of this machine; nobody can call there."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104  # compared, not listened on


def parse_address(text: str) -> Address | None:
    """`127.0.0.1:8080`, `[::1]:8080`, `localhost:0`; None where it is no such address."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65_535:
        return None
    if bracketed != (":" in host) or not all(c.isalnum() or c in ".:-_%" for c in host):
        return None
    return Address(host, int(port))


def address_of(text: str) -> Address:
    """As `parse_address`, where it has been checked. Raises ValueError."""
    address = parse_address(text)
    if address is None:
        raise ValueError(f"{text!r} is not of the form host:port, with an IPv6 address in brackets")
    return address
