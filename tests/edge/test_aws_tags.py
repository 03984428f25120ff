"""Tags through the API (spec.md §10.6): handlers over a real store."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_runner import ARN, TestedPlane, ask, plane, refused

PROFILE = f"{ARN}securityprofile/P"
Tags = dict[str, str]


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[TestedPlane]:
    async with plane(tmp_path) as control:
        await ask(control, "CreateSecurityProfile", securityProfileName="P")
        yield control


async def tag(control: TestedPlane, arn: str, **tags: str) -> None:
    await ask(control, "TagResource", resourceArn=arn, tags=pairs(tags))


async def tags_of(control: TestedPlane, arn: str) -> Tags:
    return {each["Key"]: each["Value"] for each in (await ask(control, "ListTagsForResource", resourceArn=arn))["tags"]}


def pairs(tags: Tags) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


async def test_tags_are_set_changed_listed_and_removed(control: TestedPlane) -> None:
    await tag(control, PROFILE, team="x", stage="test")
    await tag(control, PROFILE, team="y", empty="")
    assert await tags_of(control, PROFILE) == {"empty": "", "stage": "test", "team": "y"}
    await ask(control, "UntagResource", resourceArn=PROFILE, tagKeys=["stage", "never-set"])
    assert await tags_of(control, PROFILE) == {"empty": "", "team": "y"}


async def test_a_tag_without_a_value_has_an_empty_one(control: TestedPlane) -> None:
    await ask(control, "TagResource", resourceArn=PROFILE, tags=[{"Key": "bare"}])
    assert await tags_of(control, PROFILE) == {"bare": ""}


@pytest.mark.parametrize(
    ("operation", "params", "resource"),
    [
        ("CreateSecurityProfile", {"securityProfileName": "Q"}, "securityprofile/Q"),
        ("CreateDimension", {"name": "D", "type": "TOPIC_FILTER", "stringValues": ["a"]}, "dimension/D"),
        ("CreateCustomMetric", {"metricName": "m", "metricType": "number"}, "custommetric/m"),
    ],
)
async def test_what_is_created_with_tags_has_them_and_takes_them_along(
    control: TestedPlane, operation: str, params: dict[str, Any], resource: str
) -> None:
    await ask(control, operation, **params, tags=pairs({"team": "x"}))
    assert await tags_of(control, ARN + resource) == {"team": "x"}
    name, value = next(iter(params.items()))
    await ask(control, operation.replace("Create", "Delete"), **{name: value})
    with refused("ResourceNotFoundException"):
        await tags_of(control, ARN + resource)
    assert await control.rows("SELECT * FROM tags") == []


@pytest.mark.parametrize("key", ["aws:team", "AWS:team", "Aws:", "detectd:source", "detectd:x", "DETECTD:source"])
async def test_reserved_keys_are_refused_on_creation_and_later(control: TestedPlane, key: str) -> None:
    with refused("InvalidRequestException", "reserved"):
        await ask(control, "TagResource", resourceArn=PROFILE, tags=pairs({"fine": "", key: "v"}))
    with refused("InvalidRequestException", "reserved"):
        await ask(control, "CreateSecurityProfile", securityProfileName="Q", tags=pairs({key: "v"}))
    assert await tags_of(control, PROFILE) == {}
    assert await control.rows("SELECT name FROM profiles") == [("P",)]


async def test_a_key_that_is_given_twice_is_refused(control: TestedPlane) -> None:
    with refused("InvalidRequestException", "twice"):
        await ask(control, "TagResource", resourceArn=PROFILE, tags=[*pairs({"a": "1"}), *pairs({"a": "2"})])


async def test_a_resource_has_at_most_fifty_tags(control: TestedPlane) -> None:
    await tag(control, PROFILE, **{f"k{at}": "" for at in range(49)})
    with refused("LimitExceededException"):
        await tag(control, PROFILE, new="", newer="")
    assert len(await tags_of(control, PROFILE)) == 49
    await tag(control, PROFILE, k1="changed", new="")  # one of these is there already
    with refused("LimitExceededException"):
        await tag(control, PROFILE, newer="")


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("CreateSecurityProfile", {"securityProfileName": "Q"}, "InvalidRequestException"),
        ("CreateCustomMetric", {"metricName": "m", "metricType": "number"}, "LimitExceededException"),
    ],
)
async def test_nothing_is_created_with_fifty_one_tags(
    control: TestedPlane, operation: str, params: dict[str, Any], code: str
) -> None:
    with refused(code, "50"):
        await ask(control, operation, **params, tags=pairs({f"k{at}": "" for at in range(51)}))
    assert await control.rows("SELECT name FROM profiles UNION SELECT name FROM custom_metrics") == [("P",)]


@pytest.mark.parametrize(
    ("resource", "insert"),
    [
        ("thinggroup/g", "INSERT INTO thing_groups (name, id, created_ns, by_api) VALUES ('g', 'i', 0, 1)"),
        ("thingtype/t", "INSERT INTO thing_types (name, id, body, created_ns) VALUES ('t', 'i', '{}', 0)"),
        ("billinggroup/b", "INSERT INTO billing_groups (name, id, created_ns) VALUES ('b', 'i', 0)"),
    ],
)
async def test_what_the_registry_has_takes_tags_too(control: TestedPlane, resource: str, insert: str) -> None:
    with refused("ResourceNotFoundException", resource):
        await tag(control, ARN + resource, team="x")
    await control.write(insert)
    await tag(control, ARN + resource, team="x")
    assert await tags_of(control, ARN + resource) == {"team": "x"}
    assert await tags_of(control, PROFILE) == {}


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        (f"{ARN}securityprofile/Nobody", "ResourceNotFoundException"),
        (f"{ARN}securityprofile", "ResourceNotFoundException"),
        (f"{ARN}thing/t1", "InvalidRequestException"),
        (f"{ARN}nonsense", "InvalidRequestException"),
        ("arn:aws:iot:eu-west-1:999999999999:securityprofile/P", "InvalidRequestException"),
        ("P", "InvalidRequestException"),
        ("", "InvalidRequestException"),
    ],
)
async def test_what_has_no_tags_is_refused_by_all_three(control: TestedPlane, arn: str, code: str) -> None:
    with refused(code):
        await tag(control, arn, team="x")
    with refused(code):
        await ask(control, "UntagResource", resourceArn=arn, tagKeys=["team"])
    with refused(code):
        await tags_of(control, arn)


async def test_what_a_file_defines_says_so_and_its_tags_are_read_only(control: TestedPlane) -> None:
    file = await control.files(
        profiles=[{"securityProfileName": "F", "tags": pairs({"zone": "1", "a": "b"})}],
        custom_metrics=[{"metricName": "m", "metricType": "number"}],
        dimensions=[{"name": "D", "stringValues": ["a"]}],
        fleet={"groups": {"g": {}}},
    )
    arn = f"{ARN}securityprofile/F"
    assert await tags_of(control, arn) == {"a": "b", "detectd:source": file, "zone": "1"}
    for resource in ("custommetric/m", "dimension/D", "thinggroup/g"):
        assert await tags_of(control, ARN + resource) == {"detectd:source": file}
        with refused("InvalidRequestException", f"defined in {file}"):
            await tag(control, ARN + resource, team="x")
    with refused("InvalidRequestException", f"defined in {file}"):
        await ask(control, "UntagResource", resourceArn=arn, tagKeys=["zone"])
    assert "detectd:source" not in await tags_of(control, PROFILE)


async def test_tags_decide_no_alarms_so_nothing_is_announced_but_the_trail_has_them(control: TestedPlane) -> None:
    before = control.changes
    await tag(control, PROFILE, team="x")
    await ask(control, "UntagResource", resourceArn=PROFILE, tagKeys=["team"])
    assert control.changes == before
    trail = await control.rows("SELECT action, resource FROM audit ORDER BY id DESC LIMIT 2")
    assert trail == [("UntagResource", "securityprofile/P"), ("TagResource", "securityprofile/P")]


async def test_a_list_of_tags_goes_on_after_its_token(control: TestedPlane) -> None:
    with refused("InvalidRequestException", "nextToken"):
        await ask(control, "ListTagsForResource", resourceArn=PROFILE, nextToken="rubbish")
