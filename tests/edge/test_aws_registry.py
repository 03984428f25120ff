"""Things, groups, memberships, types and billing groups through the API (spec.md §10.7)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_runner import ARN, START_NS, TestedPlane, ask, pages, plane, refused


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[TestedPlane]:
    async with plane(tmp_path) as control:
        yield control


async def things(control: TestedPlane, *names: str) -> None:
    for name in names:
        await ask(control, "CreateThing", thingName=name)


async def groups(control: TestedPlane, **parents: str | None) -> None:
    for name, parent in parents.items():
        more = {} if parent is None else {"parentGroupName": parent}
        await ask(control, "CreateThingGroup", thingGroupName=name, **more)


async def put(control: TestedPlane, thing: str, group: str) -> None:
    await ask(control, "AddThingToThingGroup", thingName=thing, thingGroupName=group)


# ---- things ----


async def test_a_thing_is_created_described_and_deleted(control: TestedPlane) -> None:
    made = await ask(control, "CreateThing", thingName="t", attributePayload={"attributes": {"a": "1", "b": ""}})
    assert made["thingArn"] == f"{ARN}thing/t"
    assert await ask(control, "DescribeThing", thingName="t") == {
        "thingName": "t",
        "defaultClientId": "t",
        "thingArn": f"{ARN}thing/t",
        "thingId": made["thingId"],
        "attributes": {"a": "1"},
        "version": 0,
    }
    for _ in range(2):
        await ask(control, "DeleteThing", thingName="t")
    with refused("ResourceNotFoundException", "there is no thing t"):
        await ask(control, "DescribeThing", thingName="t")


async def test_the_same_creation_again_is_the_same_thing_and_another_is_refused(control: TestedPlane) -> None:
    first = await ask(control, "CreateThing", thingName="t")
    assert await ask(control, "CreateThing", thingName="t") == first
    with refused("ResourceAlreadyExistsException") as caught:
        await ask(control, "CreateThing", thingName="t", attributePayload={"attributes": {"a": "1"}})
    assert caught.value.members == {"resourceId": "t", "resourceArn": f"{ARN}thing/t"}


async def test_attributes_are_replaced_or_merged_and_an_empty_value_removes(control: TestedPlane) -> None:
    await ask(control, "CreateThing", thingName="t", attributePayload={"attributes": {"a": "1", "b": "2"}})

    async def after(**payload: object) -> dict[str, str]:
        await ask(control, "UpdateThing", thingName="t", attributePayload=payload)
        return dict((await ask(control, "DescribeThing", thingName="t"))["attributes"])

    assert await after(attributes={"b": "", "c": "3"}, merge=True) == {"a": "1", "c": "3"}
    assert await after(attributes={"d": "4"}) == {"d": "4"}
    assert await after(attributes={"d": ""}) == {}


async def test_versions_count_updates_and_the_expected_one_is_held_to(control: TestedPlane) -> None:
    await things(control, "t")
    await ask(control, "UpdateThing", thingName="t", expectedVersion=0)
    with refused("VersionConflictException", "has version 1, not 0"):
        await ask(control, "UpdateThing", thingName="t", expectedVersion=0)
    with refused("VersionConflictException"):
        await ask(control, "DeleteThing", thingName="t", expectedVersion=0)
    await ask(control, "DeleteThing", thingName="t", expectedVersion=1)


async def test_three_attributes_without_a_type_and_fifty_with_one(control: TestedPlane) -> None:
    many = {f"a{n}": "x" for n in range(50)}
    with refused("InvalidRequestException", "at most 3 attributes"):
        await ask(control, "CreateThing", thingName="t", attributePayload={"attributes": many})
    await ask(control, "CreateThingType", thingTypeName="meter")
    await ask(control, "CreateThing", thingName="t", thingTypeName="meter", attributePayload={"attributes": many})
    with refused("InvalidRequestException", "at most 50"):
        await ask(control, "UpdateThing", thingName="t", attributePayload={"attributes": {"more": "x"}, "merge": True})
    with refused("InvalidRequestException", "at most 3 attributes"):
        await ask(control, "UpdateThing", thingName="t", removeThingType=True)


async def test_what_a_thing_refers_to_must_exist(control: TestedPlane) -> None:
    with refused("ResourceNotFoundException", "thing type meter"):
        await ask(control, "CreateThing", thingName="t", thingTypeName="meter")
    with refused("ResourceNotFoundException", "billing group b"):
        await ask(control, "CreateThing", thingName="t", billingGroupName="b")
    await ask(control, "CreateThingType", thingTypeName="meter")
    await ask(control, "DeprecateThingType", thingTypeName="meter")
    with refused("InvalidRequestException", "deprecated"):
        await ask(control, "CreateThing", thingName="t", thingTypeName="meter")


async def test_things_are_listed_in_the_order_of_creation_page_by_page_while_others_come_and_go(
    control: TestedPlane,
) -> None:
    await things(control, *(f"t{n}" for n in range(9, 0, -1)))
    first = await ask(control, "ListThings", maxResults=4)
    await ask(control, "DeleteThing", thingName="t6")  # the last of that page
    await things(control, "late")
    rest = await ask(control, "ListThings", maxResults=250, nextToken=first["nextToken"])
    names = [[each["thingName"] for each in page["things"]] for page in (first, rest)]
    assert names == [["t9", "t8", "t7", "t6"], ["t5", "t4", "t3", "t2", "t1", "late"]]
    assert "nextToken" not in rest
    with refused("InvalidRequestException", "nextToken"):
        await ask(control, "ListThings", nextToken="bm90IG91cnM=")


async def test_things_are_filtered_by_type_and_attribute(control: TestedPlane) -> None:
    await ask(control, "CreateThingType", thingTypeName="meter")
    for name, kind, value in (("t1", "meter", "oslo"), ("t2", "meter", "bergen"), ("t3", None, "oslo-east")):
        more = {"thingTypeName": kind} if kind else {}
        await ask(control, "CreateThing", thingName=name, attributePayload={"attributes": {"a.b": value}}, **more)

    async def listed(**filters: object) -> list[str]:
        found = await ask(control, "ListThings", **filters)
        return [each["thingName"] for each in found["things"]]

    assert await listed(thingTypeName="meter") == ["t1", "t2"]
    assert await listed(attributeName="a.b") == ["t1", "t2", "t3"]
    assert await listed(attributeName="a.b", attributeValue="oslo") == ["t1"]
    assert await listed(attributeName="a.b", attributeValue="oslo", usePrefixAttributeValue=True) == ["t1", "t3"]
    assert await listed(attributeName="a", attributeValue="oslo") == []
    with refused("InvalidRequestException", "needs attributeName"):
        await listed(attributeValue="oslo")


# ---- groups ----


async def test_a_group_knows_its_way_up(control: TestedPlane) -> None:
    await groups(control, site=None, hall="site", pumps="hall")
    found = await ask(control, "DescribeThingGroup", thingGroupName="pumps")
    assert found["thingGroupMetadata"] == {
        "parentGroupName": "hall",
        "rootToParentThingGroups": [
            {"groupName": "site", "groupArn": f"{ARN}thinggroup/site"},
            {"groupName": "hall", "groupArn": f"{ARN}thinggroup/hall"},
        ],
        "creationDate": START_NS,
    }
    assert found["version"] == 1


async def test_a_group_has_at_most_six_above_it_and_a_hundred_in_it(control: TestedPlane) -> None:
    await groups(control, g1=None, **{f"g{n}": f"g{n - 1}" for n in range(2, 8)})
    with refused("InvalidRequestException", "at most 7 deep"):
        await groups(control, g8="g7")
    await groups(control, **{f"c{n}": "g2" for n in range(99)})  # and g3
    with refused("InvalidRequestException", "100 groups in it"):
        await groups(control, c99="g2")
    with refused("InvalidRequestException", "there is no thing group nowhere"):
        await groups(control, x="nowhere")


async def test_the_same_group_again_is_the_same_and_another_is_refused(control: TestedPlane) -> None:
    same = {"thingGroupName": "g", "tags": [{"Key": "a", "Value": "1"}]}
    first = await ask(control, "CreateThingGroup", **same)
    assert await ask(control, "CreateThingGroup", **same) == first
    for other in ({"tags": [{"Key": "a", "Value": "2"}]}, {"thingGroupProperties": {"thingGroupDescription": "x"}}):
        with refused("ResourceAlreadyExistsException", "different properties"):
            await ask(control, "CreateThingGroup", **same | other)
    found = await ask(control, "ListTagsForResource", resourceArn=f"{ARN}thinggroup/g")
    assert found["tags"] == [{"Key": "a", "Value": "1"}]


@pytest.mark.parametrize("kind", ["ThingGroup", "ThingType", "BillingGroup"])
async def test_what_is_created_with_bad_tags_is_not_created(control: TestedPlane, kind: str) -> None:
    name = {f"{kind[0].lower()}{kind[1:]}Name": "x"}
    for keys in ([f"k{n}" for n in range(51)], ["k", "k"], ["aws:k"], ["Detectd:k"]):
        with refused("InvalidRequestException"):
            await ask(control, f"Create{kind}", **name, tags=[{"Key": key, "Value": "v"} for key in keys])
        with refused("ResourceNotFoundException"):
            await ask(control, f"Describe{kind}", **name)
    assert await control.rows("SELECT * FROM tags") == []


async def test_groups_are_updated_by_version(control: TestedPlane) -> None:
    await groups(control, g=None)
    properties = {"thingGroupDescription": "pumps", "attributePayload": {"attributes": {"a": "1"}}}
    for version in (1, 2):
        answer = await ask(
            control, "UpdateThingGroup", thingGroupName="g", thingGroupProperties=properties, expectedVersion=version
        )
        assert answer == {"version": version + 1}
    with refused("VersionConflictException"):
        await ask(control, "UpdateThingGroup", thingGroupName="g", thingGroupProperties={}, expectedVersion=1)
    found = (await ask(control, "DescribeThingGroup", thingGroupName="g"))["thingGroupProperties"]
    assert found == {"thingGroupDescription": "pumps", "attributePayload": {"attributes": {"a": "1"}}}


async def test_groups_are_listed_by_prefix_parent_and_depth(control: TestedPlane) -> None:
    await groups(control, a=None, ab="a", abc="ab", b=None)

    async def listed(**filters: object) -> list[str]:
        found = await pages(control, "ListThingGroups", "thingGroups", maxResults=1, **filters)
        return [group["groupName"] for page in found for group in page]

    assert await listed() == ["a", "ab", "abc", "b"]
    assert await listed(recursive=False) == ["a", "b"]
    assert await listed(parentGroup="a") == ["ab", "abc"]
    assert await listed(parentGroup="a", recursive=False) == ["ab"]
    assert await listed(namePrefixFilter="ab") == ["ab", "abc"]
    with refused("ResourceNotFoundException"):
        await listed(parentGroup="nowhere")


async def test_deleting_a_group_takes_memberships_tags_and_attachments_along(control: TestedPlane) -> None:
    await groups(control, a=None, b="a")
    await things(control, "t")
    await put(control, "t", "b")
    await ask(control, "CreateSecurityProfile", securityProfileName="P")
    await ask(control, "AttachSecurityProfile", securityProfileName="P", securityProfileTargetArn=f"{ARN}thinggroup/b")
    with refused("InvalidRequestException", "groups in it"):
        await ask(control, "DeleteThingGroup", thingGroupName="a")
    for name in ("b", "a", "a"):
        await ask(control, "DeleteThingGroup", thingGroupName=name)
    for table in ("members", "tags", "targets", "thing_groups"):
        assert await control.rows(f"SELECT * FROM {table}") == [], table


# ---- memberships ----


async def test_things_are_put_into_groups_by_name_or_arn_and_taken_out(control: TestedPlane) -> None:
    await groups(control, a=None, ab="a")
    await things(control, "t1", "t2")
    await put(control, "t1", "a")
    await put(control, "t1", "a")
    await ask(control, "AddThingToThingGroup", thingArn=f"{ARN}thing/t2", thingGroupArn=f"{ARN}thinggroup/ab")
    everyone = await ask(control, "ListThingsInThingGroup", thingGroupName="a", recursive=True)
    assert everyone["things"] == ["t1", "t2"]
    assert (await ask(control, "ListThingsInThingGroup", thingGroupName="a"))["things"] == ["t1"]
    found = await ask(control, "ListThingGroupsForThing", thingName="t2")
    assert found["thingGroups"] == [{"groupName": "ab", "groupArn": f"{ARN}thinggroup/ab"}]
    for _ in range(2):
        await ask(control, "RemoveThingFromThingGroup", thingName="t1", thingGroupName="a")
    assert (await ask(control, "ListThingsInThingGroup", thingGroupName="a"))["things"] == []


@pytest.mark.parametrize(
    "given",
    [
        {"thingName": "t"},
        {"thingGroupName": "g"},
        {"thingName": "t", "thingGroupArn": f"{ARN}thing/g"},
        {"thingName": "other", "thingArn": f"{ARN}thing/t", "thingGroupName": "g"},
        {"thingArn": "arn:aws:iot:eu-west-1:999999999999:thing/t", "thingGroupName": "g"},
    ],
)
async def test_a_membership_needs_one_thing_and_one_group(control: TestedPlane, given: dict[str, str]) -> None:
    await groups(control, g=None)
    await things(control, "t", "other")
    with refused("InvalidRequestException"):
        await ask(control, "AddThingToThingGroup", **given)


async def test_what_is_put_into_a_group_must_exist(control: TestedPlane) -> None:
    await groups(control, g=None)
    await things(control, "t")
    with refused("ResourceNotFoundException", "thing nobody"):
        await put(control, "nobody", "g")
    with refused("ResourceNotFoundException", "thing group nowhere"):
        await put(control, "t", "nowhere")


async def test_a_thing_is_in_ten_groups_at_most_and_in_one_of_a_hierarchy(control: TestedPlane) -> None:
    await groups(control, **{f"g{n}": None for n in range(11)}, inner="g0")
    await things(control, "t")
    for n in range(10):
        await put(control, "t", f"g{n}")
    with refused("InvalidRequestException", "10 groups"):
        await put(control, "t", "g10")
    await ask(control, "RemoveThingFromThingGroup", thingName="t", thingGroupName="g9")
    with refused("InvalidRequestException", "same hierarchy"):
        await put(control, "t", "inner")


async def test_groups_of_a_thing_change_all_or_none(control: TestedPlane) -> None:
    await groups(control, a=None, inner="a", b=None)
    await things(control, "t")
    await put(control, "t", "a")
    change = {"thingName": "t", "thingGroupsToRemove": ["a"], "thingGroupsToAdd": ["inner", "nowhere"]}
    with refused("ResourceNotFoundException"):
        await ask(control, "UpdateThingGroupsForThing", **change)
    assert await control.rows("SELECT thing_group FROM members") == [("a",)]
    await ask(control, "UpdateThingGroupsForThing", **change | {"thingGroupsToAdd": ["inner", "b"]})
    assert await control.rows("SELECT thing_group FROM members") == [("b",), ("inner",)]


async def test_a_thing_that_goes_leaves_its_groups(control: TestedPlane) -> None:
    await groups(control, g=None)
    await things(control, "t")
    await put(control, "t", "g")
    await ask(control, "DeleteThing", thingName="t")
    assert (await ask(control, "ListThingsInThingGroup", thingGroupName="g"))["things"] == []


# ---- what files define ----


async def test_what_files_name_is_listed_and_cant_be_removed(control: TestedPlane) -> None:
    file = await control.files(
        fleet={"things": ["t0"], "groups": {"site": {}, "pumps": {"parent": "site", "things": ["t1"]}}}
    )
    listed = await ask(control, "ListThings")
    assert [each["thingName"] for each in listed["things"]] == ["t0", "t1"]
    for operation, given in (
        ("DeleteThing", {"thingName": "t1"}),
        ("DeleteThingGroup", {"thingGroupName": "pumps"}),
        ("RemoveThingFromThingGroup", {"thingName": "t1", "thingGroupName": "pumps"}),
    ):
        with refused("InvalidRequestException", f"is defined in {file}"):
            await ask(control, operation, **given)


async def test_the_api_adds_to_what_files_define(control: TestedPlane) -> None:
    await control.files(fleet={"groups": {"pumps": {"things": ["t1"]}}})
    await things(control, "t2")
    await put(control, "t2", "pumps")
    await ask(control, "UpdateThing", thingName="t1", attributePayload={"attributes": {"a": "1"}})
    assert (await ask(control, "ListThingsInThingGroup", thingGroupName="pumps"))["things"] == ["t1", "t2"]
    assert (await ask(control, "DescribeThing", thingName="t1"))["attributes"] == {"a": "1"}
    await ask(control, "RemoveThingFromThingGroup", thingName="t2", thingGroupName="pumps")


async def test_a_group_that_a_file_attaches_a_profile_to_stays(control: TestedPlane) -> None:
    await groups(control, g=None)
    await control.write("INSERT INTO profiles VALUES ('F', '{}', 1, 0, 0, '/etc/p.yaml')")
    await control.write("INSERT INTO targets VALUES ('F', 'thinggroup/g')")
    with refused("InvalidRequestException", "F is attached to thing group g in /etc/p.yaml"):
        await ask(control, "DeleteThingGroup", thingGroupName="g")


async def test_only_what_may_decide_alarms_is_announced(control: TestedPlane) -> None:
    await things(control, "t")
    before = control.changes
    await ask(control, "UpdateThing", thingName="t", attributePayload={"attributes": {"a": "1"}})
    await ask(control, "CreateThingType", thingTypeName="meter")
    await ask(control, "CreateBillingGroup", billingGroupName="b")
    assert control.changes == before
    await groups(control, g=None)
    assert control.changes == before + 1


# ---- types and billing groups ----


async def test_a_type_lives_is_deprecated_and_goes_when_nobody_has_it(control: TestedPlane) -> None:
    properties = {"thingTypeDescription": "a meter", "searchableAttributes": ["a"]}
    made = await ask(control, "CreateThingType", thingTypeName="meter", thingTypeProperties=properties)
    assert await ask(control, "CreateThingType", thingTypeName="meter", thingTypeProperties=properties) == made
    with refused("ResourceAlreadyExistsException"):
        await ask(control, "CreateThingType", thingTypeName="meter")
    await ask(control, "CreateThing", thingName="t", thingTypeName="meter")
    await ask(control, "DeprecateThingType", thingTypeName="meter")
    found = await ask(control, "DescribeThingType", thingTypeName="meter")
    assert found["thingTypeProperties"] == properties
    assert found["thingTypeMetadata"] == {"deprecated": True, "deprecationDate": START_NS, "creationDate": START_NS}
    await ask(control, "DeprecateThingType", thingTypeName="meter", undoDeprecate=True)
    found = await ask(control, "DescribeThingType", thingTypeName="meter")
    assert found["thingTypeMetadata"] == {"deprecated": False, "creationDate": START_NS}
    with refused("InvalidRequestException", "there are things of type"):
        await ask(control, "DeleteThingType", thingTypeName="meter")
    await ask(control, "UpdateThing", thingName="t", removeThingType=True)
    await ask(control, "DeleteThingType", thingTypeName="meter")
    with refused("ResourceNotFoundException"):
        await ask(control, "DeleteThingType", thingTypeName="meter")


async def test_types_are_listed_by_prefix_page_by_page(control: TestedPlane) -> None:
    for name in ("pump", "meter", "meter2"):
        await ask(control, "CreateThingType", thingTypeName=name)
    found = await pages(control, "ListThingTypes", "thingTypes", maxResults=1)
    assert [each["thingTypeName"] for page in found for each in page] == ["pump", "meter", "meter2"]
    (page,) = await pages(control, "ListThingTypes", "thingTypes", thingTypeName="meter")
    assert [each["thingTypeName"] for each in page] == ["meter", "meter2"]


async def test_a_billing_group_lives_and_goes_when_it_is_empty(control: TestedPlane) -> None:
    same = {"billingGroupName": "b", "tags": [{"Key": "a", "Value": "1"}]}
    made = await ask(control, "CreateBillingGroup", **same)
    assert await ask(control, "CreateBillingGroup", **same) == made
    others: tuple[dict[str, object], ...] = ({"tags": []}, {"billingGroupProperties": {"billingGroupDescription": "x"}})
    for other in others:
        with refused("ResourceAlreadyExistsException"):
            await ask(control, "CreateBillingGroup", **same | other)
    await things(control, "t")
    await ask(control, "AddThingToBillingGroup", thingName="t", billingGroupName="b")
    assert (await ask(control, "DescribeThing", thingName="t"))["billingGroupName"] == "b"
    assert (await ask(control, "ListThingsInBillingGroup", billingGroupName="b"))["things"] == ["t"]
    with refused("InvalidRequestException", "there are things in"):
        await ask(control, "DeleteBillingGroup", billingGroupName="b")
    await ask(control, "RemoveThingFromBillingGroup", thingName="t", billingGroupName="b")
    answer = await ask(
        control, "UpdateBillingGroup", billingGroupName="b", billingGroupProperties={}, expectedVersion=1
    )
    assert answer == {"version": 2}
    with refused("VersionConflictException"):
        await ask(control, "DeleteBillingGroup", billingGroupName="b", expectedVersion=1)
    found = await ask(control, "ListBillingGroups", namePrefixFilter="b")
    assert [group["groupName"] for group in found["billingGroups"]] == ["b"]
    for _ in range(2):
        await ask(control, "DeleteBillingGroup", billingGroupName="b")
    assert await control.rows("SELECT * FROM tags") == []


async def test_the_endpoint_is_the_embedded_broker(control: TestedPlane) -> None:
    await control.files(broker={"embedded": {"mqtt": "127.0.0.1:1884"}})
    assert await ask(control, "DescribeEndpoint", endpointType="iot:Data-ATS") == {"endpointAddress": "127.0.0.1:1884"}
    control.endpoint = lambda: "127.0.0.1:41883"  # the system's choice
    assert await ask(control, "DescribeEndpoint") == {"endpointAddress": "127.0.0.1:41883"}
    with refused("InvalidRequestException", "no endpoint of type iot:Jobs"):
        await ask(control, "DescribeEndpoint", endpointType="iot:Jobs")
