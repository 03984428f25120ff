"""What a behavior means in plain words: golden texts for all operators and kinds of criteria."""

import msgspec
import pytest

from actors.metrics import kinds
from config.behaviors import metrics_of
from config.explain import explain
from config.model import Behavior, CustomMetric

METRICS = metrics_of(
    kinds(),
    [
        CustomMetric(metric_name="cpu_usage", metric_type="number"),
        CustomMetric(metric_name="temps", metric_type="number-list"),
        CustomMetric(metric_name="services", metric_type="string-list"),
        CustomMetric(metric_name="dns", metric_type="ip-address-list"),
    ],
)


def meaning(metric, criteria, **more):
    behavior = msgspec.convert({"name": "B", "metric": metric, "criteria": criteria, **more}, Behavior)
    return explain(behavior, METRICS[metric])


def limit(operator, value, **more):
    return {"comparisonOperator": operator, "value": value, **more}


@pytest.mark.parametrize(
    ("metric", "criteria", "text"),
    [
        (
            "aws:all-bytes-out",
            limit("less-than", {"count": 10000}, durationSeconds=300),
            "alarms when aws:all-bytes-out over 5 min is not less than 10000",
        ),
        (
            "aws:all-packets-in",
            limit("less-than-equals", {"count": 7}, durationSeconds=3600),
            "alarms when aws:all-packets-in over 1 h is not less than or equal to 7",
        ),
        (
            "aws:num-messages-sent",
            limit("greater-than", {"count": 0}, durationSeconds=90),
            "alarms when aws:num-messages-sent over 90 s is not greater than 0",
        ),
        (
            "cpu_usage",
            limit("greater-than-equals", {"number": 75.5}),
            "alarms when cpu_usage is not greater than or equal to 75.5",
        ),
        ("cpu_usage", limit("less-than", {"number": -3.0}), "alarms when cpu_usage is not less than -3"),
        (
            "aws:num-listening-tcp-ports",
            limit("less-than", {"count": 5}, durationSeconds=300),
            "alarms when aws:num-listening-tcp-ports is not less than 5",
        ),
        (
            "aws:message-byte-size",
            limit("less-than", {"count": 128}),
            "alarms when any message's aws:message-byte-size is not less than 128",
        ),
        (
            "aws:disconnect-duration",
            limit("less-than-equals", {"count": 300}),
            "alarms when aws:disconnect-duration is not less than or equal to 300",
        ),
        (
            "aws:listening-tcp-ports",
            limit("in-port-set", {"ports": [22, 443]}),
            "alarms when a port in aws:listening-tcp-ports is not one of 22, 443",
        ),
        (
            "aws:listening-udp-ports",
            limit("not-in-port-set", {"ports": [23]}),
            "alarms when a port in aws:listening-udp-ports is 23",
        ),
        (
            "aws:listening-udp-ports",
            limit("in-port-set", {"ports": [53]}),
            "alarms when a port in aws:listening-udp-ports is not 53",
        ),
        (
            "aws:destination-ip-addresses",
            limit("in-cidr-set", {"cidrs": ["192.0.2.0/24", "2001:db8::/32"]}),
            "alarms when an address in aws:destination-ip-addresses is not in one of 192.0.2.0/24, 2001:db8::/32",
        ),
        (
            "dns",
            limit("in-cidr-set", {"cidrs": ["192.0.2.0/24"]}),
            "alarms when an address in dns is not in 192.0.2.0/24",
        ),
        (
            "aws:source-ip-address",
            limit("not-in-cidr-set", {"cidrs": ["10.0.0.0/8"]}),
            "alarms when an address in aws:source-ip-address is in 10.0.0.0/8",
        ),
        (
            "dns",
            limit("not-in-cidr-set", {"cidrs": ["10.0.0.0/8", "::/0"]}),
            "alarms when an address in dns is in one of 10.0.0.0/8, ::/0",
        ),
        (
            "services",
            limit("in-set", {"strings": ["sshd", "ntpd"]}),
            'alarms when a word in services is not one of "sshd", "ntpd"',
        ),
        (
            "temps",
            limit("not-in-set", {"numbers": [1.0, 2.5]}),
            "alarms when a number in temps is one of 1, 2.5",
        ),
        (
            "aws:listening-tcp-ports",
            limit("in-port-set", {"ports": list(range(1, 12))}),
            "alarms when a port in aws:listening-tcp-ports is not one of 1, 2, 3, 4, 5, 6, 7, 8 and 3 more",
        ),
        (
            "aws:all-bytes-out",
            {
                "comparisonOperator": "less-than-equals",
                "statisticalThreshold": {"statistic": "p99"},
                "durationSeconds": 900,
            },
            (
                "alarms when aws:all-bytes-out over 15 min is not less than or equal to"
                " the p99 of all things of the profile's targets"
            ),
        ),
        (
            "cpu_usage",
            {
                "comparisonOperator": "greater-than",
                "statisticalThreshold": {"statistic": "p0.1"},
                "durationSeconds": 300,
            },
            "alarms when cpu_usage over 5 min is not greater than the p0.1 of all things of the profile's targets",
        ),
        (
            "aws:num-disconnects",
            {"mlDetectionConfig": {"confidenceLevel": "HIGH"}},
            "alarms when aws:num-disconnects is unusual by the model learned from its group, at HIGH confidence",
        ),
        (
            "aws:num-disconnects",
            {"mlDetectionConfig": {"confidenceLevel": "LOW"}, "consecutiveDatapointsToAlarm": 3},
            (
                "alarms when aws:num-disconnects is unusual by the model learned from its group, at LOW confidence,"
                " 3 datapoints in a row"
            ),
        ),
        (
            "cpu_usage",
            limit("less-than", {"number": 80}, consecutiveDatapointsToAlarm=2, consecutiveDatapointsToClear=3),
            "alarms when cpu_usage is not less than 80, 2 datapoints in a row; clears after 3 in a row that comply",
        ),
        (
            "cpu_usage",
            limit("less-than", {"number": 80}, consecutiveDatapointsToAlarm=1, consecutiveDatapointsToClear=1),
            "alarms when cpu_usage is not less than 80",
        ),
    ],
)
def test_a_behavior_alarms_on_the_opposite_of_what_it_says(metric, criteria, text):
    assert meaning(metric, criteria) == text


def test_a_dimension_is_part_of_what_is_measured():
    criteria = limit("less-than", {"count": 9}, durationSeconds=300)
    within = meaning("aws:num-messages-sent", criteria, metricDimension={"dimensionName": "Up"})
    outside = meaning("aws:num-messages-sent", criteria, metricDimension={"dimensionName": "Up", "operator": "NOT_IN"})
    assert within == "alarms when aws:num-messages-sent within Up over 5 min is not less than 9"
    assert outside == "alarms when aws:num-messages-sent outside Up over 5 min is not less than 9"


def test_a_suppressed_behavior_says_so():
    text = meaning("cpu_usage", limit("less-than", {"number": 1}), suppressAlerts=True)
    assert text == "alarms when cpu_usage is not less than 1; nobody is notified"
