"""Dimensions through the API (spec.md §6.1, §10.3): handlers over a real store."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_runner import ARN, START_NS, TestedPlane, ask, pages, plane, refused

from config.model import NS


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[TestedPlane]:
    async with plane(tmp_path) as control:
        yield control


async def create(control: TestedPlane, name: str, *filters: str, **more: Any) -> dict[str, Any]:
    values = list(filters or ["dt/#"])
    return await ask(control, "CreateDimension", name=name, type="TOPIC_FILTER", stringValues=values, **more)


def sent_by(dimension: str, name: str = "sent") -> dict[str, Any]:
    return {
        "name": name,
        "metric": "aws:num-messages-sent",
        "metricDimension": {"dimensionName": dimension},
        "criteria": {"comparisonOperator": "less-than", "value": {"count": 9}, "durationSeconds": 300},
    }


async def test_a_dimension_is_created_described_and_listed(control: TestedPlane) -> None:
    assert await create(control, "Up", "dt/+/up") == {"name": "Up", "arn": f"{ARN}dimension/Up"}
    assert await ask(control, "DescribeDimension", name="Up") == {
        "name": "Up",
        "arn": f"{ARN}dimension/Up",
        "type": "TOPIC_FILTER",
        "stringValues": ["dt/+/up"],
        "creationDate": START_NS,
        "lastModifiedDate": START_NS,
    }
    assert await ask(control, "ListDimensions") == {"dimensionNames": ["Up"]}
    assert control.changes == 1


async def test_an_update_replaces_the_filters_and_moves_only_the_last_date(control: TestedPlane) -> None:
    await create(control, "Up", "a", "b")
    control.clock.forward(5)
    answer = await ask(control, "UpdateDimension", name="Up", stringValues=["c/${iot:ClientId}"])
    assert (answer["stringValues"], answer["creationDate"]) == (["c/${iot:ClientId}"], START_NS)
    assert answer["lastModifiedDate"] == START_NS + 5 * NS
    assert await ask(control, "DescribeDimension", name="Up") == answer


async def test_a_clock_that_steps_back_does_not_move_the_last_change_back(control: TestedPlane) -> None:
    await create(control, "Up", "a")
    control.clock.forward(-60)
    assert (await ask(control, "UpdateDimension", name="Up", stringValues=["b"]))["lastModifiedDate"] == START_NS


@pytest.mark.parametrize("text", ["a+", "a/b#", "#/a", "a/#/b", "${iot:Thing}", "x" * 257])
async def test_what_is_no_topic_filter_is_refused(control: TestedPlane, text: str) -> None:
    with refused("InvalidRequestException", r"stringValues\[1\]"):
        await create(control, "Up", "fine", text)
    await create(control, "Up", "fine")
    with refused("InvalidRequestException", r"stringValues\[0\]"):
        await ask(control, "UpdateDimension", name="Up", stringValues=[text])
    assert (await ask(control, "DescribeDimension", name="Up"))["stringValues"] == ["fine"]


async def test_a_hundred_filters_are_accepted(control: TestedPlane) -> None:
    await create(control, "Many", *(f"t/{at}" for at in range(100)))
    assert len((await ask(control, "DescribeDimension", name="Many"))["stringValues"]) == 100


async def test_an_unknown_dimension_is_not_found_and_yet_can_be_deleted(control: TestedPlane) -> None:
    with refused("ResourceNotFoundException"):
        await ask(control, "DescribeDimension", name="Up")
    with refused("ResourceNotFoundException"):
        await ask(control, "UpdateDimension", name="Up", stringValues=["a"])
    await ask(control, "DeleteDimension", name="Up")


async def test_vector_18_deleting_an_unknown_dimension_succeeds(control: TestedPlane) -> None:
    assert await ask(control, "DeleteDimension", name="Nobody") == {}


async def test_a_repeat_with_the_same_token_and_content_is_the_same_dimension(control: TestedPlane) -> None:
    tags = [{"Key": "team", "Value": "x"}]
    first = await create(control, "Up", "a", clientRequestToken="t1", tags=tags)
    control.clock.forward(1)
    assert await create(control, "Up", "a", clientRequestToken="t1", tags=tags) == first
    assert (await ask(control, "DescribeDimension", name="Up"))["creationDate"] == START_NS


async def test_a_late_repeat_is_the_same_dimension_though_it_was_updated(control: TestedPlane) -> None:
    first = await create(control, "Up", "a", clientRequestToken="t1")
    await ask(control, "UpdateDimension", name="Up", stringValues=["b"])
    assert await create(control, "Up", "a", clientRequestToken="t1") == first
    assert (await ask(control, "DescribeDimension", name="Up"))["stringValues"] == ["b"]


@pytest.mark.parametrize(
    ("name", "values", "token", "tags"),
    [
        ("Up", ["a"], "t2", []),  # the same content, another token
        ("Up", ["b"], "t1", []),
        ("Up", ["a"], "t1", [{"Key": "k", "Value": "v"}]),
        ("Down", ["a"], "t1", []),  # the token of another dimension
    ],
)
async def test_any_other_repeat_is_refused_and_says_which_there_is(
    control: TestedPlane, name: str, values: list[str], token: str, tags: list[dict[str, str]]
) -> None:
    await create(control, "Up", "a", clientRequestToken="t1")
    with refused("ResourceAlreadyExistsException") as caught:
        await create(control, name, *values, clientRequestToken=token, tags=tags)
    assert caught.value.members == {"resourceId": "Up", "resourceArn": f"{ARN}dimension/Up"}
    assert await ask(control, "ListDimensions") == {"dimensionNames": ["Up"]}


async def test_the_eleventh_dimension_is_one_too_many_whoever_made_the_others(control: TestedPlane) -> None:
    await control.files(dimensions=[{"name": "Filed", "stringValues": ["a"]}])
    for at in range(9):
        await create(control, f"D{at}", clientRequestToken=f"t{at}")
    with refused("LimitExceededException"):
        await create(control, "Eleventh")
    await create(control, "D3", clientRequestToken="t3")  # a repeat needs no room
    await ask(control, "DeleteDimension", name="D3")
    await create(control, "Eleventh")


async def test_a_dimension_in_use_is_not_deleted_and_its_users_are_named(control: TestedPlane) -> None:
    await create(control, "Up")
    await ask(control, "CreateSecurityProfile", securityProfileName="Judges", behaviors=[sent_by("Up")])
    retained = [{"metric": "aws:num-messages-sent", "metricDimension": {"dimensionName": "Up"}}]
    await ask(control, "CreateSecurityProfile", securityProfileName="Keeps", additionalMetricsToRetainV2=retained)
    with refused("InvalidRequestException", "Judges, Keeps"):
        await ask(control, "DeleteDimension", name="Up")
    await ask(control, "DeleteSecurityProfile", securityProfileName="Judges")
    with refused("InvalidRequestException", "Keeps"):
        await ask(control, "DeleteDimension", name="Up")
    await ask(control, "DeleteSecurityProfile", securityProfileName="Keeps")
    await ask(control, "DeleteDimension", name="Up")
    assert await ask(control, "ListDimensions") == {"dimensionNames": []}


async def test_a_name_that_only_contains_a_dimensions_name_is_no_use_of_it(control: TestedPlane) -> None:
    await create(control, "Up")
    await create(control, "Upper")
    await ask(control, "CreateSecurityProfile", securityProfileName="P", behaviors=[sent_by("Upper", "Up")])
    await ask(control, "DeleteDimension", name="Up")
    with refused("InvalidRequestException"):
        await ask(control, "DeleteDimension", name="Upper")


async def test_what_a_file_defines_is_read_only_and_the_error_names_the_file(control: TestedPlane) -> None:
    file = await control.files(dimensions=[{"name": "Filed", "stringValues": ["a"]}])
    for operation, more in (("UpdateDimension", {"stringValues": ["b"]}), ("DeleteDimension", {})):
        with refused("InvalidRequestException", f"defined in {file}"):
            await ask(control, operation, name="Filed", **more)
    with refused("ResourceAlreadyExistsException", f"defined in {file}"):
        await create(control, "Filed", "a")
    assert (await ask(control, "DescribeDimension", name="Filed"))["stringValues"] == ["a"]


async def test_pages_go_by_name_and_stay_in_place_under_writes(control: TestedPlane) -> None:
    for name in "BDFH":
        await create(control, name)
    first = await ask(control, "ListDimensions", maxResults=2)
    assert first["dimensionNames"] == ["B", "D"]
    await ask(control, "DeleteDimension", name="D")
    await create(control, "A")
    await create(control, "E")
    assert await ask(control, "ListDimensions", maxResults=9, nextToken=first["nextToken"]) == {
        "dimensionNames": ["E", "F", "H"]
    }
    assert await pages(control, "ListDimensions", "dimensionNames", maxResults=2) == [["A", "B"], ["E", "F"], ["H"]]


@pytest.mark.parametrize("token", ["rubbish", "W10=", "é", "eyJhIjoxfQ=="])
async def test_a_token_that_no_list_gave_out_is_refused(control: TestedPlane, token: str) -> None:
    with refused("InvalidRequestException", "nextToken"):
        await ask(control, "ListDimensions", nextToken=token)


async def test_every_change_is_in_the_audit_trail_and_a_refused_one_is_not(control: TestedPlane) -> None:
    await create(control, "Up")
    await ask(control, "UpdateDimension", name="Up", stringValues=["b"])
    with refused("ResourceAlreadyExistsException"):
        await create(control, "Up")
    await ask(control, "DeleteDimension", name="Up")
    assert await control.rows("SELECT who, action, resource FROM audit ORDER BY id") == [
        ("tester", "CreateDimension", "dimension/Up"),
        ("tester", "UpdateDimension", "dimension/Up"),
        ("tester", "DeleteDimension", "dimension/Up"),
    ]
