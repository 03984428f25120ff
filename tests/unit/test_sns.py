"""What an SNS topic is sent, and what its answers mean."""

import json
from urllib.parse import parse_qs

import pytest
from botocore.credentials import ReadOnlyCredentials
from transitions import behavior, raised

from actors.delivery import Delivered, Reason, Refused, Retry
from actors.notice import Notice, message, webhook_id
from config.model import Criteria, MetricValue
from config.topics import is_topic
from daemon.notifiers.sns import MESSAGE_BYTES_MAX, OMITTED, form, judged, shortened, signed

ARN = "arn:aws:sns:eu-west-1:123456789012:alarms"


def notice(**members: object) -> Notice:
    told = raised(**members)  # type: ignore[arg-type]  # a story's members
    name = webhook_id(told.violation_id, "in-alarm", "ops")
    return Notice(1, name, "ops", told.violation_id, "in-alarm", told.thing, told.time_ns, 0, message(told))


def answer(code: str) -> bytes:
    return f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>".encode()


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"<PublishResponse><PublishResult><MessageId>5f-0c</MessageId></PublishResult>", Delivered()),
        (200, b"<html>please log in</html>", Retry(Reason.PROTOCOL, "HTTP 200, not by SNS")),
        (200, b"", Retry(Reason.PROTOCOL, "HTTP 200, not by SNS")),
        (302, b"", Retry(Reason.REDIRECT, "HTTP 302")),
        (404, answer("NotFound"), Refused(Reason.CLIENT_ERROR, "HTTP 404 NotFound")),
        (403, answer("AuthorizationError"), Refused(Reason.CLIENT_ERROR, "HTTP 403 AuthorizationError")),
        (400, answer("InvalidParameter"), Refused(Reason.CLIENT_ERROR, "HTTP 400 InvalidParameter")),
        (400, answer("Throttling"), Retry(Reason.THROTTLED, "HTTP 400 Throttling")),
        (400, answer("ParameterValueInvalid"), Refused(Reason.CLIENT_ERROR, "HTTP 400 ParameterValueInvalid")),
        (403, answer("InvalidSecurity"), Refused(Reason.CLIENT_ERROR, "HTTP 403 InvalidSecurity")),
        (400, answer("EndpointDisabled"), Refused(Reason.CLIENT_ERROR, "HTTP 400 EndpointDisabled")),
        (400, answer("KMSDisabled"), Refused(Reason.CLIENT_ERROR, "HTTP 400 KMSDisabled")),
        (400, answer("KMSThrottling"), Retry(Reason.THROTTLED, "HTTP 400 KMSThrottling")),
        (503, answer("Throttling"), Retry(Reason.THROTTLED, "HTTP 503 Throttling")),
        (429, b"", Retry(Reason.THROTTLED, "HTTP 429")),
        (403, answer("ExpiredToken"), Retry(Reason.CLIENT_ERROR, "HTTP 403 ExpiredToken")),
        (403, answer("SignatureDoesNotMatch"), Retry(Reason.CLIENT_ERROR, "HTTP 403 SignatureDoesNotMatch")),
        (500, answer("InternalError"), Retry(Reason.SERVER_ERROR, "HTTP 500 InternalError")),
        (502, b"<html>", Retry(Reason.SERVER_ERROR, "HTTP 502")),
        (403, b"<html>a proxy</html>", Retry(Reason.CLIENT_ERROR, "HTTP 403, not by SNS")),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, outcome: object) -> None:
    assert judged(status, body) == outcome


def test_a_request_is_the_query_protocols_publish_and_signed_for_the_topics_region() -> None:
    one = notice()
    keys = ReadOnlyCredentials("AKIDEXAMPLE", "sekret", "a-session")
    headers, body = signed(keys, "eu-west-1", "https://sns.example/", form(ARN, one, one.message))
    told = {name: value for name, (value,) in parse_qs(body.decode()).items()}
    assert told.pop("Message") == one.message.decode()
    assert told == {"Action": "Publish", "Version": "2010-03-31", "TopicArn": ARN}
    assert "/eu-west-1/sns/aws4_request" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "a-session"
    assert "sekret" not in f"{headers}{body!r}"


def test_a_fifo_topic_keeps_the_order_of_a_thing_and_drops_repeats() -> None:
    forms = [form(ARN + ".fifo", one, one.message) for one in (notice(), notice(thing="other"), notice())]
    assert forms[0] == forms[2]
    assert forms[0]["MessageGroupId"] != forms[1]["MessageGroupId"]
    assert forms[0]["MessageDeduplicationId"] != forms[1]["MessageDeduplicationId"]
    assert all(len(form["MessageDeduplicationId"]) <= 128 for form in forms)


LONG = MetricValue(strings=tuple(f"{at:0300}" for at in range(1000)))
HALF = MetricValue(strings=LONG.strings[:500] if LONG.strings else None)


def long(value: MetricValue, limits: MetricValue) -> Notice:
    criteria = Criteria(comparison_operator="in-set", value=limits)
    return notice(value=value, behavior=behavior(metric="names", criteria=criteria))


def test_a_message_that_fits_is_sent_byte_by_byte() -> None:
    assert shortened(notice().message) == notice().message


@pytest.mark.parametrize(
    ("one", "omitted"),
    [
        (long(HALF, HALF), "behavior.criteria.value"),
        (long(MetricValue(count=1), LONG), "behavior.criteria.value"),
        (long(LONG, MetricValue(count=1)), "metricValue"),
        (long(LONG, LONG), "behavior.criteria.value metricValue"),
    ],
    ids=["together", "criteria", "metric", "each"],
)
def test_a_message_that_is_too_long_goes_without_what_is_long_and_says_so(one: Notice, omitted: str) -> None:
    assert len(one.message) > MESSAGE_BYTES_MAX
    short = shortened(one.message)
    assert short is not None
    assert len(short) <= MESSAGE_BYTES_MAX
    whole, body = json.loads(one.message), json.loads(short)
    for part in omitted.split():
        holder = whole["behavior"]["criteria"] if "." in part else whole
        del holder[part.rsplit(".", 1)[-1]]
    assert body == whole | {"violationEventAdditionalInfo": {OMITTED: omitted}}


def test_a_message_that_is_long_for_another_reason_is_not_sent() -> None:
    assert shortened(notice(thing="x" * MESSAGE_BYTES_MAX).message) is None


@pytest.mark.parametrize(
    ("arn", "is_one"),
    [
        (ARN, True),
        (ARN + ".fifo", True),
        ("arn:aws-cn:sns:cn-north-1:123456789012:alarms", True),
        ("arn:aws:sns:eu-west-1:1234:alarms", False),
        ("arn:aws:sqs:eu-west-1:123456789012:alarms", False),
        (ARN + ":subscription", False),
        ("alarms", False),
    ],
)
def test_what_the_arn_of_a_topic_looks_like(arn: str, is_one: bool) -> None:
    assert is_topic(arn) is is_one
