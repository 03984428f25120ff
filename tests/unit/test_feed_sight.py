"""Which of the eight cloud-side metrics each kind of source gives: one table."""

from pathlib import Path

import pytest

from actors.metrics import kinds
from config.model import (
    Behavior,
    Bridge,
    Broker,
    Embedded,
    MosquittoLog,
    Nats,
    Rules,
    SecurityProfile,
    Sensor,
    Settings,
    Tap,
)
from daemon.brokers._sight import Place, sights, unseen

EIGHT = (
    "aws:num-messages-sent", "aws:num-messages-received", "aws:message-byte-size", "aws:num-authorization-failures",
    "aws:num-connection-attempts", "aws:num-disconnects", "aws:source-ip-address", "aws:disconnect-duration",
)  # fmt: skip
FILE = Path("/x")
TAP = Tap(("fleet/{clientId}/#",))


def places(broker: Broker) -> list[Place]:
    return list(sights(Settings(broker=broker), kinds().metrics.values()))


def bridge(**more: object) -> Broker:
    return Broker(bridges=(Bridge(name="b", url="mqtt://x", **more),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("broker", "expected"),  # y, p(artly), n: in the order of EIGHT
    [
        (Broker(embedded=Embedded()), "yyyyyyyy"),
        (Broker(embedded=Embedded(sensor=False)), "nnnnnnnn"),
        (Broker(nats=Nats(url="nats://x")), "nnnnnnnn"),
        (Broker(nats=Nats(url="nats://x", system_credentials_file=FILE)), "nnnnyyyy"),
        (bridge(), "nnnnnnnn"),
        (bridge(events=("presence",)), "nnnnyyyy"),
        (bridge(events=("emqx",)), "yyyyyyyy"),
        (bridge(tap=TAP), "pnpnnnnn"),
        (bridge(tap=TAP, events=("presence",)), "pnpnyyyy"),
        (Broker(sensors=(Sensor(name="s", listen="127.0.0.1:1", upstream="mqtt://x"),)), "yyyyyyyy"),
        (Broker(mosquitto_logs=(MosquittoLog(name="m", path=FILE),)), "yyyppyyy"),
    ],
)
def test_each_source_gives_what_it_can(broker: Broker, expected: str) -> None:
    [place] = places(broker)
    assert "".join(place.metrics[metric].seen[0] for metric in EIGHT) == expected
    assert set(place.metrics) == set(EIGHT)


@pytest.mark.parametrize(
    ("metric", "needs"),
    [
        ("aws:num-messages-sent", "log_type debug"),
        ("aws:num-messages-received", "log_type debug"),
        ("aws:message-byte-size", "log_type debug"),
        ("aws:num-authorization-failures", "log_type debug"),
        ("aws:num-connection-attempts", "log_type notice"),
        ("aws:num-disconnects", "log_type notice and log_type error"),
        ("aws:source-ip-address", "log_type notice"),
        ("aws:disconnect-duration", "log_type notice and log_type error"),
    ],
)
def test_a_mosquitto_log_says_which_types_a_metric_needs(metric: str, needs: str) -> None:
    [place] = places(Broker(mosquitto_logs=(MosquittoLog(name="m", path=FILE),)))
    assert place.metrics[metric].needs == needs


@pytest.mark.parametrize("broker", [Broker(embedded=Embedded(sensor=False)), bridge(), bridge(tap=TAP),
                                    Broker(nats=Nats(url="nats://x"))])  # fmt: skip
def test_what_is_not_seen_comes_with_a_reason_and_a_remedy(broker: Broker) -> None:
    [place] = places(broker)
    assert all(sight.but and sight.instead for sight in place.metrics.values() if sight.seen != "yes")


def test_a_behavior_that_no_source_can_feed_is_named() -> None:
    behaviors = (
        Behavior(name="quiet", metric="aws:num-messages-sent"),
        Behavior(name="home", metric="aws:source-ip-address"),
        Behavior(name="ports", metric="aws:listening-tcp-ports"),
    )
    rules = Rules(profiles=(SecurityProfile(security_profile_name="p", behaviors=behaviors),))
    dark = bridge(events=("presence",))
    assert unseen(Settings(rules=rules), places(dark)) == ["p/quiet: aws:num-messages-sent"]
    assert unseen(Settings(rules=rules), places(bridge(events=("presence",), tap=TAP))) == []
