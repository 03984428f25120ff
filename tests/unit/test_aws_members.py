"""Members of requests: each constraint of a shape holds at its edges; a message says where and never repeats much."""

import math
import time
from typing import Any

import msgspec
import pytest
from botocore.model import ServiceModel, Shape
from hypothesis import given
from hypothesis import strategies as st

from config.model import NS
from daemon.http.aws import members
from daemon.http.aws.members import Fault

SHAPES: dict[str, Any] = {
    "Name": {"type": "string", "min": 2, "max": 4, "pattern": "[a-z]+|[0-9]+"},
    "Anchored": {"type": "string", "pattern": "^a|b$"},
    "Slow": {"type": "string", "pattern": "(a+)+b"},
    "Text": {"type": "string"},
    "Colour": {"type": "string", "enum": ["RED", "BLUE"]},
    "Count": {"type": "integer", "min": 1, "max": 250},
    "Whole": {"type": "integer"},
    "Long": {"type": "long"},
    "Number": {"type": "double"},
    "Flag": {"type": "boolean"},
    "When": {"type": "timestamp"},
    "Bytes": {"type": "blob"},
    "Names": {"type": "list", "member": {"shape": "Name"}, "min": 1, "max": 2},
    "Labels": {"type": "map", "key": {"shape": "Name"}, "value": {"shape": "Count"}, "max": 2},
    "Tree": {
        "type": "structure",
        "required": ["name", "colour"],
        "members": {
            "name": {"shape": "Name"},
            "colour": {"shape": "Colour"},
            "spelled": {"shape": "Flag", "locationName": "Other"},
            "inner": {"shape": "Tree"},
            "all": {"shape": "Trees"},
        },
    },
    "Trees": {"type": "list", "member": {"shape": "Tree"}},
}
LEAF = {"name": "ab", "colour": "RED"}


def shape(name: str) -> Shape:
    return ServiceModel({"metadata": {}, "operations": {}, "shapes": SHAPES}, "test").shape_for(name)


def read(name: str, value: Any) -> Any:
    return members.from_json(shape(name))(value, "at")


def read_text(name: str, text: str) -> Any:
    return members.from_text(shape(name))(text, "at")


GOOD = [
    ("Name", "ab", "ab"),
    ("Name", "1234", "1234"),
    ("Text", "", ""),
    ("Text", "ü€😀\0", "ü€😀\0"),
    ("Anchored", "a", "a"),
    ("Anchored", "b", "b"),
    ("Colour", "RED", "RED"),
    ("Count", 1, 1),
    ("Count", 250, 250),
    ("Count", 250.0, 250),
    ("Whole", -(2**31), -(2**31)),
    ("Whole", 2**31 - 1, 2**31 - 1),
    ("Long", 2**63 - 1, 2**63 - 1),
    ("Number", 7, 7.0),
    ("Number", -0.5, -0.5),
    ("Flag", False, False),
    ("When", 0, 0),
    ("When", 1_767_323_100.25, 1_767_323_100_250_000_000),
    ("When", "2026-01-02T03:05:00Z", 1_767_323_100 * NS),
    ("Bytes", "AAE=", b"\0\1"),
    ("Names", ["ab"], ["ab"]),
    ("Names", ["ab", "cd"], ["ab", "cd"]),
    ("Labels", {}, {}),
    ("Labels", {"ab": 1}, {"ab": 1}),
    ("Labels", {"ab": None}, {}),
    ("Tree", LEAF, LEAF),
    ("Tree", LEAF | {"inner": None}, LEAF),
    ("Tree", LEAF | {"Other": True}, LEAF | {"spelled": True}),
    ("Tree", LEAF | {"all": [LEAF | {"inner": LEAF}]}, LEAF | {"all": [LEAF | {"inner": LEAF}]}),
]


@pytest.mark.parametrize(("name", "value", "meant"), GOOD)
def test_what_the_shape_allows_is_read(name: str, value: Any, meant: Any) -> None:
    got = read(name, value)
    assert got == meant
    assert type(got) is type(meant)


BAD = [
    ("Name", "a", "at: must have at least 2 characters"),
    ("Name", "abcde", "at: must have at most 4 characters"),
    ("Name", "ab1", "at: must match [a-z]+|[0-9]+"),
    ("Name", "ab\n", "at: must match"),
    ("Name", "\nab", "at: must match"),
    ("Anchored", "ax", "at: must match"),
    ("Anchored", "xb", "at: must match"),
    ("Anchored", "b\n", "at: must match"),
    ("Name", 12, "at: must be a string"),
    ("Text", True, "at: must be a string"),
    ("Text", [], "at: must be a string"),
    ("Text", "\ud800", "at: is not valid Unicode"),
    ("Colour", "red", "at: must be one of RED, BLUE"),
    ("Colour", "", "at: must be one of"),
    ("Count", 0, "at: must be from 1 to 250"),
    ("Count", 251, "at: must be from 1 to 250"),
    ("Count", 1.5, "at: must be a whole number"),
    ("Count", True, "at: must be a whole number"),
    ("Count", "1", "at: must be a whole number"),
    ("Count", math.nan, "at: must be a whole"),
    ("Whole", 2**31, "at: must be from"),
    ("Long", 2**63, "at: must be from"),
    ("Long", -(2**63) - 1, "at: must be from"),
    ("Number", math.inf, "at: must be a finite number"),
    ("Number", math.nan, "at: must be a finite number"),
    ("Number", 10**400, "at: must be a finite number"),
    ("Number", "1", "at: must be a number"),
    ("Number", False, "at: must be a number"),
    ("Flag", 1, "at: must be true or false"),
    ("Flag", "true", "at: must be true or false"),
    ("When", -1, "at: must be an instant between 1970 and 9999"),
    ("When", math.nan, "at: must be a finite"),
    ("When", 253_402_300_800, "at: must be an instant between"),
    ("When", 1_767_323_100_000, "at: must be an instant between"),
    ("When", True, "at: must be a number"),
    ("When", "tomorrow", "at: must be an instant like"),
    ("Bytes", "a", "at: must be base64"),
    ("Bytes", 5, "at: must be base64"),
    ("Bytes", "ä", "at: must be base64"),
    ("Names", [], "at: must have at least 1 elements"),
    ("Names", ["ab"] * 3, "at: must have at most 2 elements"),
    ("Names", ["ab", "c"], "at[1]: must have at least 2"),
    ("Names", "ab", "at: must be a list"),
    ("Names", {}, "at: must be a list"),
    ("Names", ["ab", None], "at[1]: must be a string"),
    ("Labels", {"ab": 0}, "at.ab: must be from 1"),
    ("Labels", {"a": 1}, "at, key 'a': must have at least 2"),
    ("Labels", [], "at: must be an object"),
    ("Labels", {"ab": 1, "cd": 1, "ef": 1}, "at: must have at most 2 entries"),
    ("Tree", {}, "at.colour: is required"),
    ("Tree", {"colour": "RED"}, "at.name: is required"),
    ("Tree", LEAF | {"name": None}, "at.name: is required"),
    ("Tree", LEAF | {"nothing": None}, "at.nothing: is not a member"),
    ("Tree", LEAF | {"spelled": True}, "at.spelled: is not a member"),
    ("Tree", LEAF | {"all": [LEAF, LEAF | {"inner": LEAF | {"name": "?!"}}]}, "at.all[1].inner.name: must match"),
    ("Tree", [], "at: must be an object"),
    ("Tree", None, "at: must be an object"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_what_it_does_not_allow_is_refused_with_its_place_and_rule(name: str, value: Any, words: str) -> None:
    with pytest.raises(Fault) as caught:
        read(name, value)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("Count", "250", 250),
        ("Whole", "-7", -7),
        ("Flag", "true", True),
        ("Flag", "False", False),
        ("Name", "12", "12"),
        ("When", "1767323100", 1_767_323_100 * NS),
        ("When", "1767323100.5", 1_767_323_100 * NS + NS // 2),
        ("When", "1.7673231e9", 1_767_323_100 * NS),
        ("When", "2026-01-02T03:05:00Z", 1_767_323_100 * NS),
        ("When", "2026-01-02T03:05:00.25Z", 1_767_323_100 * NS + NS // 4),
        ("When", "2026-01-02T05:05:00+02:00", 1_767_323_100 * NS),
        ("When", "2026-01-02T03:05:00", 1_767_323_100 * NS),
        ("When", "2026-01-02", 1_767_312_000 * NS),
    ],
)
def test_text_is_read_as_what_it_stands_for(name: str, text: str, meant: Any) -> None:
    assert read_text(name, text) == meant


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("Count", text) for text in ("", " 1", "+1", "1.0", "1_0", "٣", "0x1", "--1", "9" * 5000, "0", "251")],
        *[("Flag", text) for text in ("", "1", "yes", " true", "truе")],
        *[
            ("When", text)
            for text in (
                "",
                " 5",
                "5 ",
                "1_0",
                "٣",
                "nan",
                "inf",
                "-inf",
                "-5",
                "1e999",
                "9" * 400,
                "1767323100000",
                "2026-13-01",
                "10000-01-01",
            )
        ],
        *[
            ("When", text)
            for text in (
                "0001-01-01T00:00:00+23:59",
                "9999-12-31T23:59:59-23:59",
                "1969-12-31T23:59:59Z",
                "2026-01-02T25:00",
            )
        ],
    ],
)
def test_text_that_stands_for_nothing_is_refused(name: str, text: str) -> None:
    with pytest.raises(Fault, match=r"^at: "):
        read_text(name, text)


@given(st.integers(0, members.LATEST_NS // 1000))
def test_an_instant_keeps_its_microseconds_until_they_are_finer_than_a_double(us: int) -> None:
    assert abs(read("When", us / 1e6) - us * 1000) <= 1000 * math.ceil(math.ulp(us / 1e6) * 1e6)


@pytest.mark.parametrize("later", [members.LATEST_NS / 1e9 + 1, 253_402_300_799])
def test_an_instant_that_64_bits_do_not_hold_is_the_latest_one(later: float) -> None:
    assert read("When", later) == members.LATEST_NS < 2**63 - 10**6
    assert read_text("When", "9999-12-31T23:59:59Z") == members.LATEST_NS


@given(st.integers(0, 253_402_300_799_999))
def test_an_instant_is_written_with_its_milliseconds(ms: int) -> None:
    assert members.to_json(shape("When"))(ms * 1_000_000 + 999_999) == pytest.approx(ms / 1000, abs=0.0005, rel=0)


def test_a_pattern_that_takes_too_long_does_not_hold_the_daemon_up() -> None:
    began = time.perf_counter()
    with pytest.raises(Fault, match="must match"):
        read("Slow", "a" * 5000)
    assert time.perf_counter() - began < 5  # without a bound: years


def test_a_message_does_not_repeat_what_was_sent() -> None:
    for name, value in (("Tree", LEAF | {"x" * 10_000: 1}), ("Labels", {"x" * 10_000: 1}), ("Name", "x" * 10_000)):
        with pytest.raises(Fault) as caught:
            read(name, value)
        assert len(str(caught.value)) < 200


def test_the_same_fault_is_told_whatever_the_order_of_a_set() -> None:
    with pytest.raises(Fault, match=r"at\.colour: is required"):
        read("Tree", {})


def test_an_answer_is_written_without_what_is_absent_under_the_models_names() -> None:
    write = members.to_json(shape("Tree"))
    assert write({"name": "a", "spelled": True, "inner": None, "all": [{"name": "b"}]}) == {
        "name": "a",
        "Other": True,
        "all": [{"name": "b"}],
    }
    assert write({}) == {}
    assert members.to_json(shape("Bytes"))(b"\0\1") == "AAE="


def test_an_answer_with_a_member_that_the_shape_lacks_is_a_bug_however_deep() -> None:
    write = members.to_json(shape("Tree"))
    for wrong in ({"nam": 1}, {"inner": {"nam": 1}}, {"all": [{"name": "a"}, {"nam": 1}]}):
        with pytest.raises(KeyError):
            write(wrong)


def test_what_is_spelled_already_is_passed_on_and_a_struct_with_other_names_is_a_bug() -> None:
    class Right(msgspec.Struct, rename={"spelled": "Other"}):
        name: str
        spelled: bool = True

    class Wrong(msgspec.Struct):
        name: str
        spelled: bool = True

    write = members.to_json(shape("Tree"))
    right, raw = Right("a"), msgspec.Raw(b"{}")
    assert write({"inner": raw, "all": [right]}) == {"inner": raw, "all": [right]}
    with pytest.raises(KeyError, match="spelled"):
        write({"all": [right, Wrong("a")]})
