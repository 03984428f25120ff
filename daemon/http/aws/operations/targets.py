"""What security profiles are attached to (spec.md §5.3, §10.2)."""

from typing import Any

from config.targets import ALL, group_of, short_target
from daemon.control import profiles
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException, ResourceNotFoundException
from daemon.control.rules import Con
from daemon.http.aws.operations.profiles import identifier
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]


async def attach_security_profile(call: Call) -> Answer:
    name, target = call.params["securityProfileName"], _target(call)

    def attach(con: Con) -> None:
        profiles.to_change(con, name)
        _must_be_a_group(con, target)
        profiles.attach(con, name, target)

    await call.change(attach, profiles.resource(name))
    return {}


async def detach_security_profile(call: Call) -> Answer:
    """What is not attached is detached already."""
    name, target = call.params["securityProfileName"], _target(call)

    def detach(con: Con) -> None:
        profiles.to_change(con, name)
        profiles.detach(con, name, target)

    await call.change(detach, profiles.resource(name))
    return {}


async def list_targets_for_security_profile(call: Call) -> Answer:
    name, after, size = call.params["securityProfileName"], start_of(call.params, str) or "", page_size(call.params)

    def read(con: Con) -> list[str]:
        profiles.get(con, name)
        sql = "SELECT target FROM targets WHERE profile = ? AND target > ? ORDER BY target LIMIT ?"
        return [target for (target,) in con.execute(sql, (name, after, size + 1))]

    shown, more = page(await call.read(read), size, str)
    return {"securityProfileTargets": [{"arn": call.plane.arn(target)} for target in shown], **more}


async def list_security_profiles_for_target(call: Call) -> Answer:
    """Those of one target; `recursive`: and of the groups below it."""
    target, recursive = _target(call), call.params.get("recursive", False)
    after, size = start_of(call.params, tuple[str, str]) or ("", ""), page_size(call.params)

    def read(con: Con) -> list[tuple[str, str]]:
        _must_be_a_group(con, target)
        return con.execute(RECURSIVE if recursive else DIRECT, (target, *after, size + 1)).fetchall()

    shown, more = page(await call.read(read), size, tuple)
    mappings = [
        {"securityProfileIdentifier": identifier(call, name), "target": {"arn": call.plane.arn(at)}}
        for at, name in shown
    ]
    return {"securityProfileTargetMappings": mappings, **more}


DIRECT = "SELECT target, profile FROM targets WHERE target = ? AND (target, profile) > (?, ?) ORDER BY 1, 2 LIMIT ?"
RECURSIVE = """
WITH RECURSIVE below (target, name) AS (
  SELECT ?1, substr(?1, length('thinggroup/') + 1)
  UNION SELECT 'thinggroup/' || g.name, g.name FROM thing_groups g JOIN below ON g.parent = below.name)
SELECT t.target, t.profile FROM targets t JOIN below USING (target)
WHERE (t.target, t.profile) > (?2, ?3) ORDER BY 1, 2 LIMIT ?4"""


def _target(call: Call) -> str:
    """In its short form. Raises `InvalidRequestException`."""
    arn = call.params["securityProfileTargetArn"]
    target = call.plane.resource(arn)
    if short_target(target) != target:
        raise InvalidRequestException(f"{arn!r} is no target: one is {', '.join(ALL)} or thinggroup/NAME")
    return target


def _must_be_a_group(con: Con, target: str) -> None:
    group = group_of(target)
    if group is not None and con.execute("SELECT 1 FROM thing_groups WHERE name = ?", (group,)).fetchone() is None:
        raise ResourceNotFoundException(f"there is no thing group {group}")
