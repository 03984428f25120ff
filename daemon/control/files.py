"""What files define, copied into the tables of the control plane and marked with its file.

A definition that the API made, and that a file now makes, becomes the file's; the audit trail keeps what it was.
What a file no longer defines goes, unless the API made it too (things, groups, memberships).
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import uuid4

import msgspec

from config.check import check_merged
from config.kinds import Kinds
from config.merge import merged
from config.model import Fleet, Group, Rules, Settings, Tag
from daemon.control import audit
from daemon.control.definitions import dimension_body, metric_body, profile_body
from daemon.control.refusal import InvalidRequestException
from daemon.control.rules import api_rules

Con = sqlite3.Connection
Bodies = Mapping[str, tuple[str, str, tuple[Tag, ...]]]
"""name -> (body, file, tags)"""


def take_files(con: Con, settings: Settings, kinds: Kinds, actor: audit.Actor, now_ns: int) -> None:
    """Make the tables say what the files say.

    Raises:
        InvalidRequestException: with what the API made, they make no valid whole; every problem, a line each.
    """
    rules, origin = settings.rules, settings.origin
    profiles = {
        each.security_profile_name: (profile_body(each), origin[f"profile/{each.security_profile_name}"], each.tags)
        for each in rules.profiles
    }
    metrics = {
        each.metric_name: (metric_body(each), origin[f"custom-metric/{each.metric_name}"], each.tags)
        for each in rules.custom_metrics
    }
    dimensions = {
        each.name: (dimension_body(each), origin[f"dimension/{each.name}"], each.tags) for each in rules.dimensions
    }
    for table, kind, bodies in (
        ("profiles", "securityprofile", profiles),
        ("custom_metrics", "custommetric", metrics),
        ("dimensions", "dimension", dimensions),
    ):
        _take_definitions(con, table, kind, bodies, actor, now_ns)
    _take_targets(con, rules)
    _take_fleet(con, settings, actor, now_ns)
    # Members decide nothing between definitions, there may be a million, and `load` has checked their names.
    refuse_broken(merged(without_members(rules), api_rules(con, members=False)), kinds)


def refuse_broken(rules: Rules, kinds: Kinds) -> None:
    """Raises InvalidRequestException: files and API make no valid whole; every problem, a line each."""
    problems = check_merged(rules, kinds)
    if problems:
        raise InvalidRequestException("\n".join(problems))


def without_members(rules: Rules) -> Rules:
    """Groups as they hang together, without their things."""
    groups = {name: Group(group.parent) for name, group in rules.fleet.groups.items()}
    return msgspec.structs.replace(rules, fleet=Fleet(groups=groups))


# Profiles, custom metrics, dimensions


def _take_definitions(con: Con, table: str, kind: str, bodies: Bodies, actor: audit.Actor, now_ns: int) -> None:
    known = {
        name: (body, file)
        for name, body, file in con.execute(f"SELECT name, body, file FROM {table}")  # noqa: S608  # one of three
    }
    for name, (_, file) in known.items():
        if file is not None and name not in bodies:
            _drop(con, table, f"{kind}/{name}", name)
    for name, (body, file, tags) in bodies.items():
        if known.get(name) == (body, file):
            _tag(con, f"{kind}/{name}", tags)
            continue
        before = known.get(name)
        if before is not None and before[1] is None:
            detail = {"file": file, "before": before[0], **_beside(con, f"{kind}/{name}", name)}
            audit.note(con, now_ns, actor, "TakenOverByFile", f"{kind}/{name}", detail)
        _put(con, table, name, body, file, now_ns)
        _tag(con, f"{kind}/{name}", tags)


def _beside(con: Con, resource: str, name: str) -> dict[str, Any]:
    """What the API had beside a definition, and the file puts its own in the place of."""
    tags = dict(con.execute("SELECT key, value FROM tags WHERE resource = ?", (resource,)))
    targets = [target for (target,) in con.execute("SELECT target FROM targets WHERE profile = ?", (name,))]
    has_targets = bool(targets) and resource.startswith("securityprofile/")
    return {**({"tags": tags} if tags else {}), **({"targets": targets} if has_targets else {})}


def _put(con: Con, table: str, name: str, body: str, file: str, now_ns: int) -> None:
    changed = con.execute(
        f"UPDATE {table} SET body = ?, file = ?, modified_ns = ? {_NEXT[table]} WHERE name = ?",  # noqa: S608
        (body, file, now_ns, name),
    )
    if not changed.rowcount:
        more = ", version" if table == "profiles" else ""
        con.execute(
            f"INSERT INTO {table} (name, body, created_ns, modified_ns, file{more}) "  # noqa: S608
            f"VALUES (?, ?, ?, ?, ?{', 1' if more else ''})",
            (name, body, now_ns, now_ns, file),
        )


_NEXT: Final = {
    "profiles": ", version = version + 1",
    "custom_metrics": ", token = NULL",
    "dimensions": ", token = NULL",
}


def _drop(con: Con, table: str, resource: str, name: str) -> None:
    con.execute(f"DELETE FROM {table} WHERE name = ?", (name,))  # noqa: S608
    con.execute("DELETE FROM tags WHERE resource = ?", (resource,))
    if table == "profiles":
        con.execute("DELETE FROM targets WHERE profile = ?", (name,))


def _tag(con: Con, resource: str, tags: Iterable[Tag]) -> None:
    con.execute("DELETE FROM tags WHERE resource = ?", (resource,))
    con.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(resource, tag.key, tag.value) for tag in tags])


def _take_targets(con: Con, rules: Rules) -> None:
    for profile in rules.profiles:
        name = profile.security_profile_name
        con.execute("DELETE FROM targets WHERE profile = ?", (name,))
        con.executemany("INSERT INTO targets VALUES (?, ?)", [(name, target) for target in profile.targets])


# The registry


def _take_fleet(con: Con, settings: Settings, actor: audit.Actor, now_ns: int) -> None:
    fleet, origin = settings.rules.fleet, settings.origin
    groups = {name: (group.parent, origin[f"group/{name}"]) for name, group in fleet.groups.items()}
    things = dict.fromkeys(fleet.things, origin.get("things", ""))
    members: dict[tuple[str, str], str] = {}
    for name, group in fleet.groups.items():
        members |= {(name, thing): groups[name][1] for thing in group.things}
        things |= dict.fromkeys(group.things, groups[name][1])
    _take_groups(con, groups, actor, now_ns)
    _take_things(con, things, now_ns)
    _take_members(con, members)


def _take_groups(con: Con, groups: Mapping[str, tuple[str | None, str]], actor: audit.Actor, now_ns: int) -> None:
    for name, parent in con.execute("SELECT name, parent FROM thing_groups WHERE file IS NULL").fetchall():
        if name in groups and groups[name][0] != parent:
            detail = {"file": groups[name][1], "before": {"parent": parent}}
            audit.note(con, now_ns, actor, "TakenOverByFile", f"thinggroup/{name}", detail)
    known = _files_of(con, "SELECT name, file FROM thing_groups WHERE file IS NOT NULL")
    _let_go(con, "thing_groups", "name = ?", [(name,) for name in known if name not in groups])
    con.executemany(
        "INSERT INTO thing_groups (name, id, parent, created_ns, by_api, file) VALUES (?, ?, ?, ?, 0, ?) "
        "ON CONFLICT (name) DO UPDATE SET parent = excluded.parent, file = excluded.file",
        [(name, str(uuid4()), parent, now_ns, file) for name, (parent, file) in groups.items()],
    )


def _take_things(con: Con, things: Mapping[str, str], now_ns: int) -> None:
    known = _files_of(con, "SELECT name, file FROM things WHERE file IS NOT NULL")
    _let_go(con, "things", "name = ?", [(name,) for name in known if name not in things])
    con.executemany(
        "INSERT INTO things (name, id, created_ns, by_api, file) VALUES (?, ?, ?, 0, ?) "
        "ON CONFLICT (name) DO UPDATE SET file = excluded.file",
        [(name, str(uuid4()), now_ns, file) for name, file in things.items() if known.get(name) != file],
    )


def _take_members(con: Con, members: Mapping[tuple[str, str], str]) -> None:
    known = _files_of(con, "SELECT thing_group, thing, file FROM members WHERE file IS NOT NULL")
    _let_go(con, "members", "thing_group = ? AND thing = ?", [place for place in known if place not in members])
    con.executemany(
        "INSERT INTO members VALUES (?, ?, 0, ?) ON CONFLICT (thing_group, thing) DO UPDATE SET file = excluded.file",
        [(*place, file) for place, file in members.items() if known.get(place) != file],
    )


def _files_of(con: Con, sql: str) -> dict[Any, str]:
    """name, or (group, thing) -> file."""
    return {(row[0] if len(row) == 2 else row[:-1]): row[-1] for row in con.execute(sql)}


def _let_go(con: Con, table: str, which: str, gone: list[tuple[str, ...]]) -> None:
    """The file no longer names these: they go, or are the API's alone."""
    if not gone:
        return
    con.executemany(f"UPDATE {table} SET file = NULL WHERE {which}", gone)  # noqa: S608
    con.execute(f"DELETE FROM {table} WHERE file IS NULL AND by_api = 0")  # noqa: S608
    if table != "members":
        column = "thing" if table == "things" else "thing_group"
        con.execute(f"DELETE FROM members WHERE {column} NOT IN (SELECT name FROM {table})")  # noqa: S608
