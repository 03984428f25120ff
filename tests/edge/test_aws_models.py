"""What is said of learned behaviors while nothing is learned: pending, with the share of the data that is there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from builders import START_S, report
from control_runner import ARN, TestedPlane, ask, pages, plane, refused, reported

from config.model import NS


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[TestedPlane]:
    async with plane(tmp_path) as control:
        yield control


def learned(name: str) -> dict[str, object]:
    criteria = {"mlDetectionConfig": {"confidenceLevel": "HIGH"}}
    return {"name": name, "metric": "aws:all-bytes-out", "criteria": criteria}


async def test_every_learned_behavior_has_a_row_and_no_other(control: TestedPlane) -> None:
    static = {
        "name": "static",
        "metric": "aws:listening-tcp-ports",
        "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
    }
    behaviors = [learned("b"), static, learned("a")]
    for name in ("Q", "P"):
        await ask(control, "CreateSecurityProfile", securityProfileName=name, behaviors=behaviors)
    found = await pages(control, "GetBehaviorModelTrainingSummaries", "summaries", maxResults=3)
    rows = [[(row["securityProfileName"], row["behaviorName"]) for row in page] for page in found]
    assert rows == [[("P", "a"), ("P", "b"), ("Q", "a")], [("Q", "b")]]
    assert {(row["modelStatus"], row["datapointsCollectionPercentage"]) for page in found for row in page} == {
        ("PENDING_BUILD", 0.0)
    }
    (page,) = await pages(control, "GetBehaviorModelTrainingSummaries", "summaries", securityProfileName="Q")
    assert [row["behaviorName"] for row in page] == ["a", "b"]
    with refused("ResourceNotFoundException"):
        await ask(control, "GetBehaviorModelTrainingSummaries", securityProfileName="nobody")


async def test_what_is_gathered_of_a_profiles_own_things_counts_from_the_hour_it_began(tmp_path: Path) -> None:
    hour = 3600 * NS
    log = [report(thing, at, bytes_out=1) for at in range(0, 3000, 300) for thing in ("in", "below", "out")]
    async with reported(tmp_path, *log) as control:
        control.clock.now_ns = (START_S + 4000) * NS  # type: ignore[attr-defined]
        for group, parent in (("top", {}), ("sub", {"parentGroupName": "top"})):
            await ask(control, "CreateThingGroup", thingGroupName=group, **parent)
        for thing, group in (("in", "top"), ("below", "sub")):
            await ask(control, "CreateThing", thingName=thing)
            await ask(control, "AddThingToThingGroup", thingName=thing, thingGroupName=group)
        await ask(control, "CreateSecurityProfile", securityProfileName="P", behaviors=[learned("a")])

        async def gathered(*targets: str) -> tuple[float, Any]:
            for target in targets:
                await ask(control, "AttachSecurityProfile", securityProfileName="P", securityProfileTargetArn=target)
            (row,) = (await ask(control, "GetBehaviorModelTrainingSummaries"))["summaries"]
            for target in targets:
                await ask(control, "DetachSecurityProfile", securityProfileName="P", securityProfileTargetArn=target)
            return round(row["datapointsCollectionPercentage"] * 250), row.get("trainingDataCollectionStartDate")

        began = START_S * NS // hour * hour
        assert await gathered() == (0, None)
        assert await gathered(f"{ARN}thinggroup/top") == (20, began)
        assert await gathered(f"{ARN}thinggroup/sub") == (10, began)
        assert await gathered(f"{ARN}all/registered-things") == (20, began)
        assert await gathered(f"{ARN}all/unregistered-things", f"{ARN}thinggroup/sub") == (20, began)
        assert await gathered(f"{ARN}all/things") == (30, began)
