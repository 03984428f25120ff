"""Every operation, once, through boto3 as a program would call it: parameters checked, answers parsed by the model."""

from pathlib import Path
from typing import Any

import boto3
from aws_server import api
from botocore.config import Config
from control_runner import ACCOUNT, ARN, START_NS
from transitions import raised, violation_id

from config.model import NS
from daemon.http.aws.operations import handlers

NOW_S = START_NS / NS
PORTS = {
    "name": "ports",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
}
LEARNED = {
    "name": "learned",
    "metric": "aws:all-bytes-out",
    "criteria": {"mlDetectionConfig": {"confidenceLevel": "HIGH"}},
}
PUMPS = {"thingGroupName": "pumps"}
PROFILE = {"securityProfileName": "P"}
TARGET = f"{ARN}thinggroup/pumps"
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("describe_endpoint", {"endpointType": "iot:Data-ATS"}),
    ("create_thing_type", {"thingTypeName": "meter", "thingTypeProperties": {"thingTypeDescription": "a meter"}}),
    ("describe_thing_type", {"thingTypeName": "meter"}),
    ("update_thing_type", {"thingTypeName": "meter", "thingTypeProperties": {}}),
    ("list_thing_types", {}),
    ("create_billing_group", {"billingGroupName": "b", "tags": [{"Key": "a", "Value": "1"}]}),
    ("describe_billing_group", {"billingGroupName": "b"}),
    ("update_billing_group", {"billingGroupName": "b", "billingGroupProperties": {"billingGroupDescription": "x"}}),
    ("list_billing_groups", {"namePrefixFilter": "b"}),
    ("create_thing_group", {"thingGroupName": "site"}),
    ("create_thing_group", PUMPS | {"parentGroupName": "site", "tags": [{"Key": "a", "Value": "1"}]}),
    ("describe_thing_group", PUMPS),
    ("update_thing_group", PUMPS | {"thingGroupProperties": {"thingGroupDescription": "x"}}),
    ("list_thing_groups", {"parentGroup": "site", "recursive": True}),
    ("create_thing", {"thingName": "t1", "thingTypeName": "meter", "billingGroupName": "b"}),
    ("create_thing", {"thingName": "t2"}),
    ("describe_thing", {"thingName": "t1"}),
    ("update_thing", {"thingName": "t1", "attributePayload": {"attributes": {"a": "1"}, "merge": True}}),
    ("list_things", {"attributeName": "a"}),
    ("add_thing_to_billing_group", {"billingGroupName": "b", "thingName": "t2"}),
    ("list_things_in_billing_group", {"billingGroupName": "b"}),
    ("remove_thing_from_billing_group", {"billingGroupName": "b", "thingName": "t2"}),
    ("add_thing_to_thing_group", PUMPS | {"thingName": "t1"}),
    ("list_things_in_thing_group", {"thingGroupName": "site", "recursive": True}),
    ("list_thing_groups_for_thing", {"thingName": "t1"}),
    ("update_thing_groups_for_thing", {"thingName": "t2", "thingGroupsToAdd": ["pumps"]}),
    ("remove_thing_from_thing_group", PUMPS | {"thingName": "t2"}),
    ("create_custom_metric", {"metricName": "load", "metricType": "number"}),
    ("update_custom_metric", {"metricName": "load", "displayName": "The load"}),
    ("describe_custom_metric", {"metricName": "load"}),
    ("list_custom_metrics", {}),
    ("create_dimension", {"name": "D", "type": "TOPIC_FILTER", "stringValues": ["a/+"]}),
    ("update_dimension", {"name": "D", "stringValues": ["b/+"]}),
    ("describe_dimension", {"name": "D"}),
    ("list_dimensions", {}),
    ("validate_security_profile_behaviors", {"behaviors": [PORTS]}),
    ("create_security_profile", PROFILE | {"behaviors": [PORTS, LEARNED]}),
    ("update_security_profile", PROFILE | {"securityProfileDescription": "x", "expectedVersion": 1}),
    ("describe_security_profile", PROFILE),
    ("list_security_profiles", {}),
    ("attach_security_profile", PROFILE | {"securityProfileTargetArn": TARGET}),
    ("list_targets_for_security_profile", PROFILE),
    ("list_security_profiles_for_target", {"securityProfileTargetArn": TARGET, "recursive": True}),
    ("get_behavior_model_training_summaries", PROFILE),
    ("tag_resource", {"resourceArn": f"{ARN}securityprofile/P", "tags": [{"Key": "k", "Value": "v"}]}),
    ("list_tags_for_resource", {"resourceArn": f"{ARN}securityprofile/P"}),
    ("untag_resource", {"resourceArn": f"{ARN}securityprofile/P", "tagKeys": ["k"]}),
    ("list_active_violations", {"thingName": "t1"}),
    ("list_violation_events", {"startTime": NOW_S - 1, "endTime": NOW_S + 1}),
    (
        "put_verification_state_on_violation",
        {"violationId": violation_id("t1"), "verificationState": "BENIGN_POSITIVE"},
    ),
    (
        "list_metric_values",
        {"thingName": "t1", "metricName": "load", "startTime": NOW_S - 1, "endTime": NOW_S + 1},
    ),
    ("detach_security_profile", PROFILE | {"securityProfileTargetArn": TARGET}),
    ("delete_security_profile", PROFILE),
    ("delete_custom_metric", {"metricName": "load"}),
    ("delete_dimension", {"name": "D"}),
    ("delete_thing_group", PUMPS),
    ("delete_thing", {"thingName": "t1"}),
    ("deprecate_thing_type", {"thingTypeName": "meter"}),
    ("delete_thing_type", {"thingTypeName": "meter"}),
    ("delete_billing_group", {"billingGroupName": "b"}),
]


async def test_every_operation_goes_round_through_boto3(tmp_path: Path) -> None:
    async with api(tmp_path, history=True) as serving:
        await serving.control.files(broker={"embedded": {"mqtt": "127.0.0.1:1883"}})
        await serving.control.store.commit([raised("t1")])
        serving.client.close()
        serving.client = boto3.client(  # this one holds parameters against the model as well
            "iot", endpoint_url=serving.url, region_name=ACCOUNT.region, aws_access_key_id="a",
            aws_secret_access_key="b", config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip
        answers = {name: await serving.call(name, **params) for name, params in CALLS}
    assert answers.keys() == handlers().keys(), answers.keys() ^ handlers().keys()
    assert answers["describe_thing"]["billingGroupName"] == "b"
    assert [thing["thingName"] for thing in answers["list_things"]["things"]] == ["t1"]
    assert answers["list_things_in_thing_group"]["things"] == ["t1"]
    assert answers["describe_security_profile"]["version"] == 2
    assert answers["list_tags_for_resource"]["tags"] == [{"Key": "k", "Value": "v"}]
    assert [one["violationId"] for one in answers["list_active_violations"]["activeViolations"]] == [violation_id("t1")]
    assert answers["list_metric_values"] == {"metricDatumList": []}
