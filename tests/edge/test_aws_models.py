"""What is said of learned behaviors while nothing is learned: pending, with the share of the data that is there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_runner import TestedPlane, ask, pages, plane, refused


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
