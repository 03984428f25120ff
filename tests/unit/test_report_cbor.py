"""CBOR is looked through before anything is built from it: what passes is small, plain and whole (spec.md §2)."""

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.cbor import flaw
from actors.messages import Rejected
from actors.report import decode

DEPTH = 64

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=30,
)


def is_plain(value: Any) -> bool:
    """What a report may be made of, by looking at the built value."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    return all(map(is_plain, value)) if isinstance(value, list) else True


@settings(max_examples=300, deadline=None)
@given(trees)
def test_plain_values_are_sound_and_cut_or_followed_they_are_not(tree: Any):
    payload = cbor2.dumps(tree)
    assert flaw(payload, DEPTH) is None
    assert flaw(payload + b"\x00", DEPTH) == "something follows it"
    for end in range(len(payload)):
        assert flaw(payload[:end], DEPTH) is not None


@settings(max_examples=1000, deadline=None)
@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from(b"\x81\xa1\x61a\x9f\xbf\xff\x00\x18\x7f\x5f\xf9\xc0\x40\x60"), max_size=12).map(bytes)
)
def test_sound_bytes_are_exactly_those_that_build_a_plain_value(payload: bytes):
    """A string that is no UTF-8 and a simple value without meaning are left to the building."""
    problem = flaw(payload, DEPTH)
    value, error = built(payload)
    if error is not None:
        assert problem is not None or "utf-8" in error or "simple" in error
    elif cbor2.dumps(value) == payload:  # the whole of it, in its plain spelling
        assert (problem is None) == is_plain(value) or problem == "it holds a tag"


def built(payload: bytes) -> tuple[Any, str | None]:
    """(value, why there is none)."""
    try:
        return cbor2.loads(payload), None
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        return None, f"{error!r} {error.__cause__!r}".lower()


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"", "it ends too early, or a length goes beyond its end"),
        (b"\x9b" + b"\xff" * 8, "it ends too early, or a length goes beyond its end"),
        (b"\xbb" + b"\x7f" * 8, "it ends too early, or a length goes beyond its end"),
        (b"\x5b" + b"\xff" * 8 + b"x", "it ends too early, or a length goes beyond its end"),
        (b"\x7b\x00\x00\x00\x01\x00\x00\x00\x00", "it ends too early, or a length goes beyond its end"),
        (b"\x7f\x61a\x41b\xff", "it ends too early, or a length goes beyond its end"),
        (b"\x7f\x7f\x61a\xff\xff", "it ends too early, or a length goes beyond its end"),
        (b"\x1c", "it ends too early, or a length goes beyond its end"),
        (b"\xc2\x41\x01", "it holds a tag"),
        (b"\xd8\x1c\x81\xd8\x1d\x00", "it holds a tag"),  # a list that holds itself
        (b"\xd9\x01\x02\x80", "it holds a tag"),
        (b"\xa1\x01\x02", "a key of a map is not a text string"),
        (b"\xa1\xf6\x02", "a key of a map is not a text string"),
        (b"\x81" * 65 + b"\x00", "values are nested too deeply"),
        (b"\x9f" * 100_000, "values are nested too deeply"),
        (b"\xff", "it holds a byte without meaning"),
        (b"\x81\xff", "it holds a byte without meaning"),
        (b"\xbf\x61a\xff", "it holds a byte without meaning"),
        (b"\x1f", "it holds a byte without meaning"),
    ],
)
def test_a_bomb_is_refused_before_it_is_built(payload: bytes, problem: str):
    assert flaw(payload, DEPTH) == problem
    assert isinstance(decode(payload, True), Rejected)


@pytest.mark.parametrize(
    "payload", [b"\x81" * 64 + b"\x00", b"\xbf\x61a\x9f\x01\xff\xff", b"\x7f\x61a\x60\xff", b"\x5f\xff"]
)
def test_what_is_sound(payload: bytes):
    assert flaw(payload, DEPTH) is None


def test_the_check_is_linear():
    """Quadratic work on these would take longer than a test may."""
    assert flaw(b"\x9a\x00\x0f\xff\xfb" + b"\x00" * 0xFFFFB, DEPTH) is None
    assert flaw(b"\x7f" + b"\x61a" * 500_000 + b"\xff", DEPTH) is None
