"""What a sensor counts of itself; daemon/telemetry.py has the words (SENSOR_TOTALS)."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Totals since the start, but for the first three, which are of now."""

    connections: int = 0
    ungreeted: int = 0  # have sent no CONNECT yet
    waiting: int = 0  # have, and are not through to the broker yet
    accepted: int = 0
    connected: int = 0
    connect_failed: int = 0
    disconnected: int = 0
    left: int = 0  # of these, those that said DISCONNECT
    published: int = 0
    reports: int = 0
    report_waits: int = 0
    delivered: int = 0
    denied: int = 0
    refused: int = 0
    revoked: int = 0
    silent: int = 0
    lapsed: int = 0
    malformed: int = 0
    oversize: int = 0
    crowded: int = 0
    handshakes_failed: int = 0
    unreachable: int = 0
    unnamed: int = 0
    pauses: int = 0
    stored: int = 0
    dropped: int = 0
