"""AWS IoT's API as clients meet it: boto3 unmodified, and requests that no client would make."""
# ruff: noqa: E501 - tables of requests read better as lines

import io
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aws_server import Serving, api
from botocore import xform_name
from botocore.exceptions import ClientError
from control_runner import ARN, START_NS
from transitions import raised, violation_id
from yarl import URL

from config.model import NS
from daemon.control import plane
from daemon.control.plane import Call
from daemon.http import guards
from daemon.http.aws import endpoint, model
from daemon.http.aws.operations import handlers
from daemon.http.aws.paging import token_of

PORTS = {
    "name": "ports",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
}


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    async with api(tmp_path) as serving:
        yield serving


async def raw(
    serving: Serving, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, str | None, Any]:
    """(status, x-amzn-ErrorType, the body's JSON) of a request as it stands."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            URL(f"{serving.url}{path}", encoded=True),
            data=io.BytesIO(body),
            headers=headers,
            skip_auto_headers={"Accept"},
        ) as answer,
    ):
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, answer.headers.get("x-amzn-ErrorType"), json.loads(await answer.read())


# ---- boto3 ----


async def test_a_profile_goes_round_through_boto3(serving: Serving) -> None:
    name, target = "a:b_c-1", f"{ARN}all/things"
    made = await serving.call("create_security_profile", securityProfileName=name, behaviors=[PORTS])
    assert made == {"securityProfileName": name, "securityProfileArn": f"{ARN}securityprofile/{name}"}
    await serving.call("attach_security_profile", securityProfileName=name, securityProfileTargetArn=target)
    found = await serving.call("list_security_profiles_for_target", securityProfileTargetArn=target, recursive=True)
    assert [each["securityProfileIdentifier"]["name"] for each in found["securityProfileTargetMappings"]] == [name]
    described = await serving.call("describe_security_profile", securityProfileName=name)
    assert described["behaviors"] == [PORTS]
    assert described["creationDate"] == datetime.fromtimestamp(START_NS / NS, UTC)
    await serving.call("delete_security_profile", securityProfileName=name, expectedVersion=1)


async def test_an_error_is_the_models_exception_with_its_members(serving: Serving) -> None:
    await serving.call("create_thing", thingName="t")
    with pytest.raises(serving.client.exceptions.ResourceAlreadyExistsException) as caught:
        await serving.call("create_thing", thingName="t", attributePayload={"attributes": {"a": "1"}})
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert (answer["resourceId"], answer["resourceArn"]) == ("t", f"{ARN}thing/t")
    assert "there is a thing t already" in str(caught.value)


async def test_instants_travel_both_ways(serving: Serving) -> None:
    await serving.control.store.commit([raised("t1")])
    at = START_NS // NS
    found = await serving.call(
        "list_violation_events", startTime=datetime.fromtimestamp(at - 1, UTC), endTime=at + 1, thingName="t1"
    )
    (event,) = found["violationEvents"]
    assert event["violationEventTime"] == datetime.fromtimestamp(at, UTC)
    for start, count in ((f"{at}", 1), (f"{at + 1}.5", 0), ("2025-01-01", 1)):
        _, _, answer = await raw(serving, "GET", f"/violation-events?startTime={start}&endTime={at + 9}")
        assert len(answer["violationEvents"]) == count
        assert all(each["violationEventTime"] == float(at) for each in answer["violationEvents"])


async def test_alarms_are_listed_verified_and_listed_by_their_verification(serving: Serving) -> None:
    await serving.control.store.commit([raised("t1"), raised("t2")])
    name = violation_id("t1")
    await serving.call(
        "put_verification_state_on_violation",
        violationId=name, verificationState="FALSE_POSITIVE", verificationStateDescription="a drill",
    )  # fmt: skip
    found = await serving.call("list_active_violations", verificationState="FALSE_POSITIVE")
    (violation,) = found["activeViolations"]
    assert (violation["violationId"], violation["verificationStateDescription"]) == (name, "a drill")
    assert violation["behavior"]["criteria"]["value"] == {"count": 40}
    await serving.call("put_verification_state_on_violation", violationId=name, verificationState="UNKNOWN")
    (violation,) = (await serving.call("list_active_violations", thingName="t1"))["activeViolations"]
    assert "verificationStateDescription" not in violation
    with pytest.raises(ClientError, match="there is no violation nothing"):
        await serving.call("put_verification_state_on_violation", violationId="nothing", verificationState="UNKNOWN")


async def test_pages_follow_one_another_through_boto3s_paginator(serving: Serving) -> None:
    await serving.control.store.commit([raised(f"t{n}", time_ns=START_NS + n * NS) for n in range(7)])
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = await serving.call("list_violation_events", startTime=0, endTime=2e9, maxResults=3, **token)
        seen += [event["thingName"] for event in page["violationEvents"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert seen == ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]


async def test_a_list_of_an_unknown_profiles_alarms_is_an_error_and_of_its_events_is_empty(serving: Serving) -> None:
    with pytest.raises(serving.client.exceptions.ResourceNotFoundException):
        await serving.call("list_active_violations", securityProfileName="nobody")
    found = await serving.call("list_violation_events", startTime=0, endTime=1, securityProfileName="nobody")
    assert found == {"violationEvents": []}


async def test_what_the_api_changes_is_in_the_trail_with_who_asked(serving: Serving) -> None:
    await serving.call("create_thing", thingName="t")
    ((who, address, action, resource, detail),) = await serving.control.rows(
        "SELECT who, address, action, resource, detail FROM audit"
    )
    assert (who, address, action, resource) == ("local", "127.0.0.1", "CreateThing", "thing/t")
    assert json.loads(detail) == {"thingName": "t"}


# ---- what is not as it should be ----


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "/things/t", b"{", "the body is not JSON"),
        ("POST", "/things/t", b"[1]", "not a JSON object"),
        ("POST", "/things/t", b'{"nothing": 1}', "nothing: is not a member"),
        ("POST", "/things/t", b'{"thingTypeName": 7}', "thingTypeName: must be a string"),
        ("POST", "/things/t", b'{"thingTypeName": ""}', "thingTypeName: must have at least 1"),
        ("POST", "/things/a%20b", b"", "thingName: must match"),
        ("POST", "/things/" + "x" * 129, b"", "thingName: must have at most 128"),
        ("POST", "/things/%FF", b"", "thingName: is not UTF-8"),
        ("POST", "/things/t", b'{"attributePayload": {"attributes": {"a": "\xc3\xbc"}}}', "attributes.a: must match"),
        ("POST", "/things/t", b'{"attributePayload": {"merge": "yes"}}', "merge: must be true or false"),
        ("GET", "/things?maxResults=0", b"", "maxResults: must be from 1 to 250"),
        ("GET", "/things?maxResults=9999999999999999999999", b"", "maxResults: must be a whole number"),
        ("GET", "/things?maxResults=1&maxResults=2", b"", "maxResults: is given more than once"),
        ("GET", "/things?usePrefixAttributeValue=maybe", b"", "must be true or false"),
        ("GET", "/things?nothing=1", b"", "nothing: is not a query parameter"),
        ("GET", "/things?nextToken=%22", b"", "nextToken is not one that"),
        *(
            ("GET", f"/{path}nextToken={token_of(place)}", b"", "nextToken is not one that")
            for path, place in (
                ("things?", 2**63), ("thing-types?", -(2**63) - 1), ("active-violations?", [2**64 - 1, "a"]),
                ("violation-events?startTime=0&endTime=1&", [1, 2**64 - 1]),
            )
        ),
        ("GET", "/violation-events", b"", "endTime: is required"),
        ("GET", "/violation-events?startTime=x&endTime=1", b"", "startTime: must be an instant"),
        ("GET", "/violation-events?startTime=nan&endTime=1", b"", "startTime: must be an instant"),
        ("GET", "/violation-events?startTime=2&endTime=1", b"", "startTime is after endTime"),
        ("GET", "/violation-events?startTime=0&endTime=1&verificationState=MAYBE", b"", "must be one of FALSE_POSITIVE"),
        ("POST", "/dimensions/d", b'{"type": "TOPIC_FILTER", "stringValues": ["a"]}', "clientRequestToken: is required"),
        ("POST", "/dimensions/d", b'{"stringValues": []}', "stringValues: must have at least 1"),
        ("PUT", "/jobs/j", b"", "is not implemented by detectd"),  # said first, whatever the body
    ],
)  # fmt: skip
async def test_a_bad_request_is_told_where_and_why(
    serving: Serving, method: str, path: str, body: bytes, words: str
) -> None:
    status, code, answer = await raw(serving, method, path, body)
    assert (status, code) == (400, "InvalidRequestException"), answer
    assert words in answer["message"]
    assert len(answer["message"]) < 500


@pytest.mark.parametrize("until", ["2262-04-12T00:00:00Z", "9999-12-31T23:59:59Z", "253402300799"])
async def test_events_until_for_ever_are_all_there_are(serving: Serving, until: str) -> None:
    for since in ("0", until):
        status, _, answer = await raw(serving, "GET", f"/violation-events?startTime={since}&endTime={until}", b"")
        assert (status, answer) == (200, {"violationEvents": []})


async def test_an_event_is_found_at_the_time_that_it_is_listed_with(serving: Serving) -> None:
    await serving.control.store.commit([raised("t1", time_ns=START_NS + 1_999_999)])
    path = "/violation-events?startTime={}&endTime={}"
    _, _, answer = await raw(serving, "GET", path.format(0, 2 * START_NS // NS))
    [event] = answer["violationEvents"]
    time = event["violationEventTime"]
    assert (await raw(serving, "GET", path.format(time, time)))[2] == answer
    assert (await raw(serving, "GET", path.format(0, time - 0.001)))[2] == {"violationEvents": []}


async def test_null_is_absent(serving: Serving) -> None:
    status, _, answer = await raw(serving, "POST", "/things/t", b'{"attributePayload": null, "thingTypeName": null}')
    assert status == 200, answer


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("PATCH", "/things"), ("PUT", "/"), ("GET", "//")])
async def test_what_aws_iot_has_no_operation_for_is_said_in_json(serving: Serving, method: str, path: str) -> None:
    assert (await raw(serving, method, path))[:2] == (404, "UnknownOperationException")


async def test_a_body_beyond_the_bound_is_refused(serving: Serving) -> None:
    status, code, answer = await raw(serving, "POST", "/things/t", b" " * (guards.BODY_BYTES_MAX + 1))
    assert (status, code) == (400, "InvalidRequestException")
    assert "longer than 1048576 bytes" in answer["message"]


async def test_a_body_that_cannot_be_unpacked_is_the_clients_fault(serving: Serving) -> None:
    packed = {"Content-Encoding": "gzip"}
    status, code, answer = await raw(serving, "POST", "/things/t", b"\x1f\x8bno such thing", packed)
    assert (status, code) == (400, "InvalidRequestException"), answer
    assert "can't be read" in answer["message"]


async def test_deeply_nested_json_is_refused(serving: Serving) -> None:
    status, code, _ = await raw(serving, "POST", "/things/t", b'{"attributePayload":' + b"[" * 100_000)
    assert (status, code) == (400, "InvalidRequestException")


async def test_a_bug_shows_nothing_of_itself(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(call: Call) -> dict[str, Any]:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(endpoint, "handler_of", lambda _: broken)
    status, code, answer = await raw(serving, "GET", "/things")
    assert (status, code) == (500, "InternalFailureException")
    assert "secret" not in json.dumps(answer)


async def test_an_answer_that_the_model_does_not_know_is_a_bug(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(call: Call) -> dict[str, Any]:
        return {"thingz": []}

    monkeypatch.setattr(endpoint, "handler_of", lambda _: wrong)
    assert (await raw(serving, "GET", "/things"))[0] == 500


async def test_a_store_that_takes_nothing_is_said_after_a_while(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "CHANGE_S", 0.0)
    status, code, _ = await raw(serving, "POST", "/things/t")
    assert (status, code) == (503, "ServiceUnavailableException")


async def test_a_line_break_in_a_path_is_part_of_a_name(serving: Serving) -> None:
    status, code, _ = await raw(serving, "GET", "/things/a%0a")
    assert (status, code) == (400, "InvalidRequestException")


async def test_a_token_goes_on_with_its_own_list_and_with_no_other(serving: Serving) -> None:
    for name in ("a", "b"):
        await serving.call("create_thing", thingName=name)
        await serving.call("create_thing_type", thingTypeName=name)
    token = (await serving.call("list_things", maxResults=1))["nextToken"]
    assert [one["thingName"] for one in (await serving.call("list_things", nextToken=token))["things"]] == ["b"]
    with pytest.raises(ClientError) as refused:
        await serving.call("list_thing_types", nextToken=token)
    assert refused.value.response["Error"]["Code"] == "InvalidRequestException"


async def test_requests_are_counted_by_operation_and_outcome(serving: Serving) -> None:
    await raw(serving, "GET", "/things")
    await raw(serving, "GET", "/things?maxResults=x")
    await raw(serving, "GET", "/made-up-by-a-client")
    assert set(serving.meter.calls) == {
        ("ListThings", "ok"),
        ("ListThings", "InvalidRequestException"),
        ("unknown", "UnknownOperationException"),
    }


def test_every_handler_is_an_operation_of_the_model() -> None:
    assert handlers().keys() <= {xform_name(name) for name in model.load()}


def test_every_operation_of_the_specification_has_a_handler() -> None:
    """spec.md §10.2, §10.3, §10.4 without models, §10.6, §10.7 without what is optional."""
    wanted = """
        CreateSecurityProfile UpdateSecurityProfile DescribeSecurityProfile DeleteSecurityProfile ListSecurityProfiles
        AttachSecurityProfile DetachSecurityProfile ListTargetsForSecurityProfile ListSecurityProfilesForTarget
        ValidateSecurityProfileBehaviors CreateDimension UpdateDimension DescribeDimension DeleteDimension ListDimensions
        CreateCustomMetric UpdateCustomMetric DescribeCustomMetric DeleteCustomMetric ListCustomMetrics
        ListActiveViolations ListViolationEvents PutVerificationStateOnViolation
        TagResource UntagResource ListTagsForResource
        CreateThing DescribeThing UpdateThing DeleteThing ListThings CreateThingGroup DescribeThingGroup UpdateThingGroup
        DeleteThingGroup ListThingGroups AddThingToThingGroup RemoveThingFromThingGroup UpdateThingGroupsForThing
        ListThingsInThingGroup ListThingGroupsForThing DescribeEndpoint
        CreateThingType DescribeThingType ListThingTypes DeleteThingType
        CreateBillingGroup DescribeBillingGroup ListBillingGroups DeleteBillingGroup
    """.split()
    assert [name for name in wanted if endpoint.handler_of(name) is None] == []


@pytest.mark.parametrize(
    ("operation", "role"),
    [
        ("DescribeThing", "read"),
        ("ListThings", "read"),
        ("GetBehaviorModelTrainingSummaries", "read"),
        ("ValidateSecurityProfileBehaviors", "read"),
        ("PutVerificationStateOnViolation", "operate"),
        ("CreateThing", "admin"),
        ("TagResource", "admin"),
    ],
)
def test_the_role_that_an_operation_needs(operation: str, role: str) -> None:
    assert endpoint.need_of(operation) == role
