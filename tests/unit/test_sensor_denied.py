"""Topics that nats-server refuses without a word: its own matching of subjects is the judge, in tests/edge."""

import pytest

from daemon.nats.conf import PUBLISH_DENIED
from daemon.sensor.denied import own_refusals

refuses = own_refusals(PUBLISH_DENIED)


@pytest.mark.parametrize(
    "topic",
    [
        "$JS/API/STREAM/DELETE/LOG",
        "$KV/leases/x",
        "$SYS/REQ",
        "_INBOX/x",
        "detectd/log/tick",
        "$MQTT/msgs/x",
        "$aws/things/p1/defender/metrics/json/accepted",
        "$aws/things/a.b/defender/metrics/cbor/rejected",
        "$aws/events/presence/connected/p1",
        "$JS//API",
    ],
)
def test_what_is_the_servers_or_ours_is_refused(topic: str) -> None:
    assert refuses(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/p1/defender/metrics/json",
        "$aws/things/p1/shadow/update",
        "$aws/events",
        "$JS",
        "$JS.API.STREAM.DELETE.LOG",
        "detectd",
        "detectdx/log",
        "a/$JS/API",
        "/$JS/API",
        "plant/1",
        "",
    ],
)
def test_all_else_is_free(topic: str) -> None:
    assert not refuses(topic)
