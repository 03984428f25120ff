"""What must be done so that an API has what it should: calls in an order in which each is allowed.

Creations before what uses them, detachments before attachments (a target has five profiles at most), deletions last;
but first of all what nobody uses: there may be as many dimensions as are allowed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import msgspec

from config.model import CustomMetric, Dimension, Fleet, Group, Rules, SecurityProfile, Tag
from config.targets import group_of
from daemon.control.profiles import dimensions_named, metrics_named

Arn = Callable[[str], str]
"""The ARN of a resource like `securityprofile/NAME`."""

_CLEARING: Final = {
    "behaviors": "deleteBehaviors",
    "alertTargets": "deleteAlertTargets",
    "metricsExportConfig": "deleteMetricsExportConfig",
}

_RETAINED: Final = ("additionalMetricsToRetain", "additionalMetricsToRetainV2")


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `text` says it, after `+` (new), `~` (changed) or `-` (gone); no operation: it can't be done."""

    mark: str
    text: str
    operation: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


def plan(
    have: Rules, want: Rules, arn: Arn, *, filed: AbstractSet[str] = frozenset(), delete: bool = True
) -> list[Step]:
    """From what there is to what there should be. Without `delete`, nothing goes.

    `filed`: things that the daemon's own files define. They neither come nor go, but into groups and out of them.
    """
    steps = [
        *(_definitions_gone(have, want, used=False) if delete else ()),
        *_metrics(have, want, arn),
        *_dimensions(have, want, arn),
        *(_gone_profiles(have, want) if delete else ()),
        *(_detached(have, want, arn) if delete else ()),
        *_profiles(have, want, arn),
        *_fleet(have.fleet, want.fleet, filed, delete=delete),
        *_attached(have, want, arn),
    ]
    return steps + (list(_deletions(have, want, filed)) if delete else [])


def _by_name(objects: Sequence[Any], name: str) -> dict[str, Any]:
    return {getattr(each, name): each for each in objects}


# ---- custom metrics, dimensions ----


def _metrics(have: Rules, want: Rules, arn: Arn) -> Iterator[Step]:
    old = _by_name(have.custom_metrics, "metric_name")
    for metric in want.custom_metrics:
        what, known = f"custom metric {metric.metric_name}", old.get(metric.metric_name)
        if known is None:
            yield Step("+", what, "create_custom_metric", _created(metric, {"metricName": metric.metric_name}))
            continue
        if known.metric_type != metric.metric_type:
            yield Step("!", f"{what}: its type can't change from {known.metric_type} to {metric.metric_type}")
        elif (known.display_name or "") != (metric.display_name or ""):
            params = {"metricName": metric.metric_name, "displayName": metric.display_name or ""}
            yield Step("~", what, "update_custom_metric", params)
        yield from _retagged(f"custommetric/{metric.metric_name}", known.tags, metric.tags, arn)


def _dimensions(have: Rules, want: Rules, arn: Arn) -> Iterator[Step]:
    old = _by_name(have.dimensions, "name")
    for dimension in want.dimensions:
        what, known = f"dimension {dimension.name}", old.get(dimension.name)
        if known is None:
            yield Step("+", what, "create_dimension", _created(dimension, {"type": dimension.type}))
            continue
        if known.string_values != dimension.string_values:
            params = {"name": dimension.name, "stringValues": list(dimension.string_values)}
            yield Step("~", what, "update_dimension", params)
        yield from _retagged(f"dimension/{dimension.name}", known.tags, dimension.tags, arn)


def _created(each: CustomMetric | Dimension, always: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(each)
    return body | dict(always) | {"clientRequestToken": str(uuid4())}


# ---- profiles ----


def _profiles(have: Rules, want: Rules, arn: Arn) -> Iterator[Step]:
    old = _by_name(have.profiles, "security_profile_name")
    for profile in want.profiles:
        name = profile.security_profile_name
        what, known, body = f"security profile {name}", old.get(name), _body(profile)
        if known is None:
            tags = {"tags": _tags(profile.tags)} if profile.tags else {}
            yield Step("+", what, "create_security_profile", {"securityProfileName": name, **body, **tags})
            continue
        for update in _updates(_body(known), body):
            yield Step("~", what, "update_security_profile", {"securityProfileName": name, **update})
        yield from _retagged(f"securityprofile/{name}", known.tags, profile.tags, arn)


def _body(profile: SecurityProfile) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(profile)
    for name in ("securityProfileName", "tags", "targets"):
        body.pop(name, None)
    if not body.get("securityProfileDescription"):  # none and an empty one are the same
        body.pop("securityProfileDescription", None)
    return body


def _updates(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All members, and the flags of those that are to be empty."""
    if old == new:
        return
    flags = {flag: True for member, flag in _CLEARING.items() if old.get(member) and not new.get(member)}
    if any(old.get(member) and not new.get(member) for member in _RETAINED):
        empty = {"deleteAdditionalMetricsToRetain": True}  # of both lists, and alone: the API takes none beside it
        if any(new.get(member) for member in _RETAINED):
            yield empty
        else:
            flags |= empty
    emptied = {"securityProfileDescription": ""} if "securityProfileDescription" in old else {}
    yield {**emptied, **new, **flags}


def _retagged(resource: str, old: Sequence[Tag], new: Sequence[Tag], arn: Arn) -> Iterator[Step]:
    before, after = {tag.key: tag.value for tag in old}, {tag.key: tag.value for tag in new}
    gone = sorted(before.keys() - after.keys())
    changed = [tag for tag in new if before.get(tag.key) != tag.value]
    if gone:
        yield Step("~", f"tags of {resource}", "untag_resource", {"resourceArn": arn(resource), "tagKeys": gone})
    if changed:
        yield Step("~", f"tags of {resource}", "tag_resource", {"resourceArn": arn(resource), "tags": _tags(changed)})


def _tags(tags: Sequence[Tag]) -> list[dict[str, str]]:
    return [{"Key": tag.key, "Value": tag.value} for tag in tags]


def _gone_profiles(have: Rules, want: Rules) -> Iterator[Step]:
    kept = _by_name(want.profiles, "security_profile_name")
    for name in _by_name(have.profiles, "security_profile_name"):
        if name not in kept:
            yield Step("-", f"security profile {name}", "delete_security_profile", {"securityProfileName": name})


def _attached(have: Rules, want: Rules, arn: Arn) -> Iterator[Step]:
    old = _by_name(have.profiles, "security_profile_name")
    for profile in want.profiles:
        before = old[profile.security_profile_name].targets if profile.security_profile_name in old else ()
        for target in sorted(set(profile.targets) - set(before)):
            yield _target("+", "attach_security_profile", profile.security_profile_name, target, arn)


def _detached(have: Rules, want: Rules, arn: Arn) -> Iterator[Step]:
    new = _by_name(want.profiles, "security_profile_name")
    for profile in have.profiles:
        if profile.security_profile_name in new:
            for target in sorted(set(profile.targets) - set(new[profile.security_profile_name].targets)):
                yield _target("-", "detach_security_profile", profile.security_profile_name, target, arn)


def _target(mark: str, operation: str, profile: str, target: str, arn: Arn) -> Step:
    params = {"securityProfileName": profile, "securityProfileTargetArn": arn(target)}
    return Step(mark, f"security profile {profile} on {target}", operation, params)


# ---- the registry ----


def _fleet(have: Fleet, want: Fleet, filed: AbstractSet[str], *, delete: bool) -> Iterator[Step]:
    for name in _parents_first(want.groups):
        parent, known = want.groups[name].parent, have.groups.get(name)
        if known is None:
            more = {"parentGroupName": parent} if parent else {}
            yield Step("+", f"thing group {name}", "create_thing_group", {"thingGroupName": name, **more})
        elif known.parent != parent:
            yield Step("!", f"thing group {name}: its parent can't change from {known.parent} to {parent}")
    things = things_of(want) | filed
    for thing in sorted(things - things_of(have) - filed):
        yield Step("+", f"thing {thing}", "create_thing", {"thingName": thing})
    old, new = _members(have), _members(want)
    if delete:
        moving = {thing for thing, _ in new - old}  # out of its group first, though that goes later
        for thing, group in sorted(old - new):
            if thing in moving or (thing in things and group in want.groups):
                yield _member("-", "remove_thing_from_thing_group", thing, group)
    for thing, group in sorted(new - old):
        yield _member("+", "add_thing_to_thing_group", thing, group)


def _deletions(have: Rules, want: Rules, filed: AbstractSet[str]) -> Iterator[Step]:
    for thing in sorted(things_of(have.fleet) - things_of(want.fleet) - filed):
        yield Step("-", f"thing {thing}", "delete_thing", {"thingName": thing})
    for name in reversed(_parents_first(have.fleet.groups)):
        if name not in want.fleet.groups:
            yield Step("-", f"thing group {name}", "delete_thing_group", {"thingGroupName": name})
    yield from _definitions_gone(have, want, used=True)


def _definitions_gone(have: Rules, want: Rules, *, used: bool) -> Iterator[Step]:
    """Those that profiles use until these are changed, or those that none uses."""
    dimensions = {each.name for each in have.dimensions} - {each.name for each in want.dimensions}
    named = {name for profile in have.profiles for name in dimensions_named(profile)}
    for name in sorted(dimensions & named if used else dimensions - named):
        yield Step("-", f"dimension {name}", "delete_dimension", {"name": name})
    metrics = {each.metric_name for each in have.custom_metrics} - {each.metric_name for each in want.custom_metrics}
    named = {name for profile in have.profiles for name in metrics_named(profile)}
    for name in sorted(metrics & named if used else metrics - named):
        yield Step("-", f"custom metric {name}", "delete_custom_metric", {"metricName": name})


def _parents_first(groups: Mapping[str, Group]) -> list[str]:
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        parent = groups[name].parent
        if parent is not None and parent in groups and parent not in found:
            visit(parent)
        found.setdefault(name)

    for name in sorted(groups):
        visit(name)
    return list(found)


def things_of(fleet: Fleet) -> set[str]:
    """All things, also those that are named as members only."""
    return {*fleet.things, *(thing for group in fleet.groups.values() for thing in group.things)}


def _members(fleet: Fleet) -> set[tuple[str, str]]:
    return {(thing, name) for name, group in fleet.groups.items() for thing in group.things}


def _member(mark: str, operation: str, thing: str, group: str) -> Step:
    return Step(mark, f"thing {thing} in {group}", operation, {"thingName": thing, "thingGroupName": group})


def without(rules: Rules, files: Rules) -> Rules:
    """What of the rules the daemon's own files do not define; of their groups, as they define these, the other things.

    Since that holds for what there is as for what there should be, nothing is done to groups of files.
    """
    profiles = {each.security_profile_name for each in files.profiles}
    metrics = {each.metric_name for each in files.custom_metrics}
    dimensions = {each.name for each in files.dimensions}
    things, members = things_of(files.fleet), _members(files.fleet)
    own = {name: Group(group.parent) for name, group in files.fleet.groups.items()}
    groups = {
        name: Group(own.get(name, group).parent, tuple(thing for thing in group.things if (thing, name) not in members))
        for name, group in rules.fleet.groups.items()
    }
    return msgspec.structs.replace(
        rules,
        profiles=tuple(each for each in rules.profiles if each.security_profile_name not in profiles),
        custom_metrics=tuple(each for each in rules.custom_metrics if each.metric_name not in metrics),
        dimensions=tuple(each for each in rules.dimensions if each.name not in dimensions),
        fleet=Fleet(tuple(thing for thing in rules.fleet.things if thing not in things), own | groups),
    )


def needed(rules: Rules, files: Rules) -> Rules:
    """The rules with what they need of the files: the custom metrics and dimensions that their profiles name, and only
    those groups that have other things, are targets, or have such groups in them.

    Without the former a profile would lose behaviors on its way, or the whole be no good.
    """
    metrics = {name for profile in rules.profiles for name in metrics_named(profile)}
    dimensions = {name for profile in rules.profiles for name in dimensions_named(profile)}
    groups = rules.fleet.groups
    wanted = [name for name, group in groups.items() if group.things or name not in files.fleet.groups]
    wanted += [group for profile in rules.profiles for target in profile.targets if (group := group_of(target))]
    kept: set[str] = set()
    for name in wanted:
        above: str | None = name
        while above is not None and above in groups and above not in kept:
            kept.add(above)
            above = groups[above].parent
    fleet = Fleet(rules.fleet.things, {name: group for name, group in groups.items() if name in kept})
    return msgspec.structs.replace(
        rules,
        custom_metrics=(*rules.custom_metrics, *(each for each in files.custom_metrics if each.metric_name in metrics)),
        dimensions=(*rules.dimensions, *(each for each in files.dimensions if each.name in dimensions)),
        fleet=fleet,
    )


def of_files(want: Rules, files: Rules, origin: Mapping[str, str]) -> list[str]:
    """In words: what should be otherwise than the daemon's own files have it, where only these can be changed."""
    notes = []
    for what, kind, name, wanted, defined in (
        ("security profile", "profile", "security_profile_name", want.profiles, files.profiles),
        ("custom metric", "custom-metric", "metric_name", want.custom_metrics, files.custom_metrics),
        ("dimension", "dimension", "name", want.dimensions, files.dimensions),
    ):
        known = _by_name(defined, name)
        for each in wanted:
            called = getattr(each, name)
            if called in known and known[called] != each:
                notes.append(f"{what} {called} is defined in {origin[f'{kind}/{called}']}: change it there")
    for called, group in want.fleet.groups.items():
        if called in files.fleet.groups and files.fleet.groups[called].parent != group.parent:
            notes.append(
                f"the parent of thing group {called} is defined in {origin[f'group/{called}']}: change it there"
            )
    return notes
