"""What profiles are attached to (spec.md §5.3): all things, registered ones, unregistered ones, or a thing group."""

import sqlite3
from collections.abc import Callable
from typing import Final

from config.model import Account
from config.objects import PROFILES_PER_TARGET_MAX
from config.targets import ALL, GROUP, group_of, short_target
from daemon.control import profiles
from daemon.control.arns import arn_of
from daemon.control.memberships import things_in
from daemon.control.refusal import InvalidRequestException, LimitExceededException, ResourceNotFoundException

Con = sqlite3.Connection
Attachment = tuple[str, str]
"""(profile, target in short form)"""

ALL_OF_THEM: Final = -1  # as a LIMIT of SQLite

_FAMILY: Final = """
    WITH RECURSIVE
    above(name) AS (
        SELECT ?1 UNION
        SELECT parent FROM thing_groups JOIN above USING (name) WHERE parent IS NOT NULL),
    below(name) AS (
        SELECT ?1 UNION
        SELECT thing_groups.name FROM thing_groups JOIN below ON thing_groups.parent = below.name)
    SELECT name FROM above UNION SELECT name FROM below"""


def target_of(account: Account, text: str) -> str:
    """A target's short form, given in that or as an ARN of this account and region, of whatever partition.

    Raises:
        InvalidRequestException: it is an ARN of another account, region or service, or no target at all.
    """
    head, _, rest = text.partition(f":iot:{account.region}:{account.id}:")
    own = rest if head in {"arn:aws", "arn:aws-cn", "arn:aws-us-gov"} else text
    target = None if own.startswith("arn:") else short_target(own)
    if target is None:
        known = ", ".join(arn_of(account, each) for each in (*ALL, f"{GROUP}NAME"))
        raise InvalidRequestException(f"{text!r} is no target here; what is: {known}")
    return target


def attach(con: Con, profile: str, target: str) -> None:
    """Attach a profile; twice is as once.

    Raises:
        ResourceNotFoundException: there is no such profile or group.
        LimitExceededException: the target has five (Appendix C #17).
        InvalidRequestException: a file defines the profile.
    """
    profiles.to_change(con, profile)
    _refuse_unknown(con, target)
    there = {name for (name,) in con.execute("SELECT profile FROM targets WHERE target = ?", (target,))}
    if profile not in there and len(there) >= PROFILES_PER_TARGET_MAX:
        raise LimitExceededException(f"{target} has {len(there)} security profiles, as many as it may")
    con.execute("INSERT OR IGNORE INTO targets VALUES (?, ?)", (profile, target))


def covers(con: Con, profile: str) -> Callable[[str], bool]:
    """Tells of the name of a thing whether it is among a profile's targets."""
    held = {target for (target,) in con.execute("SELECT target FROM targets WHERE profile = ?", (profile,))}
    groups = filter(None, map(group_of, held))
    inside = {thing for group in groups for thing in things_in(con, group, "", ALL_OF_THEM, recursive=True)}
    of_all = held & set(ALL)
    if "all/things" in of_all:
        return lambda _: True
    known = {name for (name,) in con.execute("SELECT name FROM things")} if of_all else set()
    others = "all/unregistered-things" in of_all
    registered = "all/registered-things" in of_all
    return lambda name: name in inside or (registered if name in known else others)


def detach(con: Con, profile: str, target: str) -> None:
    """Detach a profile; what is not attached, or is no more, is detached already.

    Raises:
        ResourceNotFoundException: there is no such profile.
        InvalidRequestException: a file defines it.
    """
    profiles.to_change(con, profile)
    con.execute("DELETE FROM targets WHERE profile = ? AND target = ?", (profile, target))


def of_profile(con: Con, profile: str, after: str, most: int) -> list[str]:
    """The next targets of a profile, in the order of their short form. Raises `ResourceNotFoundException`."""
    profiles.get(con, profile)
    sql = "SELECT target FROM targets WHERE profile = ? AND target > ? ORDER BY target LIMIT ?"
    return [target for (target,) in con.execute(sql, (profile, after, most))]


def of_target(con: Con, target: str, after: Attachment, most: int, *, recursive: bool) -> list[Attachment]:
    """The next attachments to a target, by profile and target. Raises `ResourceNotFoundException`.

    `recursive`: of a group, also those to the groups above it, which hold for its things too, and to those below it,
    which the service model speaks of. What is attached to all things is listed for all things only.
    """
    _refuse_unknown(con, target)
    group = group_of(target)
    within = _FAMILY if recursive and group is not None else "SELECT ?1 AS name"
    sql = (
        f"SELECT profile, target FROM targets WHERE target IN (SELECT ?2 || name FROM ({within})) "  # noqa: S608
        "AND (profile, target) > (?3, ?4) ORDER BY profile, target LIMIT ?5"
    )
    head = "" if group is None else GROUP
    return list(con.execute(sql, (group or target, head, *after, most)))


def _refuse_unknown(con: Con, target: str) -> None:
    group = group_of(target)
    known = group is None or con.execute("SELECT 1 FROM thing_groups WHERE name = ?", (group,)).fetchone()
    if not known:
        raise ResourceNotFoundException(f"there is no thing group {group}")
