"""Who changed what, and when: one row per change, in the same transaction as the change itself."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

Con = sqlite3.Connection

DETAIL_BYTES_MAX: Final = 65_536
ROWS_MAX: Final = 1_000_000
"""The oldest go beyond this (`forget`)."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: `who` is an access key's id, "local" where none is needed, or the file that was read."""

    who: str
    address: str = ""


class Entry(msgspec.Struct, frozen=True):
    """One change. `detail` is JSON: what was asked, or what was there before."""

    id: int
    time_ns: int
    who: str
    address: str
    action: str
    resource: str
    detail: str


def note(con: Con, now_ns: int, actor: Actor, action: str, resource: str, detail: Mapping[str, Any]) -> None:
    """Put a change into the trail. `action` is the operation's name, or what stands for it ("reload", "import")."""
    body = msgspec.json.encode(detail, enc_hook=str).decode()
    if len(body) > DETAIL_BYTES_MAX:
        body = msgspec.json.encode({"cut": body[: DETAIL_BYTES_MAX // 2]}).decode()
    row = (now_ns, actor.who, actor.address, action, resource, body)
    con.execute("INSERT INTO audit (time_ns, who, address, action, resource, detail) VALUES (?, ?, ?, ?, ?, ?)", row)


def entries(con: Con, since_ns: int, limit: int, before_id: int = 2**62) -> list[Entry]:
    """The newest first."""
    sql = (
        "SELECT id, time_ns, who, address, action, resource, detail FROM audit "
        "WHERE time_ns >= ? AND id < ? ORDER BY id DESC LIMIT ?"
    )
    return [Entry(*row) for row in con.execute(sql, (since_ns, before_id, limit))]


def forget(con: Con, most: int = ROWS_MAX) -> int:
    """Bound the trail; how many of the oldest went."""
    return con.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (most,)).rowcount
