"""Security profiles (spec.md §5, §10.2)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from config.behaviors import check_behaviors
from config.model import SecurityProfile
from config.objects import check_quotas
from config.problem import Finding
from daemon.control import profiles, tags, vocabulary
from daemon.control.checked import errors, made_of, refuse
from daemon.control.owned import refuse_if_of_file, refuse_other_version
from daemon.control.plane import Call
from daemon.control.profiles import Stored
from daemon.control.refusal import InvalidRequestException, ResourceAlreadyExistsException
from daemon.control.rules import Con
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]

MEMBERS: Final[Mapping[str, str]] = {
    "securityProfileDescription": "security_profile_description",
    "behaviors": "behaviors",
    "alertTargets": "alert_targets",
    "additionalMetricsToRetain": "additional_metrics_to_retain",
    "additionalMetricsToRetainV2": "additional_metrics_to_retain_v2",
    "metricsExportConfig": "metrics_export_config",
}
"""What an update may change, and its field."""

CLEARED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "deleteBehaviors": ("behaviors",),
    "deleteAlertTargets": ("alertTargets",),
    "deleteAdditionalMetricsToRetain": ("additionalMetricsToRetain", "additionalMetricsToRetainV2"),
    "deleteMetricsExportConfig": ("metricsExportConfig",),
}

_EMPTY: Final = SecurityProfile(security_profile_name="")


async def create_security_profile(call: Call) -> Answer:
    """The same request again is the same profile; another of the same name is refused (spec.md §5.4)."""
    profile, plane, now_ns = made_of(call.params, SecurityProfile), call.plane, call.plane.now_ns()
    name, given = profile.security_profile_name, call.params.get("tags", ())
    resource, limits = profiles.resource(name), plane.settings.rules.limits

    def create(con: Con) -> None:
        known = profiles.find(con, name)
        if known is None:
            profiles.check(con, profile, plane.kinds, limits)
            profiles.insert(con, profile, now_ns)
            tags.put(con, resource, given, InvalidRequestException)
        elif not (profiles.same(known, profile) and tags.same(con, resource, given)):
            where = f", defined in {known.file}" if known.file else ""
            message = f"there is a security profile {name} already{where}"
            raise ResourceAlreadyExistsException(message, name, plane.arn(resource))

    await call.change(create, resource)
    return {"securityProfileName": name, "securityProfileArn": plane.arn(resource)}


async def update_security_profile(call: Call) -> Answer:
    """What is not given stays; an empty collection clears nothing, its delete flag does (spec.md §5.4)."""
    name, plane, now_ns = call.params["securityProfileName"], call.plane, call.plane.now_ns()
    changes, expected, limits = _changes(call.params), call.params.get("expectedVersion"), plane.settings.rules.limits

    def update(con: Con) -> Stored:
        known = profiles.to_change(con, name)
        refuse_other_version(f"security profile {name}", known.version, expected)
        profile = msgspec.structs.replace(known.profile, **changes)
        profiles.check(con, profile, plane.kinds, limits)
        profiles.update(con, profile, now_ns)
        return profiles.get(con, name)

    return _described(call, await call.change(update, profiles.resource(name)))


async def describe_security_profile(call: Call) -> Answer:
    name = call.params["securityProfileName"]
    return _described(call, await call.read(lambda con: profiles.get(con, name)))


async def delete_security_profile(call: Call) -> Answer:
    """One that is not there is gone already, whatever version was expected (spec.md §5.4)."""
    name, expected = call.params["securityProfileName"], call.params.get("expectedVersion")

    def delete(con: Con) -> None:
        known = profiles.find(con, name)
        if known is None:
            return
        refuse_if_of_file(f"security profile {name}", known.file)
        refuse_other_version(f"security profile {name}", known.version, expected)
        profiles.delete(con, name)

    await call.change(delete, profiles.resource(name))
    return {}


async def list_security_profiles(call: Call) -> Answer:
    """All, or those that use one dimension or one metric; a custom one must be defined."""
    dimension, metric = call.params.get("dimensionName"), call.params.get("metricName")
    if dimension is not None and metric is not None:
        raise InvalidRequestException("give dimensionName or metricName, not both")
    after, size = start_of(call.params, str) or "", page_size(call.params)

    def read(con: Con) -> list[str]:
        if dimension is not None:
            vocabulary.get(con, vocabulary.DIMENSIONS, dimension)
            return profiles.using(con, profiles.dimensions_named, dimension, after, size + 1)
        if metric is not None:
            if metric not in call.plane.kinds.metrics:
                vocabulary.get(con, vocabulary.METRICS, metric)
            return profiles.using(con, profiles.metrics_named, metric, after, size + 1)
        return profiles.names(con, after, size + 1)

    shown, more = page(await call.read(read), size, str)
    return {"securityProfileIdentifiers": [identifier(call, name) for name in shown], **more}


async def validate_security_profile_behaviors(call: Call) -> Answer:
    """What is wrong with behaviors, without making anything of them: the same check as for files."""
    try:
        profile = made_of({"securityProfileName": "", "behaviors": call.params["behaviors"]}, SecurityProfile)
        refuse(check_quotas(profile.behaviors))
    except InvalidRequestException as problem:
        return _invalid(problem.message.split("\n"))
    limits = call.plane.settings.rules.limits

    def check(con: Con) -> Iterable[Finding]:
        known = profiles.scope(con, limits)
        return check_behaviors(
            profile.behaviors, call.plane.kinds, known.custom_metrics, known.dimensions, known.limits
        )

    problems = errors(await call.read(check))
    return _invalid(problems) if problems else {"valid": True, "validationErrors": []}


def identifier(call: Call, name: str) -> Answer:
    return {"name": name, "arn": call.plane.arn(profiles.resource(name))}


def _invalid(problems: Iterable[str]) -> Answer:
    return {"valid": False, "validationErrors": [{"errorMessage": problem} for problem in problems]}


def _changes(params: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a profile that an update sets, with what it sets them to.

    Raises:
        InvalidRequestException: a member and the flag that clears it are both given (Appendix C #20).
    """
    given = made_of(params, SecurityProfile)
    set_to = {
        field: getattr(given, field)
        for member, field in MEMBERS.items()
        if member in params and params[member] not in ([], {})
    }
    for flag, members in CLEARED_BY.items():
        if not params.get(flag):
            continue
        for member in members:
            if member in params:
                raise InvalidRequestException(f"give {member} or {flag}, not both")
            set_to[MEMBERS[member]] = getattr(_EMPTY, MEMBERS[member])
    return set_to


def _described(call: Call, stored: Stored) -> Answer:
    body = msgspec.to_builtins(stored.profile)
    return {
        **{member: body.get(member) for member in MEMBERS},
        "behaviors": body.get("behaviors", ()),
        "securityProfileName": stored.name,
        "securityProfileArn": call.plane.arn(stored.resource),
        "version": stored.version,
        "creationDate": stored.created_ns,
        "lastModifiedDate": stored.modified_ns,
    }
