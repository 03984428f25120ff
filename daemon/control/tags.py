"""Tags of resources (spec.md §10.6). What a file defines has one more, which says so: `detectd:source`."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from config.export import EXPORT_BRIDGE
from config.objects import TAGS_MAX
from daemon.control.refusal import InvalidRequestException, LimitExceededException, Refusal

Con = sqlite3.Connection

SOURCE: Final = "detectd:source"
RESERVED: Final = ("aws:", "detectd:")
TABLES: Final = {
    "securityprofile": "profiles",
    "dimension": "dimensions",
    "custommetric": "custom_metrics",
    "thinggroup": "thing_groups",
    "thingtype": "thing_types",
    "billinggroup": "billing_groups",
}
"""The kinds of resources that have tags, and their tables."""
WITHOUT_FILE: Final = frozenset({"thing_types", "billing_groups"})


def file_of(con: Con, resource: str) -> tuple[bool, str | None]:
    """Whether a resource exists, and the file that defines it.

    Raises:
        InvalidRequestException: a resource of its kind can't have tags.
    """
    kind, _, name = resource.partition("/")
    table = TABLES.get(kind)
    if table is None:
        raise InvalidRequestException(f"{kind!r} can't have tags; what can: {', '.join(sorted(TABLES))}")
    column = "NULL" if table in WITHOUT_FILE else "file"
    row = con.execute(f"SELECT {column} FROM {table} WHERE name = ?", (name,)).fetchone()  # noqa: S608  # one of six
    return row is not None, row[0] if row else None


def put(
    con: Con, resource: str, tags: Sequence[Mapping[str, Any]], too_many: type[Refusal] = LimitExceededException
) -> None:
    """Set tags, keeping those of other keys. `too_many`: where the operation's model has no LimitExceededException.

    Raises:
        InvalidRequestException: a key is reserved, or given twice.
        LimitExceededException: more than TAGS_MAX.
    """
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) < len(keys):
        raise InvalidRequestException("a tag key is given twice")
    for key in keys:
        if key.lower().startswith(RESERVED) and key != EXPORT_BRIDGE:
            raise InvalidRequestException(f"tag keys that begin with {' or '.join(RESERVED)} are reserved")
    rows = [(resource, tag["Key"], tag.get("Value", "")) for tag in tags]
    con.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", rows)
    (count,) = con.execute("SELECT count(*) FROM tags WHERE resource = ?", (resource,)).fetchone()
    if count > TAGS_MAX:
        raise too_many(f"{resource} would have {count} tags; at most {TAGS_MAX}")


def of(con: Con, resource: str) -> list[tuple[str, str]]:
    """(key, value) in the order of keys, with SOURCE where a file defines the resource."""
    found = con.execute("SELECT key, value FROM tags WHERE resource = ? ORDER BY key", (resource,)).fetchall()
    _, file = file_of(con, resource)
    return found if file is None else sorted({**dict(found), SOURCE: file}.items())


def drop(con: Con, resource: str, keys: Sequence[str] | None = None) -> None:
    """Remove these keys, or all tags of the resource."""
    if keys is None:
        con.execute("DELETE FROM tags WHERE resource = ?", (resource,))
    else:
        con.executemany("DELETE FROM tags WHERE resource = ? AND key = ?", [(resource, key) for key in keys])


def same(con: Con, resource: str, tags: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a resource has exactly these tags: what makes a repeated creation the same."""
    known = con.execute("SELECT key, value FROM tags WHERE resource = ?", (resource,)).fetchall()
    return sorted(known) == sorted((tag["Key"], tag.get("Value", "")) for tag in tags)
