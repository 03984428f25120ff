"""The value that an event shows, and the reason in words."""

import cbor2
import pytest
from builders import Reading, behavior

from actors.criteria._base import Slot
from actors.metrics import kinds
from actors.values import NAMED_MAX, Seen, in_words
from config.model import MetricValue

PORTS = kinds().metrics["aws:listening-tcp-ports"]
BYTES = kinds().metrics["aws:all-bytes-out"]


def slot(metric, operator, value=None, **more):
    return Slot("p", behavior(metric.name, operator, value, **more), metric)


@pytest.mark.parametrize("cbor", [False, True])
def test_a_report_that_was_kept_gives_its_value_again(cbor):
    body = {"header": {"report_id": 1, "version": "1.0"}, "metrics": {"listening_tcp_ports": {"ports": [{"port": 9}]}}}
    seen = Seen(cbor2.dumps(body) if cbor else Reading(tcp=(9,)).payload(1), cbor)
    assert seen.value(PORTS) == MetricValue(ports=(9,))


def test_a_lenient_report_gives_its_value_again_too():
    body = b'{"header": {"report_id": 1, "version": "1.0"}, "custom_metrics": {"m": {"number_list": [1.5]}}}'
    assert Seen(body, False).value(kinds().custom["number-list"]("m")) == MetricValue(numbers=(1.5,))


def test_a_reason_says_what_was_found_and_what_was_expected():
    assert in_words(slot(BYTES, "less-than", 10), MetricValue(count=12), ()) == (
        "aws:all-bytes-out was 12; expected less-than 10"
    )
    statistical = slot(BYTES, "less-than-equals", duration=300, statistic="p99.9")
    assert in_words(statistical, MetricValue(count=12), ()) == (
        "aws:all-bytes-out was 12; expected less-than-equals p99.9 of the group"
    )


def test_a_reason_names_the_offenders_but_not_without_end():
    offenders = tuple(str(port) for port in range(100))
    reason = in_words(slot(PORTS, "in-port-set", range(1, 1000)), MetricValue(ports=(1,)), offenders)
    assert reason.startswith("aws:listening-tcp-ports: 0, 1, 2, 3, 4 and 95 more; expected in-port-set [1, 2, 3, 4, 5")
    assert f"{999 - NAMED_MAX} more]" in reason
    assert len(reason) < 200
