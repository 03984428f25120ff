"""Custom metrics through the API (spec.md §6.3, §10.3): handlers over a real store."""

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


async def create(control: TestedPlane, name: str, kind: str = "number", **more: Any) -> dict[str, Any]:
    return await ask(control, "CreateCustomMetric", metricName=name, metricType=kind, **more)


def below(metric: str, number: float = 75) -> dict[str, Any]:
    criteria = {"comparisonOperator": "less-than", "value": {"number": number}}
    return {"name": "low", "metric": metric, "criteria": criteria}


async def test_a_metric_is_created_described_and_listed(control: TestedPlane) -> None:
    answer = await create(control, "cpu", displayName="CPU in %")
    assert answer == {"metricName": "cpu", "metricArn": f"{ARN}custommetric/cpu"}
    assert await ask(control, "DescribeCustomMetric", metricName="cpu") == {
        "metricName": "cpu",
        "metricArn": f"{ARN}custommetric/cpu",
        "metricType": "number",
        "displayName": "CPU in %",
        "creationDate": START_NS,
        "lastModifiedDate": START_NS,
    }
    assert await ask(control, "ListCustomMetrics") == {"metricNames": ["cpu"]}


async def test_a_metric_without_a_display_name_shows_none(control: TestedPlane) -> None:
    await create(control, "cpu")
    assert "displayName" not in await ask(control, "DescribeCustomMetric", metricName="cpu")


@pytest.mark.parametrize("kind", ["string-list", "ip-address-list", "number-list", "number"])
async def test_every_type_can_be_made_and_is_kept_by_an_update(control: TestedPlane, kind: str) -> None:
    await create(control, "m", kind)
    control.clock.forward(5)
    answer = await ask(control, "UpdateCustomMetric", metricName="m", displayName="M")
    assert (answer["metricType"], answer["displayName"]) == (kind, "M")
    assert (answer["creationDate"], answer["lastModifiedDate"]) == (START_NS, START_NS + 5 * NS)
    assert await ask(control, "DescribeCustomMetric", metricName="m") == answer


async def test_aws_own_names_are_refused(control: TestedPlane) -> None:
    with refused("InvalidRequestException", "aws:"):
        await create(control, "aws:num-messages-sent")


@pytest.mark.parametrize("display", ["x" * 129, "two\nlines", "bell\a"])
async def test_what_is_no_display_name_is_refused(control: TestedPlane, display: str) -> None:
    with refused("InvalidRequestException", "displayName"):
        await create(control, "cpu", displayName=display)
    await create(control, "cpu", displayName="fine")
    with refused("InvalidRequestException", "displayName"):
        await ask(control, "UpdateCustomMetric", metricName="cpu", displayName=display)
    assert (await ask(control, "DescribeCustomMetric", metricName="cpu"))["displayName"] == "fine"


async def test_an_unknown_metric_is_not_found(control: TestedPlane) -> None:
    with refused("ResourceNotFoundException"):
        await ask(control, "DescribeCustomMetric", metricName="cpu")
    with refused("ResourceNotFoundException"):
        await ask(control, "UpdateCustomMetric", metricName="cpu", displayName="x")


async def test_vector_18_deleting_an_unknown_custom_metric_succeeds(control: TestedPlane) -> None:
    assert await ask(control, "DeleteCustomMetric", metricName="nobody") == {}


async def test_only_the_same_token_with_the_same_content_is_a_repeat(control: TestedPlane) -> None:
    first = await create(control, "cpu", clientRequestToken="t1")
    assert await create(control, "cpu", clientRequestToken="t1") == first
    for more in ({"clientRequestToken": "t2"}, {"clientRequestToken": "t1", "displayName": "other"}):
        with refused("ResourceAlreadyExistsException") as caught:
            await create(control, "cpu", **more)
        assert caught.value.members == {"resourceId": "cpu", "resourceArn": f"{ARN}custommetric/cpu"}
    with refused("ResourceAlreadyExistsException", "clientRequestToken"):
        await create(control, "load", clientRequestToken="t1")


async def test_a_dimension_may_be_made_with_a_metrics_token(control: TestedPlane) -> None:
    await create(control, "cpu", clientRequestToken="t1")
    asked = {"name": "Up", "type": "TOPIC_FILTER", "stringValues": ["a"], "clientRequestToken": "t1"}
    await ask(control, "CreateDimension", **asked)


async def test_the_hundred_and_first_metric_is_one_too_many(control: TestedPlane) -> None:
    await control.files(custom_metrics=[{"metricName": "filed", "metricType": "number"}])
    for at in range(99):
        await create(control, f"m{at}")
    with refused("LimitExceededException"):
        await create(control, "one-too-many")
    await ask(control, "DeleteCustomMetric", metricName="m5")
    await create(control, "fits")


async def test_a_metric_in_use_is_not_deleted_however_it_is_used(control: TestedPlane) -> None:
    await create(control, "cpu")
    uses: dict[str, dict[str, Any]] = {
        "Judged": {"behaviors": [below("cpu")]},
        "Kept": {"additionalMetricsToRetain": ["cpu"]},
        "KeptV2": {"additionalMetricsToRetainV2": [{"metric": "cpu"}]},
    }
    for name, use in uses.items():
        await ask(control, "CreateSecurityProfile", securityProfileName=name, **use)
        with refused("InvalidRequestException", name):
            await ask(control, "DeleteCustomMetric", metricName="cpu")
        await ask(control, "DeleteSecurityProfile", securityProfileName=name)
    await ask(control, "DeleteCustomMetric", metricName="cpu")
    with refused("ResourceNotFoundException"):
        await ask(control, "DescribeCustomMetric", metricName="cpu")


async def test_a_files_profile_keeps_the_apis_metric_from_being_deleted(control: TestedPlane) -> None:
    await create(control, "cpu")
    # No file can name a metric that only the API has, but a row may have come to be so by an older detectd.
    await ask(control, "CreateSecurityProfile", securityProfileName="P", behaviors=[below("cpu")])
    await control.write("UPDATE profiles SET file = '/etc/p.yaml'")
    with refused("InvalidRequestException", "in use by security profiles: P"):
        await ask(control, "DeleteCustomMetric", metricName="cpu")


async def test_many_users_are_not_all_named(control: TestedPlane) -> None:
    await create(control, "cpu")
    for at in range(30):
        await ask(control, "CreateSecurityProfile", securityProfileName=f"P{at:02}", behaviors=[below("cpu")])
    with refused("InvalidRequestException", "P19 and others"):
        await ask(control, "DeleteCustomMetric", metricName="cpu")


async def test_what_a_file_defines_is_read_only_and_the_error_names_the_file(control: TestedPlane) -> None:
    file = await control.files(custom_metrics=[{"metricName": "filed", "metricType": "number"}])
    for operation, more in (("UpdateCustomMetric", {"displayName": "x"}), ("DeleteCustomMetric", {})):
        with refused("InvalidRequestException", f"defined in {file}"):
            await ask(control, operation, metricName="filed", **more)


async def test_a_deleted_metric_takes_its_tags_along(control: TestedPlane) -> None:
    await create(control, "cpu", tags=[{"Key": "a", "Value": "b"}])
    await ask(control, "DeleteCustomMetric", metricName="cpu")
    assert await control.rows("SELECT * FROM tags") == []


async def test_pages_go_by_name(control: TestedPlane) -> None:
    for name in ("b", "a", "C", "d:1"):
        await create(control, name)
    assert await pages(control, "ListCustomMetrics", "metricNames", maxResults=2) == [["C", "a"], ["b", "d:1"]]
    assert await pages(control, "ListCustomMetrics", "metricNames", maxResults=4) == [["C", "a", "b", "d:1"]]
