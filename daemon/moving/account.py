"""What an endpoint holds of Detect's objects and of the registry, read through AWS's API, and as drafts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from config.model import Limits, Rules
from config.targets import short_target
from daemon.moving.api import Api, Gone, NotOffered, Refused
from daemon.moving.drafts import COLLECTIONS, Draft, Drafts

T = TypeVar("T")

SOURCE: Final = "detectd:source"
"""The tag by which a detectd marks what its files define; the value is the file."""

_WORDS: Final = {"profiles": "security profile", "custom_metrics": "custom metric", "dimensions": "dimension"}
_PRINTED: Final = {"securityProfileArn", "metricArn", "arn", "creationDate", "lastModifiedDate"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as described, without what is only printed; a profile with `targets`. `file`: what defines it."""

    name: str
    body: Mapping[str, Any]
    version: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class SeenGroup:
    """A thing group. `extras`: what it has that a fleet file has no place for."""

    name: str
    arn: str
    parent: str | None
    things: tuple[str, ...]
    extras: tuple[str, ...] = ()
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Holdings:
    """All of it. `things`: every registered one; `notes`: what this endpoint could not be asked."""

    profiles: tuple[Seen, ...] = ()
    custom_metrics: tuple[Seen, ...] = ()
    dimensions: tuple[Seen, ...] = ()
    groups: tuple[SeenGroup, ...] = ()
    things: tuple[str, ...] = ()
    described_things: int = 0
    """Things that have attributes or a type."""
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Kinds of objects that the endpoint does not offer."""


@dataclass(slots=True)
class _Reader:
    api: Api
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def holdings(self) -> Holdings:
        metrics = self._named("list_custom_metrics", "metricNames", "custom metrics", self._metric)
        dimensions = self._named("list_dimensions", "dimensionNames", "dimensions", self._dimension)
        groups = self._named("list_thing_groups", "thingGroups", "thing groups", self._group)
        things = self._offered("things", lambda: list(self.api.listed("list_things", "things", maxResults=250)))
        profiles = self._named(
            "list_security_profiles", "securityProfileIdentifiers", "security profiles", self._profile
        )
        return Holdings(
            profiles=profiles,
            custom_metrics=metrics,
            dimensions=dimensions,
            groups=groups,
            things=tuple(thing["thingName"] for thing in things or ()),
            described_things=sum(bool(each.get("attributes") or each.get("thingTypeName")) for each in things or ()),
            notes=tuple(self.notes),
            missing=tuple(self.missing),
        )

    def _named(self, operation: str, member: str, what: str, read: Callable[[Any], T]) -> tuple[T, ...]:
        """What `read` gives for each of a list; those that went meanwhile are left out."""
        listed = self._offered(what, lambda: list(self.api.listed(operation, member, maxResults=250)))
        return tuple(each for each in self.api.each(self._unless_gone(read), listed or ()) if each is not None)

    def _offered(self, what: str, run: Callable[[], T]) -> T | None:
        try:
            return run()
        except NotOffered as problem:
            self.notes.append(f"{what}: this endpoint does not offer them ({problem})")
            self.missing.append(what)
            return None

    def _unless_gone(self, read: Callable[[Any], T]) -> Callable[[Any], T | None]:
        def run(listed: Any) -> T | None:
            try:
                return read(listed)
            except Gone:
                return None

        return run

    # One object

    def _metric(self, name: str) -> Seen:
        return self._seen(name, self.api.call("describe_custom_metric", metricName=name), "metricArn")

    def _dimension(self, name: str) -> Seen:
        return self._seen(name, self.api.call("describe_dimension", name=name), "arn")

    def _profile(self, listed: Mapping[str, Any]) -> Seen:
        name = listed["name"]
        described = self.api.call("describe_security_profile", securityProfileName=name)
        targets = self.api.listed(
            "list_targets_for_security_profile", "securityProfileTargets", securityProfileName=name, maxResults=250
        )
        return self._seen(name, {**described, "targets": [each["arn"] for each in targets]}, "securityProfileArn")

    def _group(self, listed: Mapping[str, Any]) -> SeenGroup:
        name = listed["groupName"]
        described = self.api.call("describe_thing_group", thingGroupName=name)
        things = self.api.listed("list_things_in_thing_group", "things", thingGroupName=name, maxResults=250)
        arn = str(described.get("thingGroupArn") or listed["groupArn"])
        tags, file = self._tags(arn)
        return SeenGroup(
            name=name,
            arn=arn,
            parent=described.get("thingGroupMetadata", {}).get("parentGroupName"),
            things=tuple(things),
            extras=tuple(_extras(described, tags)),
            file=file,
        )

    def _seen(self, name: str, described: Mapping[str, Any], arn: str) -> Seen:
        tags, file = self._tags(described[arn]) if described.get(arn) else ([], None)
        body = {key: value for key, value in described.items() if key not in _PRINTED and value not in ({}, [], None)}
        version = body.pop("version", None)
        return Seen(name, {**body, **({"tags": tags} if tags else {})}, version, file)

    def _tags(self, arn: str) -> tuple[list[dict[str, str]], str | None]:
        """An object's own tags, and the file that a detectd says to define it."""
        try:
            tags = list(self.api.listed("list_tags_for_resource", "tags", resourceArn=arn))
        except (NotOffered, Refused, Gone) as problem:  # moto, for one, has no tags of some things
            self._note_once(f"tags are left out: {problem}")
            return [], None
        file = next((tag.get("Value") for tag in tags if tag["Key"] == SOURCE), None)
        own = [{"Key": tag["Key"], "Value": tag.get("Value", "")} for tag in tags if not _reserved(tag["Key"])]
        return own, file

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def holdings(api: Api) -> Holdings:
    """Everything that an endpoint holds. Kinds of objects that it does not offer are noted.

    Raises:
        ApiError: what it does offer can't be read.
    """
    return _Reader(api).holdings()


def filed(held: Holdings) -> set[str]:
    """What a detectd says that files of its own define, in words."""
    groups = {f"thing group {group.name}" for group in held.groups if group.file is not None}
    return groups.union(
        *({f"{_WORDS[kind]} {each.name}" for each in getattr(held, kind) if each.file is not None} for kind in _WORDS)
    )


def filed_by(files: Rules) -> set[str]:
    """What these files define, in the same words."""
    return {
        *(f"thing group {name}" for name in files.fleet.groups),
        *(f"{_WORDS['profiles']} {each.security_profile_name}" for each in files.profiles),
        *(f"{_WORDS['custom_metrics']} {each.metric_name}" for each in files.custom_metrics),
        *(f"{_WORDS['dimensions']} {each.name}" for each in files.dimensions),
    }


def drafts_of(held: Holdings, limits: Limits, *, filed: bool) -> Drafts:
    """What an endpoint holds, and notes on what files have no place for. `filed`: with what its own files define."""
    inside = {thing for group in held.groups for thing in group.things}
    groups = {
        group.name: {**({"parent": group.parent} if group.parent else {}), "things": list(group.things)}
        for group in held.groups
    }
    things = [thing for thing in held.things if thing not in inside]
    drafts = Drafts(things=things, groups=groups, limits=limits, notes=[*held.notes, *_losses(held)])
    for collection in COLLECTIONS:
        made: list[Seen] = [each for each in getattr(held, collection) if filed or each.file is None]
        drafts.of(collection).extend(Draft(_with_short_targets(each.body)) for each in made)
        drafts.notes.extend(f"{each.name}: there {each.file} defines it" for each in made if each.file is not None)
    drafts.name_groups_of_targets()
    return drafts


def _with_short_targets(body: Mapping[str, Any]) -> dict[str, Any]:
    targets = {"targets": [short_target(each) or each for each in body["targets"]]} if "targets" in body else {}
    return {**body, **targets}


def _losses(held: Holdings) -> Iterator[str]:
    for group in held.groups:
        if group.extras and group.file is None:  # what a file defines has none
            yield f"thing group {group.name}: a fleet file has no place for {', '.join(group.extras)}"
    if held.described_things:
        yield f"things: a fleet file has no place for attributes and types, which {held.described_things} have"


def _reserved(key: str) -> bool:
    """Not the user's own: what AWS sets, and what a detectd says of its files."""
    return key.lower().startswith("aws:") or key == SOURCE


def _extras(described: Mapping[str, Any], tags: Sequence[Any]) -> Iterator[str]:
    properties = described.get("thingGroupProperties", {})
    if properties.get("thingGroupDescription"):
        yield "a description"
    if properties.get("attributePayload", {}).get("attributes"):
        yield "attributes"
    if tags:
        yield "tags"
    if described.get("queryString"):
        yield f"a query that fills it ({described['queryString']})"
