"""What a simulated device reports: everyday traffic while it is well, an intruder's traces while it is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

PORTS: Final = (22, 80, 443, 8883, 9100)
"""Ports on which a well device listens; each device has its own three to five of them."""

PEERS: Final = ("10.20.0.0/16", "192.0.2.0/24", "2001:db8:20::/48")
"""Where a well device's connections lead."""

CONNECTIONS_MAX: Final = 8
BYTES_OUT_MAX: Final = 20_000
"""What a well device sends at most in one report."""

INTRUDER: Final = "203.0.113.66"
INTRUDER_PORT: Final = 4444
FLOOD_BYTES: Final = 400_000


@dataclass(frozen=True, slots=True)
class Device:
    """One device's habits. They follow from its name and the seed, so a fleet looks the same in every run."""

    thing: str
    ports: tuple[int, ...]
    peers: tuple[str, ...]
    connections: int


def fleet(things: Sequence[str], seed: int) -> list[Device]:
    """A device for every name. Every fourth always holds CONNECTIONS_MAX connections: the top of a group is shared."""
    return [_device(thing, 5 + i % 4, Random(f"{seed}/{thing}")) for i, thing in enumerate(things)]


def _device(thing: str, connections: int, rng: Random) -> Device:
    ports = tuple(sorted(rng.sample(PORTS, rng.randint(3, 5))))
    peers = tuple(_peer(rng) for _ in range(CONNECTIONS_MAX))
    return Device(thing, ports, peers, connections)


def _peer(rng: Random) -> str:
    port = rng.choice((443, 8883, 5671))
    return rng.choice(
        (
            f"10.20.{rng.randrange(256)}.{rng.randrange(1, 255)}:{port}",
            f"192.0.2.{rng.randrange(1, 255)}:{port}",
            f"[2001:db8:20::{rng.randrange(1, 65536):x}]:{port}",
        )
    )


def report(device: Device, report_id: int, rng: Random, *, ill: bool) -> dict[str, Any]:
    """A report in AWS's format, long keys (spec.md §2.4): of an ordinary interval, or of one with an intruder."""
    ports, remote, bytes_out, cpu = _well(device, rng)
    if ill:
        ports, remote = [*ports, INTRUDER_PORT], [*remote, *_intruders(rng)]
        bytes_out, cpu = bytes_out + FLOOD_BYTES + rng.randrange(FLOOD_BYTES), 97.0 + rng.randrange(30) / 10
    return {
        "header": {"report_id": report_id, "version": "1.0"},
        "metrics": {
            "listening_tcp_ports": {"ports": [{"interface": "eth0", "port": p} for p in ports], "total": len(ports)},
            "listening_udp_ports": {"ports": [{"interface": "eth0", "port": 5353}], "total": 1},
            "network_stats": _traffic(bytes_out, rng),
            "tcp_connections": {"established_connections": _established(remote, rng)},
        },
        "custom_metrics": {"cpu_usage": [{"number": cpu}]},
    }


def _well(device: Device, rng: Random) -> tuple[list[int], list[str], int, float]:
    count = min(CONNECTIONS_MAX, device.connections + rng.choice((0, 0, 1)))
    bytes_out = min(BYTES_OUT_MAX, round(rng.lognormvariate(8.5, 0.4)))
    return list(device.ports), list(device.peers[:count]), bytes_out, round(rng.uniform(4, 45), 1)


def _intruders(rng: Random) -> list[str]:
    return [f"{INTRUDER}:{rng.randrange(6660, 6670)}" for _ in range(rng.randint(12, 20))]


def _traffic(bytes_out: int, rng: Random) -> dict[str, int]:
    bytes_in = round(rng.lognormvariate(8, 0.4))
    return {
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "packets_in": bytes_in // 300 + 1,
        "packets_out": bytes_out // 700 + 1,
    }


def _established(remote: Sequence[str], rng: Random) -> dict[str, Any]:
    connections = [
        {"local_interface": "eth0", "local_port": rng.randrange(32768, 61000), "remote_addr": address}
        for address in remote
    ]
    return {"connections": connections, "total": len(connections)}
