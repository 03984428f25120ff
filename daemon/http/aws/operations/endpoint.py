"""Where devices connect (spec.md §10.7)."""

from typing import Any, Final

from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException

TYPES: Final = frozenset({"iot:Data", "iot:Data-ATS", "iot:Data-Beta"})


async def describe_endpoint(call: Call) -> dict[str, Any]:
    """The embedded broker's listener, `host:port`; the port that the system chose, where that is left to it."""
    wanted = call.params.get("endpointType", "iot:Data-ATS")
    embedded = call.plane.settings.broker.embedded
    if wanted not in TYPES or embedded is None:
        raise InvalidRequestException(f"there is no endpoint of type {wanted} here")
    return {"endpointAddress": call.plane.endpoint() or embedded.mqtt}
