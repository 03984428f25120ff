"""Security profiles (spec.md §5, §10.2)."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from config.model import SecurityProfile
from daemon.control import profiles, tags
from daemon.control.owned import refuse_other_version
from daemon.control.plane import Call
from daemon.control.profiles import Stored
from daemon.control.refusal import (
    InvalidRequestException,
    Refusal,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from daemon.control.rules import Con
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]

CLEARED_BY: Final = {
    "deleteBehaviors": "behaviors",
    "deleteAlertTargets": "alertTargets",
    "deleteAdditionalMetricsToRetain": "additionalMetricsToRetain",
    "deleteMetricsExportConfig": "metricsExportConfig",
}
COLLECTIONS: Final = ("behaviors", "alertTargets", "additionalMetricsToRetain", "additionalMetricsToRetainV2")
MEMBERS: Final = (*COLLECTIONS, "securityProfileDescription", "metricsExportConfig")


async def create_security_profile(call: Call) -> Answer:
    """The same request again is the same profile; another of the same name is refused (spec.md §5.4)."""
    name, plane = call.params["securityProfileName"], call.plane
    wanted = _profile(name, call.params)
    given, now_ns = call.params.get("tags", ()), plane.now_ns()

    def create(con: Con) -> None:
        known = profiles.find(con, name)
        if known is not None:
            if known.file is None and known.profile == wanted and tags.same(con, known.resource, given):
                return
            message = f"there is a security profile {name} already"
            raise ResourceAlreadyExistsException(message, name, plane.arn(known.resource))
        profiles.check(con, wanted, plane.kinds, plane.settings.rules.limits)
        profiles.insert(con, wanted, now_ns)
        tags.put(con, profiles.resource(name), given)

    await call.change(create, profiles.resource(name))
    return {"securityProfileName": name, "securityProfileArn": plane.arn(profiles.resource(name))}


async def update_security_profile(call: Call) -> Answer:
    """What is not given stays; an empty collection clears nothing, its delete flag does (spec.md §5.4)."""
    name, plane, now_ns = call.params["securityProfileName"], call.plane, call.plane.now_ns()
    changes = _changes(call.params)

    def update(con: Con) -> Stored:
        known = profiles.to_change(con, name)
        refuse_other_version(f"security profile {name}", known.version, call.params.get("expectedVersion"))
        wanted = msgspec.convert(msgspec.to_builtins(known.profile) | changes, SecurityProfile)
        profiles.check(con, wanted, plane.kinds, plane.settings.rules.limits)
        profiles.update(con, wanted, now_ns)
        return profiles.get(con, name)

    return _described(call, await call.change(update, profiles.resource(name)))


async def describe_security_profile(call: Call) -> Answer:
    name = call.params["securityProfileName"]
    return _described(call, await call.read(lambda con: profiles.get(con, name)))


async def delete_security_profile(call: Call) -> Answer:
    """One that is not there is gone already (spec.md §5.4)."""
    name = call.params["securityProfileName"]

    def delete(con: Con) -> None:
        if profiles.find(con, name) is None:
            return
        known = profiles.to_change(con, name)
        refuse_other_version(f"security profile {name}", known.version, call.params.get("expectedVersion"))
        profiles.delete(con, name)

    await call.change(delete, profiles.resource(name))
    return {}


async def list_security_profiles(call: Call) -> Answer:
    """All, or those that use one dimension or one custom metric."""
    dimension, metric = call.params.get("dimensionName"), call.params.get("metricName")
    if dimension is not None and metric is not None:
        raise InvalidRequestException("give dimensionName or metricName, not both")
    after, size = start_of(call.params, str) or "", page_size(call.params)

    def read(con: Con) -> list[str]:
        if dimension is not None:
            _must_exist(con, "dimensions", "dimension", dimension)
            return profiles.using_dimension(con, dimension)
        if metric is not None:
            _must_exist(con, "custom_metrics", "custom metric", metric)
            return profiles.using_metric(con, metric)
        sql = "SELECT name FROM profiles WHERE name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in con.execute(sql, (after, size + 1))]

    names = [name for name in await call.read(read) if name > after]
    shown, more = page(names[: size + 1], size, str)
    return {"securityProfileIdentifiers": [identifier(call, name) for name in shown], **more}


async def validate_security_profile_behaviors(call: Call) -> Answer:
    """What is wrong with behaviors, without making anything of them: the same check as for files."""
    plane = call.plane
    try:
        wanted = _profile("validated", {"behaviors": call.params["behaviors"]})
    except Refusal as problem:
        return {"valid": False, "validationErrors": [{"errorMessage": problem.message}]}
    limits = plane.settings.rules.limits
    found = await call.read(lambda con: profiles.findings(con, wanted, plane.kinds, limits))
    return {"valid": not found, "validationErrors": [{"errorMessage": each.message} for each in found]}


def identifier(call: Call, name: str) -> Answer:
    return {"name": name, "arn": call.plane.arn(profiles.resource(name))}


def _profile(name: str, params: Mapping[str, Any]) -> SecurityProfile:
    given = {member: params[member] for member in MEMBERS if member in params}
    try:
        return msgspec.convert({"securityProfileName": name, **given}, SecurityProfile)
    except msgspec.ValidationError as problem:
        raise InvalidRequestException(str(problem)) from None


def _changes(params: Mapping[str, Any]) -> Answer:
    """The members to replace, and what clears them.

    Raises:
        InvalidRequestException: a member and its delete flag are both given.
    """
    changes = {member: params[member] for member in MEMBERS if params.get(member)}
    for flag, member in CLEARED_BY.items():
        if not params.get(flag):
            continue
        members = [member, "additionalMetricsToRetainV2"] if member == "additionalMetricsToRetain" else [member]
        if any(each in params for each in members):
            raise InvalidRequestException(f"give {member} or {flag}, not both")
        changes |= {each: EMPTY[each] for each in members}
    return changes


EMPTY: Final[Mapping[str, Any]] = {
    "behaviors": (),
    "alertTargets": {},
    "additionalMetricsToRetain": (),
    "additionalMetricsToRetainV2": (),
    "metricsExportConfig": None,
}


def _described(call: Call, stored: Stored) -> Answer:
    body: Answer = {"behaviors": (), **msgspec.to_builtins(stored.profile)}
    return {
        **{member: body.get(member) for member in MEMBERS},
        "securityProfileName": stored.name,
        "securityProfileArn": call.plane.arn(stored.resource),
        "version": stored.version,
        "creationDate": stored.created_ns,
        "lastModifiedDate": stored.modified_ns,
    }


def _must_exist(con: Con, table: str, what: str, name: str) -> None:
    if con.execute(f"SELECT 1 FROM {table} WHERE name = ?", (name,)).fetchone() is None:  # noqa: S608  # one of two
        raise ResourceNotFoundException(f"there is no {what} {name}")
