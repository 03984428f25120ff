"""What is wrong with behaviors is a verdict in AWS's words, all of it at once: of what the service model bounds, too.

Every place below `behaviors` that the service model bounds is tried with a value beyond (spec.md §3.3, §5.4).
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_server import Serving, api
from botocore.exceptions import ClientError

from daemon.http.aws import model

PORTS: dict[str, Any] = {
    "name": "ports",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22]}},
}
BYTES: dict[str, Any] = {"name": "bytes", "metric": "aws:all-bytes-in"}
SENT: dict[str, Any] = {
    "name": "sent",
    "metric": "aws:num-messages-sent",
    "criteria": {"comparisonOperator": "less-than", "value": {"count": 9}, "durationSeconds": 300},
}


def judged(of: dict[str, Any], **criteria: Any) -> list[dict[str, Any]]:
    """A behavior with these members of criteria, alone."""
    return [of | {"criteria": of.get("criteria", {}) | criteria}]


IPS = PORTS | {"metric": "aws:destination-ip-addresses"}
BOUNDS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "": ([PORTS | {"name": f"b{at}"} for at in range(101)], "101 behaviors"),
    "name": ([PORTS | {"name": "a b"}], "name must be"),
    "metricDimension.dimensionName": ([SENT | {"metricDimension": {"dimensionName": "a b"}}], "dimension"),
    "metricDimension.operator": (
        [SENT | {"metricDimension": {"dimensionName": "d", "operator": "ON"}}],
        'unknown "ON"',
    ),
    "criteria.comparisonOperator": (judged(PORTS, comparisonOperator="is"), 'unknown "is"'),
    "criteria.value.count": (
        judged(BYTES, comparisonOperator="less-than", value={"count": -1}),
        "count should be in range[0,",
    ),
    "criteria.value.cidrs[]": (
        judged(IPS, comparisonOperator="in-cidr-set", value={"cidrs": ["hello"]}),
        "hello",
    ),
    "criteria.value.ports[]": (judged(PORTS, value={"ports": [70_000]}), "port 70000"),
    "criteria.consecutiveDatapointsToAlarm": (
        judged(PORTS, consecutiveDatapointsToAlarm=11),
        "Behavior ports is malformed. consecutiveDatapointsToAlarm 11 should be in range[1,10]",
    ),
    "criteria.consecutiveDatapointsToClear": (
        judged(PORTS, consecutiveDatapointsToClear=0),
        "Behavior ports is malformed. consecutiveDatapointsToClear 0 should be in range[1,10]",
    ),
    "criteria.statisticalThreshold.statistic": (
        judged(BYTES, comparisonOperator="less-than", statisticalThreshold={"statistic": "p5"}),
        "statistic should be one of",
    ),
    "criteria.mlDetectionConfig.confidenceLevel": (
        judged(BYTES, mlDetectionConfig={"confidenceLevel": "SURE"}),
        'unknown "SURE"',
    ),
}


def bounded(shape: Any, path: str) -> Iterator[str]:
    """Where the model bounds a value."""
    if {"min", "max", "pattern", "enum"} & shape.metadata.keys():
        yield path
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from bounded(member, f"{path}.{name}".lstrip("."))
    if shape.type_name == "list":
        yield from bounded(shape.member, f"{path}[]" if path else path)


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    async with api(tmp_path) as one:
        yield one


@pytest.mark.parametrize("place", BOUNDS)
async def test_a_value_beyond_a_bound_is_a_verdict_of_validate_and_a_refusal_of_create(
    serving: Serving, place: str
) -> None:
    behaviors, words = BOUNDS[place]
    answer = await serving.call("validate_security_profile_behaviors", behaviors=behaviors)
    assert answer["valid"] is False
    assert any(words in one["errorMessage"] for one in answer["validationErrors"]), answer
    with pytest.raises(ClientError) as refused:
        await serving.call("create_security_profile", securityProfileName="P", behaviors=behaviors)
    error = refused.value.response["Error"]
    assert (error["Code"], words in error["Message"]) == ("InvalidRequestException", True), error


async def test_one_fault_hides_no_other(serving: Serving) -> None:
    behaviors = [*BOUNDS["criteria.value.ports[]"][0], *BOUNDS["criteria.consecutiveDatapointsToAlarm"][0]]
    behaviors[1] = behaviors[1] | {"name": "other"}
    answer = await serving.call("validate_security_profile_behaviors", behaviors=behaviors)
    assert len(answer["validationErrors"]) == 2


async def test_what_is_no_behavior_at_all_is_malformed(serving: Serving) -> None:
    for behaviors in ([PORTS | {"name": 7}], [PORTS | {"criteria": {"value": {"count": 1.5}}}], [{}]):
        with pytest.raises(ClientError) as refused:
            await serving.call("validate_security_profile_behaviors", behaviors=behaviors)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_every_bound_of_behaviors_is_tried() -> None:
    assert set(bounded(model._service().shape_for("Behaviors"), "")) == set(BOUNDS)
