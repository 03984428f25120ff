"""AWS IoT's API as a source of definitions: AWS itself, detectd, or any endpoint that speaks it. Reading only."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from config.model import CustomMetric, Dimension, Fleet, Group, Rules, SecurityProfile
from config.targets import short_target

Client = Any
Note = Callable[[str], None]
"""Hears, in words, of what could not be taken over."""

ATTEMPTS: Final = 8
SOURCE: Final = "detectd:source"  # the tag of what a file of a detectd defines
NOT_OFFERED: Final = frozenset({"UnknownOperationException", "404", "NotFound", "501", "NotImplemented", "500"})
_PRINTED: Final = (
    "ResponseMetadata",
    "version",
    "creationDate",
    "lastModifiedDate",
    "securityProfileArn",
    "metricArn",
    "arn",
)


def client(session: Session, region: str, endpoint_url: str | None) -> Client:
    """A client that retries what AWS throttles; `AWS_MAX_ATTEMPTS` says how often, as for AWS's own tools."""
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
    retries = Config(retries={"mode": "adaptive", "total_max_attempts": attempts}, connect_timeout=10, read_timeout=30)
    return session.create_client("iot", region_name=region, endpoint_url=endpoint_url, config=retries)


def read(iot: Client, note: Note) -> Rules:
    """Everything that the API has, but what a file of that detectd defines.

    Raises:
        ClientError, BotoCoreError: the endpoint refuses, or can't be reached.
    """
    return Rules(
        profiles=tuple(_offered(iot, note, "security profiles", _profiles)),
        custom_metrics=tuple(_offered(iot, note, "custom metrics", _custom_metrics)),
        dimensions=tuple(_offered(iot, note, "dimensions", _dimensions)),
        fleet=_fleet(iot, note),
    )


def _offered(iot: Client, note: Note, what: str, run: Callable[[Client, Note], Iterator[Any]]) -> list[Any]:
    """What `run` finds; nothing where the endpoint does not have that half of the API."""
    try:
        return list(run(iot, note))
    except ClientError as problem:
        status = str(problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        if NOT_OFFERED.isdisjoint({problem.response["Error"]["Code"], status}):
            raise
        note(f"{what}: this endpoint does not offer them")
        return []


def _profiles(iot: Client, note: Note) -> Iterator[SecurityProfile]:
    for each in all_of(iot, "list_security_profiles", "securityProfileIdentifiers"):
        tags = _tags(iot, each["arn"])
        if tags is None:
            continue
        body = _plain(iot.describe_security_profile(securityProfileName=each["name"]))
        name = {"securityProfileName": each["name"]}
        attached = all_of(iot, "list_targets_for_security_profile", "securityProfileTargets", **name)
        targets = [short_target(target["arn"]) or target["arn"] for target in attached]
        yield from _made(note, f"security profile {each['name']}", SecurityProfile, body | tags | {"targets": targets})


def _custom_metrics(iot: Client, note: Note) -> Iterator[CustomMetric]:
    for name in all_of(iot, "list_custom_metrics", "metricNames"):
        found = iot.describe_custom_metric(metricName=name)
        tags = _tags(iot, found["metricArn"])
        if tags is not None:
            yield from _made(note, f"custom metric {name}", CustomMetric, _plain(found) | tags)


def _dimensions(iot: Client, note: Note) -> Iterator[Dimension]:
    for name in all_of(iot, "list_dimensions", "dimensionNames"):
        found = iot.describe_dimension(name=name)
        tags = _tags(iot, found["arn"])
        if tags is not None:
            yield from _made(note, f"dimension {name}", Dimension, _plain(found) | tags)


def _fleet(iot: Client, note: Note) -> Fleet:
    groups = {}
    for each in all_of(iot, "list_thing_groups", "thingGroups"):
        name = each["groupName"]
        found = iot.describe_thing_group(thingGroupName=name)
        if found.get("queryString"):
            note(f"thing group {name}: it is dynamic (its query decides who is in it); left out")
            continue
        members = tuple(all_of(iot, "list_things_in_thing_group", "things", thingGroupName=name))
        groups[name] = Group(found.get("thingGroupMetadata", {}).get("parentGroupName"), members)
    inside = {thing for group in groups.values() for thing in group.things}
    things = [each["thingName"] for each in all_of(iot, "list_things", "things")]
    return Fleet(tuple(thing for thing in things if thing not in inside), groups)


def all_of(iot: Client, operation: str, member: str, **params: Any) -> Iterator[Any]:
    """Every element of every page of a list."""
    call = getattr(iot, operation)
    page = call(**params)
    yield from page[member]
    while page.get("nextToken"):
        page = call(nextToken=page["nextToken"], **params)
        yield from page[member]


def _tags(iot: Client, arn: str) -> dict[str, Any] | None:
    """The `tags` member; None: a file of that detectd defines it."""
    tags = list(all_of(iot, "list_tags_for_resource", "tags", resourceArn=arn))
    return None if any(tag["Key"] == SOURCE for tag in tags) else {"tags": tags}


def _plain(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in _PRINTED}


def _made(note: Note, what: str, kind: type[Any], body: Mapping[str, Any]) -> Iterator[Any]:
    try:
        yield msgspec.convert(body, kind)
    except msgspec.ValidationError as problem:
        note(f"{what}: {problem}; left out")
