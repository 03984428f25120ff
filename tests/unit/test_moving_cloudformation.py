"""Definitions out of CloudFormation templates: members, intrinsic functions, and what only a deployment knows."""
# ruff: noqa: E501 - templates

import json
import random
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.metrics import kinds
from config.model import Limits, Rules
from config.problem import ConfigError
from daemon.moving.cloudformation import drafts_of
from daemon.moving.drafts import Drafts
from daemon.moving.sift import sift
from daemon.moving.template import parse_template

ACCOUNT = "123456789012"
FILE = Path("t.yaml")
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
  Idle: {Type: "AWS::IoT::Thing", Condition: IsTest, Properties: {ThingName: off}}
  Bucket: {Type: "AWS::S3::Bucket"}
  Action: {Type: "AWS::IoT::MitigationAction"}
  Profile:
    Type: AWS::IoT::SecurityProfile
    Properties:
      SecurityProfileName: !Sub "${Env}-p"
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


def drafts(text: str, region: str | None = "eu-west-1", account: str | None = ACCOUNT, **given: str) -> Drafts:
    return drafts_of(parse_template(text, FILE), given, region, account, Limits())


def read(text: str, **given: str) -> tuple[Rules, list[str]]:
    """What is taken over, and what is refused."""
    sifted = sift(drafts(text, **given), kinds())
    return sifted.rules, list(sifted.refused)


def problems(text: str, **given: str | None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        drafts(text, **given)  # type: ignore[arg-type]
    return list(map(str, raised.value.problems))


def profile(properties: str, more: str = "") -> str:
    return f"{more}Resources:\n  P:\n    Type: AWS::IoT::SecurityProfile\n    Properties:\n      {properties}\n"


def test_a_template_becomes_what_its_deployment_would_create() -> None:
    rules, refused = read(TEMPLATE)
    assert refused == []
    assert plain(rules.profiles) == [
        {
            "securityProfileName": "prod-p",
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
    notes = "\n".join(drafts(TEMPLATE).notes)
    assert "AWS::IoT::MitigationAction Action: mitigation actions are not supported yet" in notes
    assert "t.yaml:22:9: Idle: its condition IsTest does not hold" in notes
    assert "not Detect's, left out: 1 AWS::S3::Bucket" in notes


def test_json_as_cdk_writes_it_is_read_too() -> None:
    arn = [{"Fn::Join": ["", ["arn:aws:iot:x:", {"Ref": "AWS::AccountId"}, ":all/things"]]}]
    resource = {"Type": "AWS::IoT::SecurityProfile", "Properties": {"TargetArns": arn}}
    rules, refused = read(json.dumps({"Resources": {"Fleet": resource}}))
    (only,) = rules.profiles
    assert (refused, only.security_profile_name, only.targets) == ([], "Fleet", ("all/things",))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("!Ref Unknown", "the template has no parameter or resource Unknown"),
        ("!Ref Env", "the parameter Env has no default: give it with --parameter Env=VALUE"),
        ("!Ref Few", "the parameter Few has a value that its AllowedValues don't have"),
        ("!Ref Secret", "the parameter Secret is looked up when a stack is made"),
        ("!GetAtt Other.Arn", "the template has no resource Other"),
        ("!GetAtt Queue.Arn", "give it with --parameter Queue.Arn=VALUE"),
        ("!Ref Topic", "give it with --parameter Topic=VALUE"),
        ("!ImportValue shared", "give it with --parameter 'ImportValue:shared=VALUE'"),
        ("!FindInMap [No, such, entry]", "the mapping No has nothing for such and entry"),
        ('!Sub "${Env}"', "the parameter Env has no default"),
        ("!If [NoCondition, a, b]", "the template has no condition NoCondition"),
        ("!If [Round, a, b]", "depends on itself"),
        ("!If [a, b]", "Fn::If takes"),
        ("!Select [3, [a, b]]", "Fn::Select takes"),
        ("!Select [x, [a, b]]", "Fn::Select takes"),
        ("!Join [a]", "Fn::Join takes"),
        ("!Split ['', a]", "Fn::Split takes"),
        ("!Sub [1, 2]", "Fn::Sub takes"),
        ("!GetAtt x", "Fn::GetAtt takes"),
        ("!Cidr [a, b]", "Fn::Cidr can't be told"),
        ("!GetAZs x", "Fn::GetAZs can't be told"),
        ("!Ref AWS::StackName", "AWS::StackName is known only to a stack"),
        ("'{{resolve:ssm:/x}}'", "a dynamic reference"),
    ],
)
def test_what_only_a_deployment_knows_is_said_with_its_place(value: str, words: str) -> None:
    more = (
        "Conditions: {Round: !Not [!Condition Round]}\n"
        "Parameters: {Env: {Type: String}, Few: {Type: String, Default: a, AllowedValues: [b]},"
        " Secret: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /x}}\n"
    )
    text = profile(f"SecurityProfileDescription: {value}", more)
    text += "  Queue: {Type: AWS::SQS::Queue}\n  Topic: {Type: AWS::SNS::Topic}\n"
    (problem,) = problems(text)
    assert problem.startswith("t.yaml:1:" if "Round" in value else "t.yaml:7:")
    assert words in problem


def test_the_region_and_the_account_are_never_made_up() -> None:
    (problem,) = problems(profile('SecurityProfileDescription: !Sub "${AWS::Region}"'), region=None)
    assert "give it with --region" in problem
    (problem,) = problems(profile('SecurityProfileDescription: !Sub "${AWS::AccountId}"'), account=None)
    assert "give it with --account" in problem


def test_targets_need_neither_region_nor_account() -> None:
    text = profile('TargetArns: [!Sub "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}:all/things"]')
    assert drafts(text, region=None, account=None).profiles[0].body["targets"] == ["all/things"]


@pytest.mark.parametrize(
    ("value", "given", "told"),
    [
        ("!Ref Text", {"Text": "hello"}, "hello"),
        ("!GetAtt Queue.Arn", {"Queue.Arn": "an arn"}, "an arn"),
        ("!ImportValue shared", {"ImportValue:shared": "x"}, "x"),
        ("!Ref Many", {}, "x"),
        ("!Join ['-', !Split [',', 'a,b']]", {}, "a-b"),
        ("!Join [',', !Ref List]", {"List": "a , b"}, "a,b"),
        ('!Sub ["${x} ${!y} ${Many}", {x: !Ref Many}]', {}, "x ${y} x"),
        ("!GetAtt Site.Arn", {}, f"arn:aws:iot:eu-west-1:{ACCOUNT}:thinggroup/x-site"),
        ("!GetAtt [Site, Arn]", {}, f"arn:aws:iot:eu-west-1:{ACCOUNT}:thinggroup/x-site"),
        ("!FindInMap [M, a, z, {DefaultValue: d}]", {}, "d"),
        ("!Ref AWS::NoValue", {}, None),
    ],
)
def test_what_is_given_or_in_the_template_is_taken(value: str, given: dict[str, str], told: str | None) -> None:
    more = (
        "Parameters: {Text: {Type: String}, Many: {Type: String, Default: x}, List: {Type: CommaDelimitedList}}\n"
        "Mappings: {M: {a: {b: c}}}\n"
    )
    text = profile(f"SecurityProfileDescription: {value}", more)
    text += '  Queue: {Type: AWS::SQS::Queue}\n  Site: {Type: AWS::IoT::ThingGroup, Properties: {ThingGroupName: !Sub "${Many}-site"}}\n'
    rules, refused = read(text, **given)
    assert (refused, rules.profiles[0].security_profile_description) == ([], told)


def test_a_name_that_is_a_function_is_the_name_everywhere() -> None:
    text = """
Parameters: {Env: {Type: String, Default: prod}}
Resources:
  Site: {Type: AWS::IoT::ThingGroup, Properties: {ThingGroupName: !Sub "${Env}-site"}}
  Pumps: {Type: AWS::IoT::ThingGroup, Properties: {ThingGroupName: pumps, ParentGroupName: !Ref Site}}
  Cpu: {Type: AWS::IoT::CustomMetric, Properties: {MetricName: !Join ["_", [cpu, !Ref Env]], MetricType: number}}
  P:
    Type: AWS::IoT::SecurityProfile
    Properties:
      TargetArns: [!GetAtt Site.Arn]
      Behaviors: [{Name: c, Metric: !Ref Cpu, Criteria: {ComparisonOperator: less-than, Value: {Number: 5}}}]
"""
    rules, refused = read(text)
    assert refused == []
    assert rules.fleet.groups["pumps"].parent == "prod-site"
    assert (rules.profiles[0].targets, rules.profiles[0].behaviors[0].metric) == (("thinggroup/prod-site",), "cpu_prod")


BEHAVIORS = """Behaviors:
        - {Name: good, Metric: "aws:listening-tcp-ports", Criteria: {ComparisonOperator: in-port-set, Value: {Ports: [1]}}}
        - {Name: none, Metric: "aws:num-messages-sent"}
        - {Name: avg, Metric: "aws:all-bytes-out", Criteria: {ComparisonOperator: less-than, StatisticalThreshold: {Statistic: Average}, DurationSeconds: 300}}
        - {Name: two, Metric: "aws:all-bytes-out", Criteria: {ComparisonOperator: less-than, Value: {Count: "5"}, MlDetectionConfig: {ConfidenceLevel: HIGH}, DurationSeconds: 300}}"""


def test_what_the_checks_refuse_is_left_out_with_its_place_and_reason_and_the_rest_stays() -> None:
    rules, refused = read(profile(BEHAVIORS))
    assert [behavior.name for behavior in rules.profiles[0].behaviors] == ["good"]
    said = "\n".join(refused)
    assert (
        "t.yaml:7:11: security profile P: Behavior none is malformed. criteria is required (left out: the behavior)"
        in said
    )
    assert "There is no statistic Average" in said
    assert "Behavior two is malformed" in said
    assert len(refused) == 3


def test_a_member_that_the_api_does_not_have_is_left_out() -> None:
    rules, refused = read(profile("Nonsense: 1"))
    assert [each.security_profile_name for each in rules.profiles] == ["P"]
    assert len(refused) == 1
    assert "onsense" in refused[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "a: [",
        "\t",
        "a: 1\na: 2",
        "a: &x [*x]",
        '{"a": 1, "a": 2}',
        "foo: 1",
        "{}",
        "Resorces: {}",
        "Resources: 3",
        "Resources: {A: 3}",
    ],
)
def test_what_is_no_template_is_said(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_template(text, FILE)


def test_a_template_of_anything_at_all_never_ends_in_another_error() -> None:
    seed = secrets.randbelow(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(300):
        text = json.dumps(_broken(json.loads(json.dumps(_template())), dice))
        with suppress(ConfigError):
            sift(drafts(text), kinds())


def _template() -> Any:
    return parse_template(TEMPLATE, FILE).data


def _broken(node: Any, dice: random.Random) -> Any:
    """The same with some of its values replaced, wherever they are."""
    if dice.random() < 0.02:
        return dice.choice(
            [None, 7, [], {}, "x", True, [None], {"Ref": 3}, {"Fn::Sub": []}, {"Fn::If": ["IsProd", 1, 2]}]
        )
    if isinstance(node, dict):
        return {key: _broken(each, dice) for key, each in node.items()}
    return [_broken(each, dice) for each in node] if isinstance(node, list) else node
