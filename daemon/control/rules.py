"""From the tables to `Rules`: what the API made, as far as it decides alarms.

A thing, group or membership that the API made as well as a file is the API's here: it stays when the file lets go.
"""

import sqlite3
from collections import defaultdict

import msgspec

from config.export import EXPORT_BRIDGE
from config.model import Fleet, Group, Rules, SecurityProfile, Tag
from daemon.control.definitions import dimension_from, metric_from, profile_from

Con = sqlite3.Connection


def api_rules(con: Con, *, members: bool = True) -> Rules:
    """What the API defines. Without `members`, groups are empty and no thing is named: enough to check references."""
    return Rules(
        profiles=_profiles(con),
        custom_metrics=tuple(
            metric_from(*row) for row in con.execute("SELECT name, body FROM custom_metrics WHERE file IS NULL")
        ),
        dimensions=tuple(
            dimension_from(*row) for row in con.execute("SELECT name, body FROM dimensions WHERE file IS NULL")
        ),
        fleet=_fleet(con, members=members),
    )


def _profiles(con: Con) -> tuple[SecurityProfile, ...]:
    targets: dict[str, list[str]] = defaultdict(list)
    for profile, target in con.execute("SELECT profile, target FROM targets ORDER BY profile, target"):
        targets[profile].append(target)
    sql = "SELECT resource, value FROM tags WHERE key = ? AND resource LIKE 'securityprofile/%'"
    bridges = {resource: (Tag(EXPORT_BRIDGE, value),) for resource, value in con.execute(sql, (EXPORT_BRIDGE,))}
    return tuple(
        msgspec.structs.replace(
            profile_from(name, body), targets=tuple(targets[name]), tags=bridges.get(f"securityprofile/{name}", ())
        )
        for name, body in con.execute("SELECT name, body FROM profiles WHERE file IS NULL ORDER BY name")
    )


def _fleet(con: Con, *, members: bool) -> Fleet:
    things: dict[str, list[str]] = defaultdict(list)
    if members:
        for group, thing in con.execute("SELECT thing_group, thing FROM members WHERE by_api = 1"):
            things[group].append(thing)
    groups = con.execute("SELECT name, parent FROM thing_groups WHERE by_api = 1 ORDER BY name").fetchall()
    # A file's group that the API has put things into: of the group itself, only that is the API's.
    also = {group: Group(None, tuple(inside)) for group, inside in things.items()}
    made = {name: Group(parent, tuple(things.get(name, ()))) for name, parent in groups}
    registered = con.execute("SELECT name FROM things WHERE by_api = 1") if members else ()
    return Fleet(tuple(name for (name,) in registered), also | made)
