"""The demo without a terminal: one plain line per event, its type and its thing in it."""

import json
import time

from receiver import Delivery


def line(delivery: Delivery) -> str:
    """`12:03:07 in-alarm pump-07 everything/allowed-ports {"ports": [4444]}`"""
    value = "" if delivery.value is None else " " + shortened(delivery.value)
    what = f"{delivery.type} {delivery.thing} {delivery.profile}/{delivery.behavior}"
    return f"{clock(delivery.received_s)} {what}{value}"


def clock(at_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_s))


def shortened(value: dict[str, object], chars_max: int = 60) -> str:
    """A metric value as JSON, cut where it gets long."""
    text = json.dumps(value)
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
