"""Floats in order as integers, addresses as 128 bits, thing names as canonical UTF-8."""

from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from actors.messages import ABSENT
from actors.numbers import address_key, bridge_token, compiled_key_of, float_of, key_of, thing_name
from actors.topics import subject_of_topic

finite = st.floats(allow_nan=False, allow_infinity=False)


@njit("i8(f8)")
def compiled(value):
    return compiled_key_of(value)


@given(finite, finite)
def test_keys_are_in_the_order_of_their_numbers(a: float, b: float):
    assert (key_of(a) < key_of(b)) == (a < b)
    assert (key_of(a) == key_of(b)) == (a == b)


@given(finite)
def test_a_key_is_taken_back_and_kernels_have_the_same(value: float):
    assert float_of(key_of(value)) == value
    assert compiled(value) == key_of(value)
    assert -(2**63) < key_of(value) < 2**63
    assert key_of(value) != ABSENT


@pytest.mark.parametrize(("value", "key"), [(0.0, 0), (-0.0, 0), (5e-324, 1), (-5e-324, -1), (1.0, 0x3FF << 52)])
def test_zero_is_one_number_and_the_next_are_one_apart(value: float, key: int):
    assert key_of(value) == key
    assert compiled(value) == key


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_the_mapped_one(number: int):
    address = IPv4Address(number)
    assert address_key(str(address)) == (0, 0xFFFF << 32 | number) == address_key(f"::ffff:{address}")


@given(st.integers(0, 2**128 - 1))
def test_an_ipv6_address_is_its_bits(number: int):
    hi, lo = address_key(str(IPv6Address(number)))
    assert hi << 64 | lo == number
    assert np.array([hi, lo], np.uint64).tolist() == [hi, lo]


@pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.04", "::1::", "host", "10.0.0.0/8"])
def test_what_is_no_address_has_no_key(text: str):
    with pytest.raises(ValueError):
        address_key(text)


# Characters of an MQTT topic level that a client may publish to.
levels = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/+#"), min_size=1, max_size=40)


@given(levels.filter(lambda name: len(name.encode()) <= 128))
def test_a_name_comes_back_from_the_embedded_broker_and_from_a_bridge(name: str):
    token = subject_of_topic(name)
    assert "." not in token
    assert thing_name(token.encode(), bridged=False) == name.encode()
    assert thing_name(bridge_token(name).encode(), bridged=True) == name.encode()


@given(st.text(max_size=20))
def test_a_bridge_writes_no_character_that_means_something_in_a_subject(name: str):
    assert set(bridge_token(name)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:%")


@given(st.binary(max_size=140), st.booleans())
def test_whatever_the_token_a_name_is_short_printable_and_one_level(token: bytes, bridged: bool):
    name = thing_name(token, bridged)
    assert name is None or (0 < len(name) <= 128 and not set("/+#\0\n\x7f\x85") & set(name.decode()))


@pytest.mark.parametrize(
    ("token", "bridged"),
    [
        (b"", False), (b"", True), (b"/", False), (b"a/b", False), (b"///", False), (b"a%2Fb", True), (b"\xff", False),
        (b"%FF", True), (b"%C3", True), (b"%", True), (b"a%2", True), (b"a%zz", True), (b"% 1", True), (b"%+1", True),
        (b"a%00", True), (b"a\x01b", False), (b"\x7f", False), ("\x85".encode(), False), (b"%23", True),
        (b"a%2B", True),
        (b"x" * 129, False), (("ä" * 65).encode(), False), (b"%61" * 129, True),
    ],
)  # fmt: skip
def test_a_token_that_names_no_thing(token: bytes, bridged: bool):
    assert thing_name(token, bridged) is None


@pytest.mark.parametrize(
    ("token", "bridged", "name"),
    [
        (b"a//b", False, b"a.b"), (b"////", False, b".."), (b"a%2Eb", False, b"a%2Eb"), (b"a%2Eb", True, b"a.b"),
        (b"a%2eb", True, b"a.b"), (b"%25", True, b"%"), (b"*", False, b"*"), (b">", False, b">"),
        (b"x" * 128, False, b"x" * 128),
        (b"%61" * 128, True, b"a" * 128), (b"a b", False, b"a b"),
    ],
)  # fmt: skip
def test_a_token_that_names_one(token: bytes, bridged: bool, name: bytes):
    assert thing_name(token, bridged) == name
