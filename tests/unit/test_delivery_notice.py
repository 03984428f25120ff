"""What receivers are told: AWS's own message, and ids that survive everything."""

import json

import pytest
from transitions import behavior, cleared, invalidated, raised

from actors.notice import criteria_type, message, webhook_id
from config.model import Criteria, MetricDimension, MetricValue, MlDetectionConfig, StatisticalThreshold


def test_an_in_alarm_message_has_the_members_of_the_aws_one() -> None:
    dimension = MetricDimension(dimension_name="TelemetryTopics", operator="IN")
    told = json.loads(message(raised(behavior=behavior(metric_dimension=dimension))))
    assert told == {
        "violationEventTime": 1767323100000,
        "thingName": "meter-12",
        "behavior": {
            "name": "MaxSent",
            "metric": "aws:num-messages-sent",
            "metricDimension": {"dimensionName": "TelemetryTopics", "operator": "IN"},
            "criteria": {
                "comparisonOperator": "less-than-equals",
                "value": {"count": 40},
                "durationSeconds": 300,
            },
        },
        "violationEventType": "in-alarm",
        "metricValue": {"count": 97},
        "violationId": raised().violation_id,
        "securityProfileName": "MeterProfile",
        "verificationState": "UNKNOWN",
    }


def test_a_cleared_message_carries_the_compliant_value() -> None:
    assert json.loads(message(cleared()))["metricValue"] == {"count": 12}


def test_an_invalidated_message_has_no_value_and_an_ml_one_its_confidence() -> None:
    learned = Criteria(ml_detection_config=MlDetectionConfig(confidence_level="HIGH"))
    told = json.loads(message(invalidated(behavior=behavior(criteria=learned)), "BENIGN_POSITIVE"))
    assert "metricValue" not in told
    assert told["violationEventAdditionalInfo"] == {"confidenceLevel": "HIGH"}
    assert told["verificationState"] == "BENIGN_POSITIVE"


def test_a_value_of_zero_is_told() -> None:
    assert json.loads(message(raised(value=MetricValue(count=0))))["metricValue"] == {"count": 0}


@pytest.mark.parametrize("receiver", ["ops", "ops.example.com", "ünïcode", "two words", "a/b\r\nx: y", "%2E"])
def test_a_webhook_id_fits_a_header_and_holds_no_dot(receiver: str) -> None:
    name = webhook_id("5f0c", "in-alarm", receiver)
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set(". \r\n,")


def test_webhook_ids_differ_by_violation_event_and_receiver() -> None:
    ids = {webhook_id(v, e, r) for v in ("a", "b") for e in ("in-alarm", "alarm-cleared") for r in ("x.y", "x%2Ey")}
    assert len(ids) == 8


def test_the_kind_of_criteria_is_what_the_lists_filter_by() -> None:
    assert criteria_type(behavior()) == "STATIC"
    assert criteria_type(behavior(criteria=None)) == "STATIC"
    assert criteria_type(behavior(criteria=Criteria(statistical_threshold=StatisticalThreshold("p9")))) == "STATISTICAL"
