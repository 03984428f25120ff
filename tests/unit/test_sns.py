"""What an SNS topic is sent, and what its answers mean."""

import json
from urllib.parse import parse_qs

import pytest
from botocore.auth import SigV4Auth
from botocore.credentials import Credentials
from transitions import raised

from actors.delivery import Delivered, Reason, Refused, Retry
from actors.notice import Notice, message, webhook_id
from config.model import MetricValue, Topic
from config.topics import is_topic
from daemon.notifiers import sns
from daemon.notifiers._base import Tools
from daemon.notifiers.sns import MESSAGE_BYTES_MAX, SnsNotifier, judged, shortened, signed

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
        (200, b"<PublishResponse/>", Delivered()),
        (404, answer("NotFound"), Refused(Reason.CLIENT_ERROR, "HTTP 404 NotFound")),
        (403, answer("AuthorizationError"), Refused(Reason.CLIENT_ERROR, "HTTP 403 AuthorizationError")),
        (400, answer("InvalidParameter"), Refused(Reason.CLIENT_ERROR, "HTTP 400 InvalidParameter")),
        (400, answer("Throttling"), Retry(Reason.THROTTLED, "HTTP 400 Throttling")),
        (429, b"", Retry(Reason.THROTTLED, "HTTP 429")),
        (403, answer("ExpiredToken"), Retry(Reason.CLIENT_ERROR, "HTTP 403 ExpiredToken")),
        (500, answer("InternalError"), Retry(Reason.SERVER_ERROR, "HTTP 500 InternalError")),
        (502, b"<html>", Retry(Reason.SERVER_ERROR, "HTTP 502")),
        (403, b"<html>a proxy</html>", Retry(Reason.CLIENT_ERROR, "HTTP 403")),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, outcome: object) -> None:
    assert judged(status, body) == outcome


def test_a_request_is_the_query_protocols_publish_and_signed_for_the_topics_region() -> None:
    notifier = SnsNotifier(Topic("ops", ARN), Tools(None, lambda: 0), sns.Credentials())  # type: ignore[arg-type]
    one = notice()
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", "sekret"), "sns", "eu-west-1")
    headers, body = signed(signer, "https://sns.example/", notifier._form(one, one.message))
    form = {name: value for name, (value,) in parse_qs(body.decode()).items()}
    assert form.pop("Message") == one.message.decode()
    assert form == {"Action": "Publish", "Version": "2010-03-31", "TopicArn": ARN}
    assert "/eu-west-1/sns/aws4_request" in headers["Authorization"]
    assert "sekret" not in str(headers)


def test_a_fifo_topic_keeps_the_order_of_a_thing_and_drops_repeats() -> None:
    notifier = SnsNotifier(Topic("ops", ARN + ".fifo"), Tools(None, lambda: 0), sns.Credentials())  # type: ignore[arg-type]
    forms = [notifier._form(one, one.message) for one in (notice(), notice(thing="other"), notice())]
    assert forms[0] == forms[2]
    assert forms[0]["MessageGroupId"] != forms[1]["MessageGroupId"]
    assert all(len(form["MessageDeduplicationId"]) <= 128 for form in forms)


def test_a_message_that_is_too_long_goes_without_its_value() -> None:
    long = notice(value=MetricValue(strings=("x" * MESSAGE_BYTES_MAX,)))
    assert len(long.message) > MESSAGE_BYTES_MAX
    body = json.loads(shortened(long.message))
    assert "metricValue" not in body
    assert body["violationId"] == long.violation_id
    assert shortened(notice().message) == notice().message


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
