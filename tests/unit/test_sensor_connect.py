"""The CONNECT packet, read and rewritten; and what the sensor itself says to a client."""

import naive_mqtt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.sensor import answers
from daemon.sensor.connect import CONNECT_MAX, Malformed, TooMuch, extent, parse
from daemon.sensor.upstream import tame

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
some = st.none() | words
hellos = st.fixed_dictionaries(
    {
        "client_id": words,
        "level": st.sampled_from([3, 4, 5]),
        "user": some,
        "password": st.none() | st.binary(max_size=20),
        "will": st.none() | st.tuples(words, st.binary(max_size=200)),
        "properties": st.just(b"") | st.binary(min_size=150, max_size=150),
        "keep_alive": st.integers(0, 65_535),
    }
)


def body_of(packet: bytes) -> bytes:
    places = extent(packet)
    assert places is not None
    assert places[1] == len(packet)
    return packet[places[0] :]


@given(hellos)
@settings(deadline=None)
def test_what_was_written_is_read(hello) -> None:
    packet = naive_mqtt.connect(**hello)
    found = parse(body_of(packet))
    assert (found.client_id, found.level, found.username, found.password) == (
        hello["client_id"],
        hello["level"],
        hello["user"],
        hello["password"],
    )
    assert found.will_topic == (hello["will"][0] if hello["will"] else None)
    assert found.whole == packet


@given(hellos, words, st.binary(max_size=30), words)
@settings(deadline=None)
def test_another_login_and_name_bring_leave_to_be_silent_and_change_nothing_else(hello, user, password, name) -> None:
    found = parse(body_of(naive_mqtt.connect(**hello)))
    other = hello | {"user": user, "password": password, "keep_alive": 0, "client_id": name}
    assert found.as_user(user.encode(), password, name) == naive_mqtt.connect(**other)
    assert found.keep_alive_s == hello["keep_alive"]


@given(words, words)
def test_nats_server_gets_another_name_for_each_client_id(one, other) -> None:
    assert (tame(one) == tame(other)) is (one == other)
    assert not set(tame(one)) & set(" \t\n\r\f.*>")


@pytest.mark.parametrize("client_id", ["", "p1", "iotconsole-1:2_3", "日本"])
def test_it_gets_most_client_ids_as_they_are(client_id: str) -> None:
    assert tame(client_id) == client_id


@given(hellos, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_packet_that_is_cut_or_has_more_is_malformed(hello, chance) -> None:
    body = body_of(naive_mqtt.connect(**hello))
    for wrong in (body[: chance.randrange(len(body))], body + b"x"):
        with pytest.raises(Malformed):
            parse(wrong)


@pytest.mark.parametrize(
    "packet",
    [
        naive_mqtt.connect(level=6),
        naive_mqtt.connect("a\0b"),
        naive_mqtt.packet(0x10, b"\0\4HTTP\4\0\0\0\0\0"),
        naive_mqtt.packet(0x10, b"\0\4MQTT\4\0\0\0\0\1\xff"),
        naive_mqtt.packet(0x10, b"\0\4MQTT\5\0\0\0\xff\xff\xff\xff\xff\0\0"),
    ],
    ids=["version", "nul", "protocol", "no text", "length"],
)
def test_what_is_no_greeting_is_malformed(packet: bytes) -> None:
    with pytest.raises(Malformed):
        parse(body_of(packet))


def test_a_bridge_of_mosquitto_is_known_by_its_version() -> None:
    packet = bytearray(naive_mqtt.connect("bridge"))
    packet[8] |= 0x80
    assert (parse(body_of(bytes(packet))).level, parse(body_of(bytes(packet))).whole) == (4, bytes(packet))


def test_the_length_of_a_greeting_is_known_early_or_not_yet() -> None:
    packet = naive_mqtt.connect("x" * 300)
    assert [extent(packet[:n]) for n in (1, 2, 3)] == [None, None, (3, len(packet))]


def test_a_greeting_that_is_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(TooMuch):
        extent(b"\x10" + naive_mqtt.varint(CONNECT_MAX + 1))
    with pytest.raises(Malformed):
        extent(b"\x10\xff\xff\xff\xff")
    with pytest.raises(Malformed):
        extent(b"GET")


def test_no_secret_shows_in_what_is_printed() -> None:
    found = parse(body_of(naive_mqtt.connect("p1", user="bob", password=b"hunter2")))
    assert "hunter2" not in repr(found)


@given(st.lists(words, min_size=1, max_size=5), st.sampled_from([4, 5]), st.integers(1, 65_535))
@settings(deadline=None)
def test_the_filters_of_a_subscribe_are_read(filters, level, number) -> None:
    packet = naive_mqtt.subscribe(number, *filters, level=level)
    _, at = naive_mqtt._varint(packet, 1)
    assert answers.filters_of(packet[at:], level) == filters


@pytest.mark.parametrize("body", [b"\0\1", b"\0\1\0\5ab\1", b"\0\1\0\1\xff\1", b"\0\1\0\1a"])
def test_a_subscribe_that_makes_no_sense_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        answers.filters_of(body, 4)


def test_a_subscribe_whose_properties_have_a_length_of_five_bytes_is_malformed() -> None:
    with pytest.raises(Malformed):
        answers.filters_of(b"\0\1\x80\x80\x80\x80\0\0\1a\1", 5)


def test_our_own_answers_are_what_the_standard_says() -> None:
    assert answers.connack_refused(5, 4) == b"\x20\2\0\5"
    assert answers.connack_refused(4, 5) == b"\x20\3\0\x86\0"
    assert answers.publish_refused(0, 0, 4) == b""
    assert answers.publish_refused(1, 258, 4) == b"\x40\2\1\2"
    assert answers.publish_refused(2, 258, 5) == b"\x50\3\1\2\x87"
    assert answers.released(258) == b"\x70\2\1\2"
    assert answers.subscribe_refused(258, 2, 4) == b"\x90\4\1\2\x80\x80"
    assert answers.subscribe_refused(258, 2, 5) == b"\x90\5\1\2\0\x87\x87"
