"""The answers to reports, in the format of the request (spec.md §2.5)."""

import re
from typing import Any, Final

import cbor2
import msgspec

from actors.messages import Rejected

PLAIN: Final = re.compile(rb"[A-Za-z0-9_:.@ /-]+").fullmatch


def accepted(name: bytes, report_id: int, time_ms: int, *, cbor: bool) -> bytes:
    """The payload of …/accepted. The JSON form is written out: it is made once per report."""
    if cbor:
        return cbor2.dumps(
            {"thingName": name.decode(), "reportId": report_id, "status": "ACCEPTED", "timestamp": time_ms}
        )
    quoted = b'"%b"' % name if PLAIN(name) else msgspec.json.encode(name.decode())
    return b'{"thingName":%b,"reportId":%d,"status":"ACCEPTED","timestamp":%d}' % (quoted, report_id, time_ms)


def refused(name: bytes, why: Rejected, time_ms: int, *, cbor: bool) -> bytes:
    """The payload of …/rejected; it names the report where its id could be read."""
    body: dict[str, Any] = {
        "thingName": name.decode("utf-8", "replace"),
        "status": "REJECTED",
        "statusDetails": {"ErrorCode": why.code, "ErrorMessage": why.message},
        "timestamp": time_ms,
    }
    if why.report_id is not None:
        body["reportId"] = why.report_id
    return cbor2.dumps(body) if cbor else msgspec.json.encode(body)
