"""The fleet that every bench measures: its rules (10 behaviors) and its reports, about 1 kB each."""

import random
from collections.abc import Iterator
from typing import Any, Final

import msgspec

THINGS: Final = 10_000
PORTS: Final = (22, 80, 443, 8883)
WRONG_PORT: Final = 31_337
PEERS: Final = 8  # remote addresses per report, nearly all of them new ones

# Where no peer of the fleet is: documentation, benchmarking, private and multicast networks.
FORBIDDEN: Final = [
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    "2001:db8::/32", "fc00::/7", "fe80::/10",
]  # fmt: skip


def name(number: int) -> str:
    return f"thing-{number % THINGS:05d}"


def subject(number: int) -> str:
    return f"$aws.things.{name(number)}.defender.metrics.json"


def topic(number: int) -> bytes:
    return subject(number).replace(".", "/").encode()


def reports(count: int, *, wrong_share: float = 0.0, seed: int = 1) -> Iterator[bytes]:
    """Report n is of thing n modulo THINGS. One that is `wrong` listens on a port that it must not listen on."""
    chance = random.Random(seed)
    for number in range(count):
        yield report(number + 1, chance, wrong=chance.random() < wrong_share)


def report(report_id: int, chance: random.Random, *, wrong: bool = False) -> bytes:
    ports = (*PORTS, WRONG_PORT) if wrong else PORTS
    return msgspec.json.encode(
        {
            "header": {"report_id": report_id, "version": "1.0"},
            "metrics": {
                "listening_tcp_ports": {
                    "ports": [{"interface": "eth0", "port": p} for p in ports],
                    "total": len(ports),
                },
                "listening_udp_ports": {"ports": [{"interface": "eth0", "port": 5353}], "total": 1},
                "network_stats": {
                    "bytes_in": chance.randrange(50_000),
                    "bytes_out": chance.randrange(20_000),
                    "packets_in": chance.randrange(400),
                    "packets_out": chance.randrange(300),
                },
                "tcp_connections": {
                    "established_connections": {"connections": [_peer(chance) for _ in range(PEERS)], "total": PEERS}
                },
            },
        }
    )


def _peer(chance: random.Random) -> dict[str, Any]:
    address = f"{chance.randrange(11, 100)}.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}"
    return {
        "local_interface": "eth0",
        "local_port": chance.randrange(1024, 65_535),
        "remote_addr": f"{address}:{chance.choice((443, 8883, 5671))}",
    }


def profile() -> dict[str, Any]:
    """Numeric with 300 s sums, snapshots, port sets, a CIDR set and a percentile."""
    return {
        "securityProfileName": "fleet",
        "targets": ["all/things"],
        "behaviors": [
            *(_sum(metric) for metric in ("bytes-out", "bytes-in", "packets-out", "packets-in")),
            _behavior("aws:num-established-tcp-connections", "less-than-equals", {"count": 1_000}),
            _behavior("aws:num-listening-tcp-ports", "less-than-equals", {"count": 100}),
            _behavior("aws:listening-tcp-ports", "in-port-set", {"ports": list(PORTS)}),
            _behavior("aws:listening-udp-ports", "in-port-set", {"ports": [5353]}),
            _behavior("aws:destination-ip-addresses", "not-in-cidr-set", {"cidrs": FORBIDDEN}),
            _percentile(),
        ],
    }


def _behavior(metric: str, operator: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    criteria = {"comparisonOperator": operator, "value": value, **more}
    return {"name": metric.removeprefix("aws:"), "metric": metric, "criteria": criteria}


def _sum(metric: str) -> dict[str, Any]:
    return _behavior(f"aws:all-{metric}", "less-than-equals", {"count": 10**12}, durationSeconds=300)


def _percentile() -> dict[str, Any]:
    criteria = {
        "comparisonOperator": "less-than-equals",
        "statisticalThreshold": {"statistic": "p99.9"},
        "durationSeconds": 300,
    }
    return {"name": "unusual", "metric": "aws:all-bytes-out", "criteria": criteria}
