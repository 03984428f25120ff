"""What profiles are attached to, through the API (spec.md §5.3, §10.2): handlers over a real store."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from control_runner import ARN, TestedPlane, ask, pages, plane, refused

ALL = f"{ARN}all/things"
Pairs = list[tuple[str, str]]


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[TestedPlane]:
    """Groups site > pumps > small, and another, made by a file."""
    async with plane(tmp_path) as control:
        pumps, small = {"parent": "site"}, {"parent": "pumps"}
        await control.files(fleet={"groups": {"site": {}, "pumps": pumps, "small": small, "other": {}}})
        yield control


async def profile(control: TestedPlane, name: str, *targets: str) -> None:
    await ask(control, "CreateSecurityProfile", securityProfileName=name)
    for target in targets:
        await attach(control, name, target)


async def attach(control: TestedPlane, name: str, target: str) -> None:
    await ask(control, "AttachSecurityProfile", securityProfileName=name, securityProfileTargetArn=arn(target))


async def detach(control: TestedPlane, name: str, target: str) -> None:
    await ask(control, "DetachSecurityProfile", securityProfileName=name, securityProfileTargetArn=arn(target))


def arn(target: str) -> str:
    return target if target.startswith("arn:") else f"{ARN}{target}"


async def targets_of(control: TestedPlane, name: str) -> list[str]:
    answer = await ask(control, "ListTargetsForSecurityProfile", securityProfileName=name)
    return [each["arn"].removeprefix(ARN) for each in answer["securityProfileTargets"]]


async def profiles_of(control: TestedPlane, target: str, **more: Any) -> Pairs:
    answer = await ask(control, "ListSecurityProfilesForTarget", securityProfileTargetArn=arn(target), **more)
    return [pair(each) for each in answer["securityProfileTargetMappings"]]


def pair(mapping: dict[str, Any]) -> tuple[str, str]:
    identifier = mapping["securityProfileIdentifier"]
    assert identifier["arn"] == f"{ARN}securityprofile/{identifier['name']}"
    return identifier["name"], mapping["target"]["arn"].removeprefix(ARN)


async def test_a_profile_is_attached_listed_from_both_ends_and_detached(control: TestedPlane) -> None:
    await profile(control, "P", "thinggroup/pumps", "all/things", "all/unregistered-things")
    assert await targets_of(control, "P") == ["all/things", "all/unregistered-things", "thinggroup/pumps"]
    assert await profiles_of(control, "thinggroup/pumps") == [("P", "thinggroup/pumps")]
    assert await profiles_of(control, "all/things") == [("P", "all/things")]
    await detach(control, "P", "all/things")
    assert await targets_of(control, "P") == ["all/unregistered-things", "thinggroup/pumps"]
    assert await profiles_of(control, "all/things") == []


async def test_attaching_and_detaching_twice_is_as_once(control: TestedPlane) -> None:
    await profile(control, "P", "all/things", "all/things")
    assert await targets_of(control, "P") == ["all/things"]
    await detach(control, "P", "all/things")
    await detach(control, "P", "all/things")
    assert await targets_of(control, "P") == []


async def test_vector_17_the_sixth_profile_on_a_group_is_one_too_many(control: TestedPlane) -> None:
    for at in range(5):
        await profile(control, f"P{at}", "thinggroup/pumps")
    await profile(control, "Sixth", "thinggroup/site", "all/things")
    with refused("LimitExceededException"):
        await attach(control, "Sixth", "thinggroup/pumps")
    await attach(control, "P3", "thinggroup/pumps")  # attached already: nothing to count
    await detach(control, "P3", "thinggroup/pumps")
    await attach(control, "Sixth", "thinggroup/pumps")
    assert [name for name, _ in await profiles_of(control, "thinggroup/pumps")] == ["P0", "P1", "P2", "P4", "Sixth"]


async def test_a_files_profiles_count_among_the_five(control: TestedPlane) -> None:
    filed = [{"securityProfileName": f"F{at}", "targets": ["all/things"]} for at in range(5)]
    await control.files(profiles=filed)
    await profile(control, "P")
    with refused("LimitExceededException"):
        await attach(control, "P", "all/things")


@pytest.mark.parametrize(
    "target",
    [
        "all/things",
        "arn:aws-cn:iot:eu-west-1:123456789012:all/things",
        "arn:aws-us-gov:iot:eu-west-1:123456789012:all/things",
    ],
)
async def test_other_forms_of_our_arns_name_the_same_target(control: TestedPlane, target: str) -> None:
    await profile(control, "P")
    asked = {"securityProfileName": "P", "securityProfileTargetArn": target}
    await ask(control, "AttachSecurityProfile", **asked)
    assert await control.rows("SELECT * FROM targets") == [("P", "all/things")]
    await ask(control, "DetachSecurityProfile", **asked)
    assert await control.rows("SELECT * FROM targets") == []


@pytest.mark.parametrize(
    "target",
    [
        "arn:aws:iot:us-east-1:123456789012:all/things",
        "arn:aws:iot:eu-west-1:999999999999:all/things",
        "arn:aws:sns:eu-west-1:123456789012:all/things",
        "arn:evil:iot:eu-west-1:123456789012:all/things",
        f"{ARN}arn:aws:iot:us-east-1:1:all/things",
        f"{ARN}thing/t1",
        f"{ARN}thinggroup/",
        f"{ARN}securityprofile/P",
        f"{ARN}all/thing",
        ARN,
        "everything",
        "",
    ],
)
async def test_what_is_no_target_of_ours_is_refused_everywhere(control: TestedPlane, target: str) -> None:
    await profile(control, "P")
    asked = {"securityProfileName": "P", "securityProfileTargetArn": target}
    with refused("InvalidRequestException", "no target"):
        await ask(control, "AttachSecurityProfile", **asked)
    with refused("InvalidRequestException", "no target"):
        await ask(control, "DetachSecurityProfile", **asked)
    with refused("InvalidRequestException", "no target"):
        await ask(control, "ListSecurityProfilesForTarget", securityProfileTargetArn=target)


async def test_unknown_profiles_and_groups_are_not_found(control: TestedPlane) -> None:
    await profile(control, "P")
    with refused("ResourceNotFoundException", "thing group nowhere"):
        await attach(control, "P", "thinggroup/nowhere")
    with refused("ResourceNotFoundException", "thing group nowhere"):
        await profiles_of(control, "thinggroup/nowhere")
    for change in (attach, detach):
        with refused("ResourceNotFoundException", "security profile Q"):
            await change(control, "Q", "all/things")
    with refused("ResourceNotFoundException", "security profile Q"):
        await targets_of(control, "Q")


async def test_a_group_that_is_no_more_is_detached_already(control: TestedPlane) -> None:
    await profile(control, "P", "thinggroup/other")
    await control.write("DELETE FROM thing_groups WHERE name = 'other'")
    await detach(control, "P", "thinggroup/other")
    assert await targets_of(control, "P") == []


async def test_recursive_takes_the_groups_above_and_below_and_no_others(control: TestedPlane) -> None:
    await profile(control, "Above", "thinggroup/site", "thinggroup/other")
    await profile(control, "Below", "thinggroup/small")
    await profile(control, "Here", "thinggroup/pumps")
    await profile(control, "Everywhere", "all/things", "all/registered-things")
    assert await profiles_of(control, "thinggroup/pumps") == [("Here", "thinggroup/pumps")]
    assert await profiles_of(control, "thinggroup/pumps", recursive=False) == [("Here", "thinggroup/pumps")]
    assert await profiles_of(control, "thinggroup/pumps", recursive=True) == [
        ("Above", "thinggroup/site"),
        ("Below", "thinggroup/small"),
        ("Here", "thinggroup/pumps"),
    ]
    assert await profiles_of(control, "thinggroup/other", recursive=True) == [("Above", "thinggroup/other")]
    assert await profiles_of(control, "all/things", recursive=True) == [("Everywhere", "all/things")]


async def test_a_sister_group_is_neither_above_nor_below(control: TestedPlane) -> None:
    fleet = {"groups": {"site": {}, "left": {"parent": "site"}, "right": {"parent": "site"}}}
    await control.files(fleet=fleet)
    await profile(control, "Left", "thinggroup/left")
    await profile(control, "Right", "thinggroup/right")
    assert await profiles_of(control, "thinggroup/left", recursive=True) == [("Left", "thinggroup/left")]
    assert len(await profiles_of(control, "thinggroup/site", recursive=True)) == 2


async def test_groups_that_are_their_own_ancestors_end_a_list_all_the_same(control: TestedPlane) -> None:
    await profile(control, "P", "thinggroup/site")
    await control.write("UPDATE thing_groups SET parent = 'small' WHERE name = 'site'")
    assert await profiles_of(control, "thinggroup/pumps", recursive=True) == [("P", "thinggroup/site")]


async def test_both_lists_come_in_pages_that_writes_do_not_move(control: TestedPlane) -> None:
    for name in "BD":
        await profile(control, name, "thinggroup/site", "thinggroup/pumps")
    asked = {"securityProfileTargetArn": f"{ARN}thinggroup/site", "recursive": True, "maxResults": 3}
    first = await ask(control, "ListSecurityProfilesForTarget", **asked)
    await profile(control, "A", "thinggroup/site")
    await detach(control, "D", "thinggroup/pumps")
    await profile(control, "E", "thinggroup/small")
    rest = await ask(control, "ListSecurityProfilesForTarget", **asked, nextToken=first["nextToken"])
    found = [pair(each) for each in first["securityProfileTargetMappings"] + rest["securityProfileTargetMappings"]]
    assert found == [
        ("B", "thinggroup/pumps"), ("B", "thinggroup/site"), ("D", "thinggroup/pumps"),
        ("D", "thinggroup/site"), ("E", "thinggroup/small"),
    ]  # fmt: skip
    listed = await pages(
        control, "ListTargetsForSecurityProfile", "securityProfileTargets", securityProfileName="B", maxResults=1
    )
    assert listed == [[{"arn": f"{ARN}thinggroup/pumps"}], [{"arn": f"{ARN}thinggroup/site"}]]


async def test_a_token_of_another_list_is_refused(control: TestedPlane) -> None:
    await profile(control, "A")
    await profile(control, "B")
    token = (await ask(control, "ListSecurityProfiles", maxResults=1))["nextToken"]
    with refused("InvalidRequestException", "nextToken"):
        await ask(control, "ListSecurityProfilesForTarget", securityProfileTargetArn=ALL, nextToken=token)


async def test_the_attachments_of_a_files_profile_are_read_only(control: TestedPlane) -> None:
    file = await control.files(profiles=[{"securityProfileName": "F", "targets": ["all/things"]}])
    for change in (attach, detach):
        with refused("InvalidRequestException", f"defined in {file}"):
            await change(control, "F", "all/registered-things")
    assert await targets_of(control, "F") == ["all/things"]


async def test_the_apis_profile_may_be_attached_to_a_files_group(control: TestedPlane) -> None:
    await profile(control, "P", "thinggroup/site")
    assert await targets_of(control, "P") == ["thinggroup/site"]


async def test_attaching_does_not_make_a_new_version(control: TestedPlane) -> None:
    await profile(control, "P", "all/things")
    assert (await ask(control, "DescribeSecurityProfile", securityProfileName="P"))["version"] == 1
    assert control.changes == 2
