"""What only a stack knows is asked for by the name under which it may be given; nothing in a template is a crash."""

from pathlib import Path

import pytest

from config.model import Limits
from config.problem import ConfigError
from daemon.moving.cloudformation import drafts_of
from daemon.moving.drafts import Drafts
from daemon.moving.template import parse_template

NAMELESS = """\
Resources:
  Role: {Type: AWS::IAM::Role}
  Topic: {Type: AWS::SNS::Topic}
  P:
    Type: AWS::IoT::SecurityProfile
    Properties: {AlertTargets: {SNS: {AlertTargetArn: !Ref Topic, RoleArn: !GetAtt Role.Arn}}}
"""
GIVEN = {"Topic": "arn:aws:sns:eu-west-1:123456789012:t", "Role.Arn": "arn:aws:iam::123456789012:role/r"}


def read(text: str, given: dict[str, str] | None = None) -> Drafts:
    return drafts_of(parse_template(text, Path("t.yaml")), given or {}, "eu-west-1", "123456789012", Limits())


def said(text: str, given: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, given)
    return str(caught.value)


def test_a_topic_and_a_role_without_names_are_asked_for_as_they_may_be_given() -> None:
    words = said(NAMELESS)
    assert "--parameter Topic=VALUE" in words
    assert "--parameter Role.Arn=VALUE" in words
    assert "--parameter Role.Arn=VALUE" in said(NAMELESS, {"Topic": GIVEN["Topic"]})
    (draft,) = read(NAMELESS, GIVEN).profiles
    assert draft.body["alertTargets"] == {"SNS": {"alertTargetArn": GIVEN["Topic"], "roleArn": GIVEN["Role.Arn"]}}


def test_properties_that_are_no_mapping_are_no_crash() -> None:
    text = NAMELESS.replace("{Type: AWS::IAM::Role}", "{Type: AWS::IAM::Role, Properties: [a]}")
    assert "--parameter Role.Arn=VALUE" in said(text)


def test_a_role_has_the_path_that_its_template_gives_it() -> None:
    role = "{Type: AWS::IAM::Role, Properties: {RoleName: r, Path: /iot/}}"
    (draft,) = read(NAMELESS.replace("{Type: AWS::IAM::Role}", role), GIVEN | {"Role.Arn": ""}).profiles
    assert draft.body["alertTargets"]["SNS"]["roleArn"] == ""  # what is given wins
    (draft,) = read(NAMELESS.replace("{Type: AWS::IAM::Role}", role), {"Topic": GIVEN["Topic"]}).profiles
    assert draft.body["alertTargets"]["SNS"]["roleArn"] == "arn:aws:iam::123456789012:role/iot/r"


def test_a_condition_that_doubles_at_each_step_is_told_at_once() -> None:
    steps = "".join(f"  C{n}: !And [!Condition C{n - 1}, !Condition C{n - 1}]\n" for n in range(1, 60))
    text = f"Conditions:\n  C0: !Equals [a, a]\n{steps}Resources:\n  T: {{Type: AWS::IoT::Thing, Condition: C59}}\n"
    assert read(text).things == ["T"]


def test_a_macro_that_has_not_run_is_a_problem() -> None:
    assert "--template-stage Processed" in said("Resources:\n  'Fn::ForEach::Loop': [x, [a], {}]\n")


def test_aliases_are_followed_and_what_they_add_up_to_is_bounded() -> None:
    shared = parse_template("A: &A !Ref B\nC: [*A, *A]\nResources: {}\n", Path("t.yaml"))
    assert shared.data["C"] == [{"Ref": "B"}, {"Ref": "B"}]
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ConfigError, match="aliases"):
        parse_template(bomb, Path("t.yaml"))
