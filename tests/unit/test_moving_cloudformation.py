"""Definitions out of CloudFormation templates: members, intrinsic functions, and what only a deployment knows."""
# ruff: noqa: E501 - templates

import json

import msgspec
import pytest

from config.model import Rules
from daemon.moving import cloudformation
from daemon.moving.cloudformation import Template, Unreadable

ACCOUNT = "123456789012"
TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  Env: {Type: String, Default: prod}
Conditions:
  IsProd: !Equals [!Ref Env, prod]
  IsTest: !Not [!Condition IsProd]
  Both: !And [!Condition IsProd, !Equals [a, a]]
  Either: !Or [!Condition IsTest, !Condition IsProd]
Mappings:
  Limits: {prod: {bytes: "100000"}}
Resources:
  Load:
    Type: AWS::IoT::CustomMetric
    Properties: {MetricName: load, MetricType: number, DisplayName: The load}
  Up:
    Type: AWS::IoT::Dimension
    Properties: {Name: Up, Type: TOPIC_FILTER, StringValues: ["dt/+/up"]}
  Site: {Type: "AWS::IoT::ThingGroup", Properties: {ThingGroupName: site}}
  Pumps: {Type: "AWS::IoT::ThingGroup", Properties: {ThingGroupName: pumps, ParentGroupName: !Ref Site}}
  P1: {Type: "AWS::IoT::Thing", Properties: {ThingName: p1}}
  Off: {Type: "AWS::IoT::Thing", Condition: IsTest, Properties: {ThingName: off}}
  Bucket: {Type: "AWS::S3::Bucket"}
  Action: {Type: "AWS::IoT::MitigationAction"}
  Profile:
    Type: AWS::IoT::SecurityProfile
    Properties:
      SecurityProfileName: !Sub "${Env}-${!literal}"
      TargetArns: [!Sub "arn:aws:iot:${AWS::Region}:${AWS::AccountId}:all/things", !GetAtt Pumps.Arn]
      AlertTargets: {SNS: {AlertTargetArn: !Join [":", [arn, aws, sns, eu-west-1, "123456789012", alarms]], RoleArn: "arn:aws:iam::123456789012:role/r"}}
      Behaviors:
        - Name: bytes
          Metric: aws:all-bytes-out
          Criteria: {ComparisonOperator: less-than, Value: {Count: !FindInMap [Limits, !Ref Env, bytes]}, DurationSeconds: "300"}
        - Name: !Select [1, !Split ["/", "a/load"]]
          Metric: !Ref Load
          Criteria: {ComparisonOperator: less-than, Value: {Number: "75.5"}}
        - !If [Both, {Name: ports, Metric: "aws:listening-tcp-ports", Criteria: {ComparisonOperator: in-port-set, Value: {Ports: [443]}}}, !Ref "AWS::NoValue"]
        - !If [IsTest, {Name: never}, !Ref "AWS::NoValue"]
      Tags: [{Key: Team, Value: x}]
"""


def plain(objects: object) -> object:
    return json.loads(msgspec.json.encode(objects))


def read(text: str, **parameters: str) -> tuple[Rules, Template]:
    return cloudformation.read("t.yaml", text, parameters, "eu-west-1", ACCOUNT)


def test_a_template_becomes_what_its_deployment_would_create() -> None:
    rules, template = read(TEMPLATE)
    assert template.problems == []
    assert plain(rules.profiles) == [
        {
            "securityProfileName": "prod-${literal}",
            "behaviors": [
                {
                    "name": "bytes",
                    "metric": "aws:all-bytes-out",
                    "criteria": {"comparisonOperator": "less-than", "value": {"count": 100000}, "durationSeconds": 300},
                },
                {
                    "name": "load",
                    "metric": "load",
                    "criteria": {"comparisonOperator": "less-than", "value": {"number": 75.5}},
                },
                {
                    "name": "ports",
                    "metric": "aws:listening-tcp-ports",
                    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
                },
            ],
            "alertTargets": {
                "SNS": {
                    "alertTargetArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
                    "roleArn": "arn:aws:iam::123456789012:role/r",
                }
            },
            "tags": [{"Key": "Team", "Value": "x"}],
            "targets": ["all/things", "thinggroup/pumps"],
        }
    ]
    assert plain(rules.custom_metrics) == [{"metricName": "load", "metricType": "number", "displayName": "The load"}]
    assert plain(rules.dimensions) == [{"name": "Up", "stringValues": ["dt/+/up"]}]
    assert plain(rules.fleet) == {
        "things": ["p1"],
        "groups": {"site": {"parent": None, "things": []}, "pumps": {"parent": "site", "things": []}},
    }
    assert [note.partition(": ")[2] for note in template.notes] == [
        "Resources.Action: AWS::IoT::MitigationAction is left out"
    ]


def test_json_as_cdk_writes_it_is_read_too() -> None:
    resource = {
        "Type": "AWS::IoT::SecurityProfile",
        "Properties": {
            "TargetArns": [{"Fn::Join": ["", ["arn:aws:iot:x:", {"Ref": "AWS::AccountId"}, ":all/things"]]}]
        },
    }
    rules, template = read(json.dumps({"Resources": {"Fleet": resource}}))
    assert template.problems == []
    (profile,) = rules.profiles
    assert (profile.security_profile_name, profile.targets) == ("Fleet", ("all/things",))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("!Ref Unknown", "give it with --parameter Unknown=VALUE"),
        ("!GetAtt Other.Arn", "give it with --parameter Other.Arn=VALUE"),
        ("!ImportValue shared", "give it with --parameter import:shared=VALUE"),
        ("!FindInMap [No, such, entry]", "there is no such entry"),
        ('!Sub "${Unknown}"', "give it with --parameter Unknown=VALUE"),
        ("!If [NoCondition, a, b]", "there is no condition NoCondition"),
    ],
)
def test_what_only_a_deployment_knows_is_said_with_its_line(value: str, words: str) -> None:
    text = f"Resources:\n  P:\n    Type: AWS::IoT::SecurityProfile\n    Properties:\n      SecurityProfileDescription: {value}\n"
    _, template = read(text)
    (problem,) = template.problems
    assert problem.startswith("t.yaml:3: Resources.P: ")
    assert words in problem


def test_what_is_given_is_taken() -> None:
    text = "Resources:\n  P:\n    Type: AWS::IoT::SecurityProfile\n    Properties: {SecurityProfileDescription: !Ref Text}\n"
    rules, template = read(text, Text="hello")
    assert (template.problems, rules.profiles[0].security_profile_description) == ([], "hello")


def test_a_member_that_the_api_does_not_have_is_a_problem() -> None:
    _, template = read('{"Resources": {"P": {"Type": "AWS::IoT::SecurityProfile", "Properties": {"Nonsense": 1}}}}')
    assert "nonsense" in template.problems[0]


@pytest.mark.parametrize("text", ["", "[]", "a: b", "{", "Resources: []", "a: [", "\t"])
def test_what_is_no_template_is_said(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)
