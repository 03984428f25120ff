"""Recordings: a part of the log as JSON Lines, whose replay gives the very same events, ids included.

The first line is a header: the log's identity, the floor between reports where none is configured, and the rules in
force. Every entry follows with its position and time; a change of the rules carries the rules themselves. A recording
from the log's first entry replays exactly; one that begins later begins without what the actors remembered.
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec

from actors.controls import CHANGE, Change
from actors.messages import CONTROL, REPORT_JSON, Frames
from config.diff import rules_bytes, rules_digest
from config.model import NS, Rules
from daemon.replay import Header

VERSION: Final = 1

_encoder = msgspec.json.Encoder()


def header(identity: str, rules: Rules, report_interval_default_s: float = 300.0) -> bytes:
    """The first line."""
    body = Header(VERSION, identity, report_interval_default_s, rules_digest(rules), msgspec.Raw(rules_bytes(rules)))
    return _encoder.encode(body) + b"\n"


async def lines(entries: AsyncIterator[Frames], definition: Callable[[str], Awaitable[Rules]]) -> AsyncIterator[bytes]:
    """One line per entry of the log."""
    async for frames in entries:
        for i in range(len(frames)):
            line = _line(frames, i)
            if line["subject"] == CHANGE:
                digest = msgspec.json.decode(frames.payload(i), type=Change).digest
                line["rules"] = msgspec.Raw(rules_bytes(await definition(digest)))
            yield _encoder.encode(line) + b"\n"


def _line(frames: Frames, i: int) -> dict[str, Any]:
    ts, origin = int(frames.ts[i]), int(frames.origin[i])
    line: dict[str, Any] = {"time": ts / NS, "seq": int(frames.seq[i]), "ts": ts, "subject": frames.subject(i)}
    if origin != ts:
        line["origin"] = origin
    if frames.flags[i]:
        line["flags"] = int(frames.flags[i])
    payload = frames.payload(i)
    if payload:
        line["payload"] = _payload(payload, plain=int(frames.kind[i]) in (REPORT_JSON, CONTROL))
    return line


def _payload(payload: bytes, *, plain: bool) -> Any:
    """The JSON itself where that gives the same bytes back, else base64."""
    # A string would be taken for base64, and a line break would end the line.
    if plain and payload[:1] in b"{[" and b"\n" not in payload and b"\r" not in payload and _is_json(payload):
        return msgspec.Raw(payload)
    return base64.b64encode(payload).decode()


def _is_json(payload: bytes) -> bool:
    try:
        payload.decode()
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
