"""Every rule of spec.md Appendix B, and the warnings about behaviors that are valid."""

import msgspec
import pytest

from actors.metrics import kinds
from config.behaviors import STATISTICS
from config.check import check_behaviors
from config.model import Behavior, CustomMetric, Dimension, Limits

CUSTOM = [
    CustomMetric(metric_name="cpu_usage", metric_type="number"),
    CustomMetric(metric_name="temps", metric_type="number-list"),
    CustomMetric(metric_name="services", metric_type="string-list"),
    CustomMetric(metric_name="dns", metric_type="ip-address-list"),
]
DIMENSIONS = [Dimension(name="Telemetry", string_values=("dt/+/up",))]


def behavior(metric="aws:all-bytes-out", name="B", criteria=None, **more):
    document = {"name": name, "metric": metric, "criteria": criteria, **more}
    return msgspec.convert({key: value for key, value in document.items() if value is not None}, Behavior)


def limit(operator="less-than", value=None, **more):
    return {"comparisonOperator": operator, "value": value if value is not None else {"count": 1}, **more}


def found(*behaviors, durations="aws", profile=""):
    findings = check_behaviors(behaviors, kinds(), CUSTOM, DIMENSIONS, Limits(durations=durations), profile=profile)
    return [(finding.path, finding.message) for finding in findings if not finding.is_warning]


def errors(metric, criteria, **more):
    """(path below the criteria, message without AWS's beginning)."""
    begin = "Behavior B is malformed. "
    messages = found(behavior(metric, criteria=criteria, **more))
    assert all(message.startswith(begin) for _, message in messages)
    return [(".".join(map(str, path[1:])), message.removeprefix(begin)) for path, message in messages]


def warnings(*behaviors, profile=""):
    findings = check_behaviors(behaviors, kinds(), CUSTOM, DIMENSIONS, Limits(), profile=profile)
    assert all(finding.is_warning for finding in findings)
    return [finding.message for finding in findings]


GOOD = limit(durationSeconds=300)


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 129, "a/b", "a\n"])
def test_a_name_keeps_the_pattern(name):
    ((path, message),) = found(behavior(name=name, criteria=GOOD))
    assert path == (0, "name")
    assert "1 to 128 characters" in message


def test_a_name_is_unique_in_its_profile():
    ((path, message),) = found(behavior(criteria=GOOD), behavior(name="C", criteria=GOOD), behavior(criteria=GOOD))
    assert (path, message) == ((2, "name"), "Behavior B is malformed. another behavior of the profile has this name")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("aws:all-byte-out", 'metric "aws:all-byte-out" does not exist, did you mean "aws:all-bytes-out"?'),
        ("aws:zzz", 'metric "aws:zzz" does not exist'),
        ("cpu-usage", 'custom metric "cpu-usage" is not defined, did you mean "cpu_usage"?'),
        ("all-bytes-out", 'custom metric "all-bytes-out" is not defined, did you mean "aws:all-bytes-out"?'),
    ],
)
def test_a_metric_must_exist(metric, message):
    assert errors(metric, GOOD) == [("metric", message)]


def test_metric_and_criteria_are_required():
    assert [message for _, message in errors(None, None)] == ["metric is required", "criteria is required"]


@pytest.mark.parametrize(
    ("metric", "name", "path", "message"),
    [
        ("aws:all-bytes-out", "Telemetry", "metricDimension", "aws:all-bytes-out can't have a metricDimension"),
        ("aws:num-disconnects", "Telemetry", "metricDimension", "aws:num-disconnects can't have a metricDimension"),
        (
            "aws:num-messages-sent",
            "telemetry",
            "metricDimension.dimensionName",
            'dimension "telemetry" is not defined, did you mean "Telemetry"?',
        ),
    ],
)
def test_a_dimension_exists_and_is_for_the_five_metrics_that_may_have_one(metric, name, path, message):
    assert errors(metric, GOOD, metricDimension={"dimensionName": name}) == [(path, message)]


@pytest.mark.parametrize(
    "metric",
    ["aws:num-messages-sent", "aws:num-messages-received", "aws:message-byte-size", "aws:num-authorization-failures"],
)
def test_four_metrics_take_a_dimension_with_learned_and_with_static_criteria(metric):
    dimension = {"dimensionName": "Telemetry", "operator": "NOT_IN"}
    assert errors(metric, {"mlDetectionConfig": {"confidenceLevel": "LOW"}}, metricDimension=dimension) == []
    assert errors(metric, GOOD, metricDimension=dimension) == []


def test_the_source_address_takes_a_dimension_with_static_criteria_only():
    dimension = {"dimensionName": "Telemetry"}
    static = limit("in-cidr-set", {"cidrs": ["10.0.0.0/8"]})
    assert errors("aws:source-ip-address", static, metricDimension=dimension) == []
    learned = {"mlDetectionConfig": {"confidenceLevel": "LOW"}}
    assert [path for path, _ in errors("aws:source-ip-address", learned, metricDimension=dimension)] == [
        "criteria.mlDetectionConfig"
    ]


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"comparisonOperator": "less-than"},
        limit(statisticalThreshold={"statistic": "p99"}, durationSeconds=300),
        limit(mlDetectionConfig={"confidenceLevel": "LOW"}),
    ],
)
def test_criteria_have_exactly_one_of_three_shapes(criteria):
    message = "criteria must have exactly one of value, statisticalThreshold and mlDetectionConfig"
    assert errors("aws:all-bytes-out", criteria) == [("criteria", message)]


@pytest.mark.parametrize(
    ("metric", "operator", "value", "accepted"),
    [
        ("aws:all-bytes-out", "in-port-set", {"count": 1}, "greater-than, greater-than-equals, less-than"),
        ("aws:listening-tcp-ports", "less-than", {"ports": [1]}, "in-port-set, not-in-port-set"),
        ("aws:destination-ip-addresses", "in-set", {"cidrs": ["::/0"]}, "in-cidr-set, not-in-cidr-set"),
        ("services", "in-cidr-set", {"strings": ["a"]}, "in-set, not-in-set"),
        ("aws:disconnect-duration", "greater-than", {"count": 1}, "less-than, less-than-equals"),
    ],
)
def test_an_operator_fits_the_metric(metric, operator, value, accepted):
    duration = {"durationSeconds": 300} if metric == "aws:all-bytes-out" else {}
    ((path, message),) = errors(metric, limit(operator, value, **duration))
    assert path == "criteria.comparisonOperator"
    assert f"{operator} does not fit {metric}, which takes {accepted}" in message


def test_an_operator_is_required_beside_a_value():
    ((path, message),) = errors("cpu_usage", {"value": {"number": 1}})
    assert (path, message.split(":")[0]) == ("criteria", "comparisonOperator is required")


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("cpu_usage", {"count": 75}, "the value of cpu_usage is given as number, not count"),
        ("aws:num-listening-tcp-ports", {"number": 75}, "is given as count, not number"),
        ("aws:num-listening-tcp-ports", {"count": 1, "ports": [2]}, "is given as count, not count, ports"),
        ("aws:num-listening-tcp-ports", {}, "is given as count, but it is empty"),
    ],
)
def test_exactly_the_metrics_own_value_member_is_given(metric, value, message):
    ((path, text),) = errors(metric, {"comparisonOperator": "less-than", "value": value})
    assert path == "criteria.value"
    assert message in text


@pytest.mark.parametrize(
    ("metric", "operator", "value", "path", "message"),
    [
        ("aws:num-listening-tcp-ports", "less-than", {"count": -1}, "count", "count should be in range[0,"),
        ("aws:num-listening-tcp-ports", "less-than", {"count": 2**63}, "count", "count should be in range[0,"),
        ("aws:listening-tcp-ports", "in-port-set", {"ports": []}, "ports", "ports is empty"),
        (
            "aws:listening-tcp-ports",
            "in-port-set",
            {"ports": [1, -1]},
            "ports.1",
            "port -1 should be in range[0,65535]",
        ),
        ("aws:listening-tcp-ports", "in-port-set", {"ports": [65536]}, "ports.0", "port 65536 should be"),
        ("dns", "in-cidr-set", {"cidrs": ["10.0.0.0/33"]}, "cidrs.0", '"10.0.0.0/33" is no IPv4 or IPv6 address'),
        ("dns", "in-cidr-set", {"cidrs": ["10.0.0.0/8", "fe80::%1"]}, "cidrs.1", "is no IPv4"),
        ("dns", "in-cidr-set", {"cidrs": ["10.0.0.0/255.0.0.0"]}, "cidrs.0", "is no IPv4"),
        ("dns", "in-cidr-set", {"cidrs": ["host.example"]}, "cidrs.0", "is no IPv4"),
        ("dns", "in-cidr-set", {"cidrs": ["::/0/0"]}, "cidrs.0", "is no IPv4"),
        ("dns", "in-cidr-set", {"cidrs": ["010.1.1.1"]}, "cidrs.0", "is no IPv4"),
        ("cpu_usage", "less-than", {"number": float("nan")}, "number", "must be finite"),
        ("cpu_usage", "less-than", {"number": float("-inf")}, "number", "must be finite"),
        ("temps", "in-set", {"numbers": [1, float("inf")]}, "numbers.1", "must be finite"),
        ("temps", "in-set", {"numbers": []}, "numbers", "numbers is empty"),
        ("services", "in-set", {"strings": []}, "strings", "strings is empty"),
    ],
)
def test_every_element_of_a_value_is_possible(metric, operator, value, path, message):
    ((where, text),) = errors(metric, limit(operator, value))
    assert where == f"criteria.value.{path}"
    assert message in text


@pytest.mark.parametrize(
    ("metric", "operator", "value"),
    [
        ("aws:num-listening-tcp-ports", "greater-than", {"count": 0}),
        ("aws:num-listening-tcp-ports", "less-than", {"count": 2**63 - 1}),
        ("aws:listening-tcp-ports", "in-port-set", {"ports": [0, 65535]}),
        (
            "dns",
            "in-cidr-set",
            {"cidrs": ["192.168.100.14/24", "10.0.0.1", "::1", "2001:db8::5/32", "::ffff:1.2.3.4/120"]},
        ),
        ("cpu_usage", "less-than", {"number": -1.5}),
        ("temps", "not-in-set", {"numbers": [-1, 0.5]}),
        ("services", "not-in-set", {"strings": ["a", ""]}),
    ],
)
def test_values_at_the_edges_are_good(metric, operator, value):
    assert errors(metric, limit(operator, value)) == []


@pytest.mark.parametrize("statistic", STATISTICS)
def test_all_eleven_statistics_are_good(statistic):
    criteria = {"comparisonOperator": "less-than-equals", "statisticalThreshold": {"statistic": statistic}}
    assert errors("aws:all-bytes-out", {**criteria, "durationSeconds": 300}) == []


@pytest.mark.parametrize(
    ("metric", "criteria", "path", "message"),
    [
        (
            "aws:all-bytes-out",
            {"statistic": "p95"},
            "criteria.statisticalThreshold.statistic",
            "should be one of p0, p0.1",
        ),
        ("aws:all-bytes-out", {"statistic": "Average"}, "criteria.statisticalThreshold.statistic", "should be one of"),
        ("services", {"statistic": "p99"}, "criteria.statisticalThreshold", "can't have a statisticalThreshold"),
        ("aws:disconnect-duration", {"statistic": "p99"}, "criteria.statisticalThreshold", "can't have"),
    ],
)
def test_a_percentile_is_one_of_the_enumeration_on_a_metric_that_has_them(metric, criteria, path, message):
    duration = {"durationSeconds": 300} if metric == "aws:all-bytes-out" else {}
    given = {"comparisonOperator": "less-than", "statisticalThreshold": criteria, **duration}
    ((where, text),) = errors(metric, given)
    assert where == path
    assert message in text


def test_a_percentile_needs_a_numeric_operator_and_a_duration():
    threshold = {"statisticalThreshold": {"statistic": "p99"}}
    assert [path for path, _ in errors("cpu_usage", {**threshold, "durationSeconds": 300})] == ["criteria"]
    assert errors("cpu_usage", {**threshold, "comparisonOperator": "less-than"}) == [
        ("criteria", "durationSeconds is required with statisticalThreshold")
    ]
    assert [
        path for path, _ in errors("cpu_usage", {**threshold, "comparisonOperator": "in-set", "durationSeconds": 300})
    ] == ["criteria.comparisonOperator"]


@pytest.mark.parametrize(
    ("metric", "more", "path"),
    [
        ("services", {}, "criteria.mlDetectionConfig"),
        ("aws:listening-tcp-ports", {}, "criteria.mlDetectionConfig"),
        ("aws:disconnect-duration", {}, "criteria.mlDetectionConfig"),
        ("aws:all-bytes-out", {"comparisonOperator": "less-than"}, "criteria.comparisonOperator"),
        ("aws:all-bytes-out", {"durationSeconds": 300}, "criteria.durationSeconds"),
    ],
)
def test_learned_criteria_stand_alone_on_a_metric_that_has_models(metric, more, path):
    criteria = {"mlDetectionConfig": {"confidenceLevel": "LOW"}, **more}
    assert [where for where, _ in errors(metric, criteria)] == [path]


@pytest.mark.parametrize("duration", [0, -300, 1, 301, 7200])
def test_a_duration_is_one_of_five(duration):
    ((path, message),) = errors("aws:all-bytes-out", limit(durationSeconds=duration))
    assert path == "criteria.durationSeconds"
    assert message == f"durationSeconds {duration} should be one of 300, 600, 900, 1800, 3600"


def test_with_durations_any_every_whole_second_is_good():
    def accepted(duration):
        return found(behavior(criteria=limit(durationSeconds=duration)), durations="any") == []

    assert [accepted(duration) for duration in (-1, 0, 1, 2, 301, 86_400)] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("metric", "operator", "value"),
    [
        ("aws:listening-tcp-ports", "in-port-set", {"ports": [1]}),
        ("aws:destination-ip-addresses", "in-cidr-set", {"cidrs": ["::/0"]}),
        ("aws:source-ip-address", "in-cidr-set", {"cidrs": ["::/0"]}),
        ("aws:disconnect-duration", "less-than", {"count": 1}),
        ("temps", "in-set", {"numbers": [1]}),
        ("services", "in-set", {"strings": ["a"]}),
        ("dns", "in-cidr-set", {"cidrs": ["::/0"]}),
    ],
)
def test_sets_lists_and_gauges_have_no_duration(metric, operator, value):
    assert errors(metric, limit(operator, value, durationSeconds=300)) == [
        ("criteria.durationSeconds", f"durationSeconds can't go with {metric}")
    ]


@pytest.mark.parametrize("metric", ["aws:all-bytes-out", "aws:all-packets-in", "aws:num-messages-sent"])
def test_a_counter_needs_a_duration(metric):
    assert errors(metric, limit()) == [("criteria", f"durationSeconds is required for {metric}")]


@pytest.mark.parametrize("metric", ["aws:num-listening-tcp-ports", "aws:num-established-tcp-connections"])
@pytest.mark.parametrize("more", [{}, {"durationSeconds": 900}])
def test_a_snapshot_may_have_a_duration(metric, more):
    assert errors(metric, limit(**more)) == []


@pytest.mark.parametrize("member", ["consecutiveDatapointsToAlarm", "consecutiveDatapointsToClear"])
@pytest.mark.parametrize("count", [0, 11, -1])
def test_consecutive_datapoints_are_one_to_ten_in_the_words_of_aws(member, count):
    ((path, message),) = found(behavior(criteria={**GOOD, member: count}))
    assert path == (0, "criteria", member)
    assert message == f"Behavior B is malformed. {member} {count} should be in range[1,10]"


def test_everything_wrong_is_found_at_once():
    bad = behavior("services", name="a b", criteria=limit("less-than", {"strings": []}, durationSeconds=7,
                                                          consecutiveDatapointsToClear=99))  # fmt: skip
    assert [path[1:] for path, _ in found(bad)] == [
        ("name",),
        ("criteria", "comparisonOperator"),
        ("criteria", "value", "strings"),
        ("criteria", "durationSeconds"),
        ("criteria", "consecutiveDatapointsToClear"),
    ]


def cpu(name, operator, metric="cpu_usage"):
    return behavior(metric, name=name, criteria=limit(operator, {"number": 75}))


@pytest.mark.parametrize(
    ("name", "operator", "profile", "warns"),
    [
        ("great-than-75", "greater-than", "High-Cpu-Usage", True),  # AWS's own agent example (clients.md §2.1 #9)
        ("great-than-75", "less-than-equals", "High-Cpu-Usage", False),
        ("HighCpu", "greater-than-equals", "", True),
        ("HIGH_CPU", "greater-than", "", True),
        ("too-many", "greater-than", "", True),
        ("MaxCpu", "less-than-equals", "", False),
        ("MaxCpu", "greater-than", "", True),
        ("LowCpu", "less-than", "", True),
        ("MinCpu", "greater-than-equals", "", False),
        ("min-max", "less-than", "", False),
        ("CpuLow", "greater-than", "High-Cpu-Usage", False),  # its own name comes first
        ("Usage5min", "less-than", "", False),
        ("UsagePerMin", "less-than", "", False),
        ("Highway", "greater-than", "", False),
        ("B", "less-than", "Low-Power-Sensors", False),
        ("B", "greater-than", "HighCpu", True),
    ],
)
def test_a_name_that_contradicts_its_operator_is_warned_about(name, operator, profile, warns):
    messages = warnings(cpu(name, operator), profile=profile)
    assert ["the name suggests the opposite" in message for message in messages] == [True] * warns


def test_the_warning_says_what_the_behavior_does():
    assert warnings(cpu("HighCpu", "greater-than")) == [
        (
            "Behavior HighCpu: the name suggests the opposite of what it does: "
            "it alarms when cpu_usage is not greater than 75"
        )
    ]


def test_what_this_version_does_not_judge_is_warned_about():
    learned = behavior(criteria={"mlDetectionConfig": {"confidenceLevel": "LOW"}})
    assert warnings(learned) == ["Behavior B: learned models are not judged by this version"]
    assert warnings(behavior("aws:num-disconnects", criteria=GOOD)) == []


@pytest.mark.parametrize(
    ("operator", "statistic", "begins"),
    [
        ("less-than-equals", "p100", "never alarms"),
        ("greater-than-equals", "p0", "never alarms"),
        ("less-than", "p100", "alarms in every window"),
        ("greater-than", "p0", "alarms in every window"),
    ],
)
def test_a_percentile_whose_outcome_is_foregone_is_warned_about(operator, statistic, begins):
    criteria = {
        "comparisonOperator": operator,
        "statisticalThreshold": {"statistic": statistic},
        "durationSeconds": 300,
    }
    assert [message.startswith(f"Behavior B: {begins}") for message in warnings(behavior(criteria=criteria))] == [True]


@pytest.mark.parametrize(
    ("operator", "count"),
    [("less-than", [True]), ("greater-than-equals", [True]), ("less-than-equals", []), ("greater-than", [])],
)
def test_a_count_against_zero_whose_outcome_is_foregone_is_warned_about(operator, count):
    criteria = limit(operator, {"count": 0}, durationSeconds=300)
    assert ["a count is" in message for message in warnings(behavior(criteria=criteria))] == count
