"""Where devices connect (spec.md §10.7)."""

import socket
from dataclasses import replace
from typing import Any, Final

from config.address import address_of
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException

TYPES: Final = frozenset({"iot:Data", "iot:Data-ATS", "iot:Data-Beta"})


async def describe_endpoint(call: Call) -> dict[str, Any]:
    """The embedded broker's listener, `host:port`; the port that the system chose, where that is left to it."""
    wanted = call.params.get("endpointType", "iot:Data-ATS")
    embedded = call.plane.settings.broker.embedded
    if wanted not in TYPES or embedded is None:
        raise InvalidRequestException(f"there is no endpoint of type {wanted} here")
    there = address_of(call.plane.endpoint() or embedded.mqtt)
    if there.is_everywhere:  # by which nobody elsewhere could find it
        there = replace(there, host=socket.gethostname())
    return {"endpointAddress": str(there)}
