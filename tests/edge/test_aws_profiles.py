"""Security profiles through the API (spec.md §5.4, §10.2): handlers over a real store."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from control_runner import ARN, START_NS, TestedPlane, ask, pages, plane, refused

from config.model import NS
from config.problem import Finding
from daemon.control import profiles
from daemon.control.announce import Announcer
from daemon.control.checked import PROBLEMS_MAX, errors
from daemon.control.rules import api_rules

P = {"securityProfileName": "P"}
SNS = {
    "alertTargetArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
    "roleArn": "arn:aws:iam::123456789012:role/alerts",
}
EXPORT = {"mqttTopic": "fleet/metrics", "roleArn": "arn:aws:iam::123456789012:role/export"}
PORTS = {
    "name": "ports",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
    "suppressAlerts": False,
}
SENT = {
    "name": "sent",
    "metric": "aws:num-messages-sent",
    "criteria": {"comparisonOperator": "less-than-equals", "value": {"count": 40}, "durationSeconds": 300},
}
FULL: dict[str, Any] = {
    "securityProfileDescription": "Meters in the field",
    "behaviors": [PORTS, SENT],
    "alertTargets": {"SNS": SNS},
    "additionalMetricsToRetain": ["aws:num-disconnects"],
    "additionalMetricsToRetainV2": [{"metric": "aws:num-connection-attempts", "exportMetric": True}],
    "metricsExportConfig": EXPORT,
}
READ_ONLY = ("securityProfileName", "securityProfileArn", "version", "creationDate", "lastModifiedDate")


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[TestedPlane]:
    async with plane(tmp_path) as control:
        yield control


async def create(control: TestedPlane, name: str = "P", **more: Any) -> dict[str, Any]:
    return await ask(control, "CreateSecurityProfile", securityProfileName=name, **more)


async def update(control: TestedPlane, **changes: Any) -> dict[str, Any]:
    return await ask(control, "UpdateSecurityProfile", **P, **changes)


async def describe(control: TestedPlane, name: str = "P") -> dict[str, Any]:
    return await ask(control, "DescribeSecurityProfile", securityProfileName=name)


async def content(control: TestedPlane) -> dict[str, Any]:
    """What the profile says, without its dates and version."""
    return {member: value for member, value in (await describe(control)).items() if member not in READ_ONLY}


async def listed(control: TestedPlane, **by: str) -> list[str]:
    answer = await ask(control, "ListSecurityProfiles", **by)
    return [each["name"] for each in answer["securityProfileIdentifiers"]]


def judged(metric: str, name: str = "b", **value: Any) -> dict[str, Any]:
    criteria = {"comparisonOperator": "less-than", "value": value or {"number": 75}}
    return {"name": name, "metric": metric, "criteria": criteria}


# ---- create ----


async def test_a_profile_comes_back_as_it_was_created(control: TestedPlane) -> None:
    arn = f"{ARN}securityprofile/P"
    assert await create(control, **FULL) == {"securityProfileName": "P", "securityProfileArn": arn}
    assert await describe(control) == {
        **FULL,
        "securityProfileName": "P",
        "securityProfileArn": arn,
        "version": 1,
        "creationDate": START_NS,
        "lastModifiedDate": START_NS,
    }


async def test_a_profile_needs_no_more_than_a_name(control: TestedPlane) -> None:
    await create(control)
    assert await content(control) == {"behaviors": []}


async def test_the_same_request_again_is_the_same_profile(control: TestedPlane) -> None:
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b"}]
    first = await create(control, **FULL, tags=tags)
    control.clock.forward(9)
    assert await create(control, **FULL, tags=tags[::-1]) == first
    assert (await describe(control))["lastModifiedDate"] == START_NS


@pytest.mark.parametrize(
    "other",
    [
        {"behaviors": [SENT]},
        {"behaviors": [SENT, PORTS]},
        {"securityProfileDescription": "another"},
        {"tags": [{"Key": "a", "Value": "2"}]},
    ],
)
async def test_another_profile_of_the_same_name_is_refused(control: TestedPlane, other: dict[str, Any]) -> None:
    await create(control, **FULL)
    with refused("ResourceAlreadyExistsException") as caught:
        await create(control, **FULL | other)
    assert caught.value.members == {"resourceId": "P", "resourceArn": f"{ARN}securityprofile/P"}
    assert await content(control) == FULL


async def test_two_at_once_that_differ_are_one_profile_and_one_refusal(control: TestedPlane) -> None:
    asked = [create(control, behaviors=[each]) for each in (PORTS, SENT)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["ResourceAlreadyExistsException", "dict"]


async def test_there_is_a_bound_on_profiles(control: TestedPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "PROFILES_MAX", 2)
    await create(control, "A")
    await create(control, "B")
    with refused("InvalidRequestException", "as many as there may be"):
        await create(control, "C")


# ---- what is valid ----

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no metric": ({"name": "b"}, "metric is required"),
    "no criteria (#28)": ({"name": "b", "metric": "aws:num-messages-sent"}, "criteria is required"),
    "unknown metric": (judged("aws:num-mesages-sent", count=1), "does not exist"),
    "undefined custom metric": (judged("nobody"), "is not defined"),
    "count for a number (#21)": (judged("cpu", count=75), "is given as number"),
    "statistic Average (#17)": (
        {
            "name": "b",
            "metric": "aws:num-messages-sent",
            "criteria": {
                "comparisonOperator": "less-than",
                "statisticalThreshold": {"statistic": "Average"},
                "durationSeconds": 300,
            },
        },
        "statistic should be one of",
    ),
    "a threshold without its statistic": (
        {
            "name": "b",
            "metric": "aws:num-messages-sent",
            "criteria": {"comparisonOperator": "less-than", "statisticalThreshold": {}, "durationSeconds": 300},
        },
        '"statistic" is missing',
    ),
    "no duration (#6)": (judged("aws:num-messages-sent", count=1), "durationSeconds is required"),
    "unknown dimension": (SENT | {"metricDimension": {"dimensionName": "Nope"}}, 'dimension "Nope" is not defined'),
    "dimension on a custom metric": (judged("cpu") | {"metricDimension": {"dimensionName": "Up"}}, "can't have a"),
    "a name with a space (#29)": (SENT | {"name": "too many"}, "name must be"),
    "a port too high": (
        PORTS | {"criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [70000]}}},
        "port 70000",
    ),
}


@pytest.mark.parametrize(("behavior", "words"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_said_by_create_update_and_validate_alike(
    control: TestedPlane, behavior: dict[str, Any], words: str
) -> None:
    await ask(control, "CreateCustomMetric", metricName="cpu", metricType="number")
    await ask(control, "CreateDimension", name="Up", type="TOPIC_FILTER", stringValues=["a"])
    await create(control, behaviors=[PORTS])
    with refused("InvalidRequestException", words):
        await create(control, "Q", behaviors=[behavior])
    with refused("InvalidRequestException", words):
        await update(control, behaviors=[behavior])
    answer = await ask(control, "ValidateSecurityProfileBehaviors", behaviors=[behavior])
    assert answer["valid"] is False
    assert any(words in each["errorMessage"] for each in answer["validationErrors"])
    assert await listed(control) == ["P"]
    assert await content(control) == {"behaviors": [PORTS]}


async def test_every_problem_is_named_at_once(control: TestedPlane) -> None:
    wrong = [judged("nobody", "first"), PORTS, PORTS]
    with refused("InvalidRequestException") as caught:
        await create(control, behaviors=wrong, additionalMetricsToRetain=["nothing"])
    assert len(caught.value.message.split("\n")) == 3
    answer = await ask(control, "ValidateSecurityProfileBehaviors", behaviors=wrong)
    messages = [each["errorMessage"] for each in answer["validationErrors"]]
    assert [message.split(". ")[0] for message in messages] == [
        "Behavior first is malformed",
        "Behavior ports is malformed",
    ]


async def test_valid_behaviors_are_valid_and_make_nothing(control: TestedPlane) -> None:
    answer = await ask(control, "ValidateSecurityProfileBehaviors", behaviors=[PORTS, SENT])
    assert answer == {"valid": True, "validationErrors": []}
    assert await listed(control) == []
    assert control.changes == 0


async def test_a_warning_makes_nothing_invalid(control: TestedPlane) -> None:
    learned = {
        "name": "ml",
        "metric": "aws:num-messages-sent",
        "criteria": {"mlDetectionConfig": {"confidenceLevel": "LOW"}},
    }
    answer = await ask(control, "ValidateSecurityProfileBehaviors", behaviors=[learned])
    assert answer["valid"] is True
    await create(control, behaviors=[learned])


async def test_metrics_and_dimensions_of_files_can_be_referred_to(control: TestedPlane) -> None:
    await control.files(
        custom_metrics=[{"metricName": "filed", "metricType": "number"}],
        dimensions=[{"name": "Filed", "stringValues": ["a"]}],
    )
    await create(control, behaviors=[judged("filed"), SENT | {"metricDimension": {"dimensionName": "Filed"}}])


async def test_which_durations_there_are_is_the_configurations_to_say(control: TestedPlane) -> None:
    quick = {**SENT, "criteria": {**SENT["criteria"], "durationSeconds": 7}}  # type: ignore[dict-item]
    with refused("InvalidRequestException", "durationSeconds 7"):
        await create(control, behaviors=[quick])
    await control.files(limits={"durations": "any"})
    await create(control, behaviors=[quick])


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"behaviors": [SENT | {"name": f"b{at}"} for at in range(101)]}, "101 behaviors"),
        ({"alertTargets": {"EMAIL": SNS}}, "the only kind of alert target is SNS"),
        ({"alertTargets": {"SNS": SNS | {"roleArn": "x" * 2049}}}, "roleArn has 20 to 2048"),
        ({"metricsExportConfig": EXPORT | {"mqttTopic": "a/#"}}, "no wildcards"),
        ({"securityProfileDescription": "x" * 1001}, "at most 1000 characters"),
        ({"additionalMetricsToRetainV2": [{"metric": "aws:nothing"}]}, "does not exist"),
    ],
)
async def test_what_else_a_profile_must_be(control: TestedPlane, member: dict[str, Any], words: str) -> None:
    with refused("InvalidRequestException", words):
        await create(control, **member)
    await create(control)
    with refused("InvalidRequestException", words):
        await update(control, **member)


async def test_a_thousand_value_elements_are_the_most(control: TestedPlane) -> None:
    def ports(name: str, count: int) -> dict[str, Any]:
        value = {"ports": list(range(count))}
        return PORTS | {"name": name, "criteria": {"comparisonOperator": "in-port-set", "value": value}}

    with refused("InvalidRequestException", "1001 cidrs, ports"):
        await create(control, behaviors=[ports("a", 500), ports("b", 501)])
    answer = await ask(control, "ValidateSecurityProfileBehaviors", behaviors=[ports("a", 1001)])
    assert ["1001 cidrs" in each["errorMessage"] for each in answer["validationErrors"]] == [True]
    await create(control, behaviors=[ports("a", 500), ports("b", 500)])


async def test_a_request_that_is_wrong_everywhere_gets_a_bounded_answer(control: TestedPlane) -> None:
    unknown = [f"aws:unknown-{at}" for at in range(20_000)]
    with refused("InvalidRequestException", "there is more that is wrong") as caught:
        await create(control, additionalMetricsToRetain=unknown)
    assert len(caught.value.message) < 20_000
    wrong = [judged("x" * 9_000, f"b{at}") for at in range(100)]
    wrong[0] = judged("y", "b1")
    answer = await ask(control, "ValidateSecurityProfileBehaviors", behaviors=wrong)
    assert len(answer["validationErrors"]) == 101
    assert max(len(each["errorMessage"]) for each in answer["validationErrors"]) <= 2048


async def test_beyond_a_quota_nothing_further_is_looked_at(control: TestedPlane) -> None:
    value = {"ports": [70_000] * 1001}
    many = PORTS | {"criteria": {"comparisonOperator": "in-port-set", "value": value}}
    with refused("InvalidRequestException") as caught:
        await create(control, behaviors=[many])
    assert "70000" not in caught.value.message


def test_no_more_problems_are_looked_for_than_are_said() -> None:
    looked_for: list[int] = []

    def endless() -> Iterator[Finding]:
        for at in count():
            looked_for.append(at)
            yield Finding((at,), "wrong")

    assert len(errors(endless())) == PROBLEMS_MAX + 1
    assert len(looked_for) == PROBLEMS_MAX + 1


# ---- update ----


async def test_an_update_counts_the_version_and_answers_with_the_whole_profile(control: TestedPlane) -> None:
    await create(control, **FULL)
    control.clock.forward(5)
    answer = await update(control, behaviors=[SENT])
    assert answer == {**FULL, **await describe(control), "behaviors": [SENT]}
    assert (answer["version"], answer["creationDate"], answer["lastModifiedDate"]) == (2, START_NS, START_NS + 5 * NS)


async def test_an_update_that_changes_nothing_counts_all_the_same(control: TestedPlane) -> None:
    await create(control, **FULL)
    assert (await update(control))["version"] == 2
    assert (await update(control, behaviors=FULL["behaviors"]))["version"] == 3
    assert await content(control) == FULL


async def test_an_update_that_is_refused_does_not_count(control: TestedPlane) -> None:
    await create(control, **FULL)
    with refused("InvalidRequestException"):
        await update(control, behaviors=[judged("nobody")])
    assert (await describe(control))["version"] == 1


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"deleteBehaviors": True}, ["behaviors"]),
        ({"deleteAlertTargets": True}, ["alertTargets"]),
        (
            {"deleteAdditionalMetricsToRetain": True},
            ["additionalMetricsToRetain", "additionalMetricsToRetainV2"],
        ),
        ({"deleteMetricsExportConfig": True}, ["metricsExportConfig"]),
        ({"deleteBehaviors": True, "deleteAlertTargets": True}, ["behaviors", "alertTargets"]),
    ],
)
async def test_a_flag_clears_what_it_names_and_nothing_else(
    control: TestedPlane, changes: dict[str, bool], gone: list[str]
) -> None:
    await create(control, **FULL)
    await update(control, **changes)
    left = {member: value for member, value in FULL.items() if member not in gone}
    assert await content(control) == {"behaviors": [], **left}


async def test_an_empty_collection_and_a_flag_that_is_off_clear_nothing(control: TestedPlane) -> None:
    await create(control, **FULL)
    empty: dict[str, Any] = {
        "behaviors": [],
        "alertTargets": {},
        "additionalMetricsToRetain": [],
        "additionalMetricsToRetainV2": [],
    }
    await update(control, **empty)
    await update(control, deleteBehaviors=False, deleteAlertTargets=False, deleteMetricsExportConfig=False)
    await update(control, behaviors=[PORTS, SENT], deleteBehaviors=False)
    assert await content(control) == FULL


async def test_a_description_can_be_emptied(control: TestedPlane) -> None:
    await create(control, **FULL)
    assert (await update(control, securityProfileDescription=""))["securityProfileDescription"] == ""


async def test_vector_20_behaviors_and_the_flag_that_deletes_them_are_refused(control: TestedPlane) -> None:
    await create(control, **FULL)
    with refused("InvalidRequestException", "deleteBehaviors"):
        await update(control, behaviors=[SENT], deleteBehaviors=True)
    assert (await describe(control))["version"] == 1


@pytest.mark.parametrize(
    ("member", "flag"),
    [
        ("behaviors", "deleteBehaviors"),
        ("alertTargets", "deleteAlertTargets"),
        ("additionalMetricsToRetain", "deleteAdditionalMetricsToRetain"),
        ("additionalMetricsToRetainV2", "deleteAdditionalMetricsToRetain"),
        ("metricsExportConfig", "deleteMetricsExportConfig"),
    ],
)
async def test_every_member_and_its_flag_exclude_each_other(control: TestedPlane, member: str, flag: str) -> None:
    await create(control, **FULL)
    with refused("InvalidRequestException", f"{member} or {flag}"):
        await update(control, **{member: FULL[member], flag: True})
    assert await content(control) == FULL


async def test_vector_19_another_version_than_the_expected_one_is_a_conflict(control: TestedPlane) -> None:
    await create(control)
    await update(control, expectedVersion=1)
    with refused("VersionConflictException", "has version 2, not 1"):
        await update(control, expectedVersion=1, behaviors=[SENT])
    with refused("VersionConflictException"):
        await ask(control, "DeleteSecurityProfile", **P, expectedVersion=1)
    with refused("VersionConflictException"):
        await update(control, expectedVersion=0)
    assert (await update(control, expectedVersion=2))["version"] == 3
    await ask(control, "DeleteSecurityProfile", **P, expectedVersion=3)
    assert await listed(control) == []


async def test_of_many_updates_that_expect_one_version_a_single_one_succeeds(control: TestedPlane) -> None:
    await create(control)
    asked = [update(control, expectedVersion=1, securityProfileDescription=str(at)) for at in range(20)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == [*["VersionConflictException"] * 19, "dict"]
    assert (await describe(control))["version"] == 2


async def test_a_clock_that_steps_back_does_not_move_the_last_change_back(control: TestedPlane) -> None:
    await create(control)
    control.clock.forward(-60)
    assert (await update(control))["lastModifiedDate"] == START_NS


async def test_what_is_not_there_is_not_found(control: TestedPlane) -> None:
    with refused("ResourceNotFoundException", "security profile P"):
        await describe(control)
    with refused("ResourceNotFoundException", "security profile P"):
        await update(control)


# ---- delete ----


async def test_vector_18_deleting_an_unknown_profile_succeeds(control: TestedPlane) -> None:
    assert await ask(control, "DeleteSecurityProfile", **P) == {}
    assert await ask(control, "DeleteSecurityProfile", **P, expectedVersion=7) == {}


async def test_a_deleted_profile_takes_its_attachments_and_tags_along(control: TestedPlane) -> None:
    await create(control, tags=[{"Key": "a", "Value": "b"}])
    await create(control, "Q", tags=[{"Key": "a", "Value": "b"}])
    for name in "PQ":
        target = {"securityProfileName": name, "securityProfileTargetArn": f"{ARN}all/things"}
        await ask(control, "AttachSecurityProfile", **target)
    await ask(control, "DeleteSecurityProfile", **P)
    assert await listed(control) == ["Q"]
    assert await control.rows("SELECT profile FROM targets") == [("Q",)]
    assert await control.rows("SELECT resource FROM tags") == [("securityprofile/Q",)]
    await create(control)
    assert (await describe(control))["version"] == 1


# ---- files ----


async def test_what_a_file_defines_is_shown_and_read_only(control: TestedPlane) -> None:
    file = await control.files(profiles=[P | FULL | {"targets": ["all/things"]}])
    assert await content(control) == FULL
    for operation in ("UpdateSecurityProfile", "DeleteSecurityProfile"):
        with refused("InvalidRequestException", f"security profile P is defined in {file}"):
            await ask(control, operation, **P)
    with refused("ResourceAlreadyExistsException", f"defined in {file}"):
        await create(control, behaviors=[SENT])
    assert await create(control, **FULL) == {
        "securityProfileName": "P",
        "securityProfileArn": f"{ARN}securityprofile/P",
    }
    assert await control.rows("SELECT version, file FROM profiles") == [(1, file)]


# ---- lists ----


async def test_profiles_are_listed_by_name_in_pages_that_writes_do_not_move(control: TestedPlane) -> None:
    for name in ("b", "D", "a", "C"):
        await create(control, name)
    first = await ask(control, "ListSecurityProfiles", maxResults=2)
    assert first["securityProfileIdentifiers"] == [
        {"name": name, "arn": f"{ARN}securityprofile/{name}"} for name in ("C", "D")
    ]
    await create(control, "A")
    await ask(control, "DeleteSecurityProfile", securityProfileName="D")
    found = await pages(control, "ListSecurityProfiles", "securityProfileIdentifiers", maxResults=2)
    assert [[each["name"] for each in page] for page in found] == [["A", "C"], ["a", "b"]]
    rest = await ask(control, "ListSecurityProfiles", nextToken=first["nextToken"])
    assert [each["name"] for each in rest["securityProfileIdentifiers"]] == ["a", "b"]


async def test_profiles_are_listed_by_what_they_use(control: TestedPlane) -> None:
    await ask(control, "CreateCustomMetric", metricName="cpu", metricType="number")
    await ask(control, "CreateDimension", name="Up", type="TOPIC_FILTER", stringValues=["a"])
    dimension = {"dimensionName": "Up"}
    await create(control, "A", behaviors=[judged("cpu")])
    await create(control, "B", additionalMetricsToRetain=["cpu"], behaviors=[SENT])
    await create(control, "C", additionalMetricsToRetainV2=[{"metric": "cpu"}])
    await create(control, "D", behaviors=[SENT | {"metricDimension": dimension}])
    kept = [{"metric": "aws:num-messages-sent", "metricDimension": dimension}]
    await create(control, "E", additionalMetricsToRetainV2=kept)
    await create(control, "F", behaviors=[PORTS | {"name": "cpu"}], securityProfileDescription='say "cpu" and "Up"')
    assert await listed(control, metricName="cpu") == ["A", "B", "C"]
    assert await listed(control, dimensionName="Up") == ["D", "E"]
    assert await listed(control, metricName="aws:num-messages-sent") == ["B", "D", "E"]
    found = await pages(control, "ListSecurityProfiles", "securityProfileIdentifiers", metricName="cpu", maxResults=2)
    assert [[each["name"] for each in page] for page in found] == [["A", "B"], ["C"]]


async def test_a_filter_by_what_is_not_defined_is_not_found(control: TestedPlane) -> None:
    with refused("ResourceNotFoundException", "custom metric cpu"):
        await listed(control, metricName="cpu")
    with refused("ResourceNotFoundException", "custom metric aws:nothing"):
        await listed(control, metricName="aws:nothing")
    with refused("ResourceNotFoundException", "dimension Up"):
        await listed(control, dimensionName="Up")


async def test_a_filter_by_both_is_refused(control: TestedPlane) -> None:
    with refused("InvalidRequestException", "not both"):
        await listed(control, metricName="cpu", dimensionName="Up")


# ---- what becomes of it ----


async def test_what_the_api_made_becomes_rules_and_what_was_refused_does_not(control: TestedPlane) -> None:
    await create(control, **FULL)
    await ask(control, "AttachSecurityProfile", **P, securityProfileTargetArn=f"{ARN}all/things")
    with refused("InvalidRequestException"):
        await create(control, "Q", behaviors=[judged("nobody")])
    (profile,) = (await control.read(api_rules)).profiles
    assert profile.security_profile_name == "P"
    assert profile.targets == ("all/things",)
    assert [behavior.name for behavior in profile.behaviors] == ["ports", "sent"]
    assert control.changes == 2


async def test_the_announcer_is_told_after_the_change_is_stored_and_writes_it(control: TestedPlane) -> None:
    log: list[bytes] = []

    async def append(_: str, payload: bytes) -> int:
        log.append(payload)
        return len(log)

    async def reached(_: int) -> None: ...

    announcer = Announcer(control.settings.rules, control.store, append, reached, clock=None)  # type: ignore[arg-type]
    await create(control, **FULL)
    await announcer.announce("api")
    await create(control, **FULL)  # the same again decides nothing new
    await announcer.announce("api")
    assert len(log) == 1
    digest = json.loads(log[0])["digest"]
    rules = await control.store.definition(digest)
    assert rules is not None
    assert b'"Meters in the field"' in rules


async def test_the_trail_says_who_changed_what(control: TestedPlane) -> None:
    await create(control, **FULL)
    await update(control, deleteBehaviors=True)
    trail = await control.rows("SELECT time_ns, who, address, action, resource, detail FROM audit ORDER BY id")
    assert [row[:5] for row in trail] == [
        (START_NS, "tester", "127.0.0.1", "CreateSecurityProfile", "securityprofile/P"),
        (START_NS, "tester", "127.0.0.1", "UpdateSecurityProfile", "securityprofile/P"),
    ]
    assert json.loads(trail[1][5]) == {"securityProfileName": "P", "deleteBehaviors": True}
