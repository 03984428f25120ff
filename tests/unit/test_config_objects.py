"""Profiles, custom metrics, dimensions and the fleet: spec.md §5, §6, §10.7, §11."""

import json

import pytest

from actors.metrics import kinds
from config.load import ConfigError, load_text
from config.objects import bad_filter
from config.targets import short_target

BEHAVIOR = {
    "name": "B",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22]}},
}
ROLE = "arn:aws:iam::123456789012:role/r"


def profile(name="P", **more):
    return {"securityProfileName": name, "behaviors": [BEHAVIOR], "targets": ["all/things"], **more}


def problems(**settings):
    """[(path, message)] of all errors."""
    try:
        load_text(json.dumps(settings), file="/c/detectd.json", kinds=kinds())
    except ConfigError as error:
        return [(each.path, each.message) for each in error.problems]
    return []


def warnings(**settings):
    return [(each.path, each.message) for each in
            load_text(json.dumps(settings), file="/c/detectd.json", kinds=kinds()).warnings]  # fmt: skip


def of_profile(**more):
    return [(path.removeprefix("profiles[0]."), message) for path, message in problems(profiles=[profile(**more)])]


def ports(name, count):
    return {**BEHAVIOR, "name": name, "criteria": {**BEHAVIOR["criteria"], "value": {"ports": list(range(count))}}}


@pytest.mark.parametrize("text", ["", "with spaces", "👩\u200d🔧", "می\u200cخواهم", "soft\u00adhyphen", "\U0001fae8"])
def test_a_description_may_have_what_the_pattern_of_aws_has(text):
    assert of_profile(securityProfileDescription=text) == []


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ({"securityProfileName": "a b"}, "securityProfileName", "name must be 1 to 128 characters"),
        ({"securityProfileDescription": "x" * 1001}, "securityProfileDescription", "at most 1000 characters"),
        ({"securityProfileDescription": "a\tb"}, "securityProfileDescription", "all printable"),
        ({"behaviors": [{**BEHAVIOR, "name": f"b{i}"} for i in range(101)]}, "behaviors", "101 behaviors; a security"),
        ({"behaviors": [ports("a", 500), ports("b", 501)]}, "behaviors", "1001 cidrs, ports, numbers and strings"),
        (
            {"alertTargets": {"SQS": {"alertTargetArn": "arn", "roleArn": ROLE}}},
            "alertTargets.SQS",
            "the only kind of alert target is SNS",
        ),
        (
            {"alertTargets": {"SNS": {"alertTargetArn": "arn", "roleArn": "short"}}},
            "alertTargets.SNS.roleArn",
            "20 to 2048",
        ),
        (
            {"alertTargets": {"SNS": {"alertTargetArn": "", "roleArn": ROLE}}},
            "alertTargets.SNS.alertTargetArn",
            "1 to 2048",
        ),
        (
            {"metricsExportConfig": {"mqttTopic": "a/#", "roleArn": ROLE}},
            "metricsExportConfig.mqttTopic",
            "no wildcards",
        ),
        (
            {"metricsExportConfig": {"mqttTopic": "x" * 513, "roleArn": ROLE}},
            "metricsExportConfig.mqttTopic",
            "1 to 512",
        ),
        ({"metricsExportConfig": {"mqttTopic": "a", "roleArn": "r"}}, "metricsExportConfig.roleArn", "20 to 2048"),
        ({"tags": [{"Key": "k"}] * 51}, "tags", "51 tags; at most 50"),
        ({"tags": [{"Key": ""}]}, "tags[0].Key", "1 to 128"),
        ({"tags": [{"Key": "k", "Value": "v" * 257}]}, "tags[0].Value", "at most 256"),
        ({"additionalMetricsToRetain": ["aws:nope"]}, "additionalMetricsToRetain[0]", "does not exist"),
        (
            {"additionalMetricsToRetainV2": [{"metric": "nope"}]},
            "additionalMetricsToRetainV2[0].metric",
            "is not defined",
        ),
        (
            {
                "additionalMetricsToRetainV2": [
                    {"metric": "aws:all-bytes-in", "metricDimension": {"dimensionName": "D"}}
                ]
            },
            "additionalMetricsToRetainV2[0].metricDimension",
            "can't have a metricDimension",
        ),
        ({"targets": ["thinggroup/pumps"]}, "targets[0]", 'group "pumps" is not defined'),
        ({"targets": ["all/things", "everything"]}, "targets[1]", "a target is one of all/things"),
        ({"targets": ["arn:aws:iot:eu-west-1:123456789012:thing/p1"]}, "targets[0]", "a target is one of"),
    ],
)
def test_a_profile_keeps_the_constraints_of_aws(more, path, message):
    found = of_profile(**more)
    assert (path, True) in [(where, message in text) for where, text in found], found


def test_a_profile_at_its_quotas_is_good():
    learned = {"metric": "aws:all-bytes-in", "criteria": {"mlDetectionConfig": {"confidenceLevel": "LOW"}}}
    behaviors = [ports("full", 1000), *({"name": f"b{i}", **learned} for i in range(99))]
    tags = [{"Key": f"k{i}", "Value": "v" * 256} for i in range(50)]
    assert of_profile(behaviors=behaviors, securityProfileDescription="ä" * 1000, tags=tags) == []


def test_a_sixth_profile_on_a_target_is_refused():
    group = {"groups": {"g": {}}}
    five = [profile(f"P{i}", targets=["thinggroup/g"]) for i in range(5)]
    assert problems(profiles=five, fleet=group) == []
    arn = "arn:aws:iot:us-east-1:000000000000:thinggroup/g"
    sixth = profile("P5", targets=["all/things", arn, "thinggroup/g"])
    assert problems(profiles=[*five, sixth], fleet=group) == [
        ("profiles[5].targets[1]", "thinggroup/g has more than 5 security profiles")
    ]


def test_names_are_unique_among_objects_of_a_kind():
    metric = {"metricName": "m", "metricType": "number"}
    dimension = {"name": "D", "stringValues": ["a"]}
    assert problems(profiles=[profile()] * 2, custom_metrics=[metric] * 2, dimensions=[dimension] * 2) == [
        ("profiles[1].securityProfileName", '"P" is defined a second time'),
        ("custom_metrics[1].metricName", '"m" is defined a second time'),
        ("dimensions[1].name", '"D" is defined a second time'),
    ]


def test_a_profile_without_targets_is_warned_about():
    assert warnings(profiles=[profile(targets=[])]) == [
        ("profiles[0].targets", "the security profile has no targets: it watches nothing")
    ]


def test_an_export_without_its_configuration_is_warned_about():
    behaviors, retained = [{**BEHAVIOR, "exportMetric": True}], [{"metric": "aws:all-bytes-in", "exportMetric": True}]
    given = profile(behaviors=behaviors, additionalMetricsToRetainV2=retained)
    assert [path for path, _ in warnings(profiles=[given])] == [
        "profiles[0].behaviors[0].exportMetric",
        "profiles[0].additionalMetricsToRetainV2[0].exportMetric",
    ]
    config = {"mqttTopic": "a/b", "roleArn": ROLE}
    assert warnings(profiles=[{**given, "metricsExportConfig": config}]) == []


@pytest.mark.parametrize(
    ("metric", "path", "message"),
    [
        ({"metricName": "a b"}, "metricName", "must be 1 to 128"),
        ({"metricName": "aws:x"}, "metricName", "must not begin with aws:"),
        ({"displayName": "x" * 129}, "displayName", "at most 128"),
        ({"metricType": "list"}, "metricType", 'unknown "list"'),
        ({"tags": [{"Key": ""}]}, "tags[0].Key", "1 to 128"),
    ],
)
def test_a_custom_metric_keeps_the_constraints_of_aws(metric, path, message):
    ((where, text),) = problems(custom_metrics=[{"metricName": "m", "metricType": "number", **metric}])
    assert where == f"custom_metrics[0].{path}"
    assert message in text


def test_there_are_at_most_a_hundred_custom_metrics_and_ten_dimensions():
    metrics = [{"metricName": f"m{i}", "metricType": "number"} for i in range(101)]
    dimensions = [{"name": f"d{i}", "stringValues": ["a"]} for i in range(11)]
    assert problems(custom_metrics=metrics[:100], dimensions=dimensions[:10]) == []
    assert problems(custom_metrics=metrics, dimensions=dimensions) == [
        ("custom_metrics", "101 custom metrics; at most 100"),
        ("dimensions", "11 dimensions; at most 10"),
    ]


def test_a_dimension_has_one_to_a_hundred_filters():
    def paths(values):
        return [path for path, _ in problems(dimensions=[{"name": "D", "stringValues": values}])]

    assert paths([]) == paths(["a"] * 101) == ["dimensions[0].stringValues"]
    assert paths(["a"] * 100) == []
    assert paths(["ok", "a#"]) == ["dimensions[0].stringValues[1]"]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a/+/b", True),
        ("#", True),
        ("a/#", True),
        ("+", True),
        ("/", True),
        ("dev/${iot:ClientId}/up", True),
        ("x" * 256, True),
        ("", False),
        ("x" * 257, False),
        ("a#", False),
        ("a/b+/c", False),
        ("#/a", False),
        ("a/#/b", False),
        ("${iot:Thing}/a", False),
        ("a\0", False),
    ],
)
def test_a_topic_filter_has_its_wildcards_in_place(text, good):
    assert (bad_filter(text) is None) == good


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("all/things", "all/things"),
        ("all/registered-things", "all/registered-things"),
        ("all/unregistered-things", "all/unregistered-things"),
        ("thinggroup/a:b", "thinggroup/a:b"),
        ("arn:aws:iot:eu-west-1:123456789012:all/things", "all/things"),
        ("arn:aws-cn:iot:cn-north-1:123456789012:thinggroup/a:b", "thinggroup/a:b"),
        ("arn:aws:iot:local:000000000000:thinggroup/", None),
        ("arn:aws:sns:eu-west-1:123456789012:all/things", None),
        ("all/Things", None),
        ("thinggroup/", None),
        ("", None),
    ],
)
def test_a_target_has_one_short_form(text, short):
    assert short_target(text) == short


def chain(length):
    return {f"g{i}": ({"parent": f"g{i - 1}"} if i else {}) for i in range(length)}


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        ({"things": ["ok", "not ok"]}, [("fleet.things[1]", "name must be")]),
        ({"groups": {"a b": {}}}, [("fleet.groups.a b", "a group's name must be")]),
        ({"groups": {"g": {"things": ["", "p1"]}}}, [("fleet.groups.g.things[0]", "a thing's name must be")]),
        (
            {"groups": {"pumps": {}, "g": {"parent": "pump"}}},
            [("fleet.groups.g.parent", 'group "pump" is not defined, did you mean "pumps"?')],
        ),
        ({"groups": {"g": {"parent": "g"}}}, [("fleet.groups.g.parent", "among its own ancestors")]),
        (
            {"groups": {"out": {"parent": "a"}, "a": {"parent": "b"}, "b": {"parent": "a"}}},
            [("fleet.groups.a.parent", "its own ancestors"), ("fleet.groups.b.parent", "its own ancestors")],
        ),
        ({"groups": chain(7)}, []),
        ({"groups": chain(8)}, [("fleet.groups.g7.parent", "nested at most 7 deep")]),
    ],
)
def test_a_fleet_is_made_of_named_things_in_a_forest_of_groups(fleet, expected):
    found = problems(fleet=fleet)
    assert [path for path, _ in found] == [path for path, _ in expected]
    assert all(message in text for (_, text), (_, message) in zip(found, expected, strict=True))


def test_a_bad_group_name_is_shown_at_the_key():
    with pytest.raises(ConfigError) as refused:
        load_text("fleet:\n  groups:\n    a b: {things: [x]}\n", file="/c/d.yaml", kinds=kinds())
    assert str(refused.value).startswith("/c/d.yaml:3:5: fleet.groups.a b: a group's name")
