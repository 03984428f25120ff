"""Texts with places: YAML 1.2, JSON, duplicates, bombs."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.document import DEPTH_MAX, parse, read
from config.problem import ConfigError, UnreadableError

YAML, JSON = Path("/c/x.yaml"), Path("/c/x.json")


def refusals(text, file=YAML):
    with pytest.raises(ConfigError) as refused:
        parse(text, file)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("190:20:30", "190:20:30"),
        ("2026-01-02", "2026-01-02"),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("0b1", "0b1"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text, value):
    found = parse(f"a: {text}\n", YAML).data["a"]
    assert (found, type(found)) == (value, type(value))


def test_a_key_is_text_whatever_it_looks_like():
    assert parse("1: a\nnull: b\ntrue: c\n", YAML).data == {"1": "a", "null": "b", "true": "c"}


def test_an_empty_text_holds_nothing():
    assert [parse(text, YAML).data for text in ("", "# nothing\n", "---\n...\n")] == [None, None, None]


@pytest.mark.parametrize(
    ("file", "text"),
    [(YAML, "a: 1\nb:\n  - {c: 2, d: [x, 3]}\n"), (JSON, '{"a": 1,\n"b":\n  [ {"c": 2, "d": ["x", 3]}]}')],
)
def test_a_place_is_where_the_value_begins(file, text):
    document = parse(text, file)
    place = document.place(("b", 0, "d", 1))
    assert (place.line, place.path) == (3, "b[0].d[1]")
    assert text.splitlines()[place.line - 1][place.column - 1] == "3"
    key = document.place(("b", 0, "d"), key=True)
    assert text.splitlines()[key.line - 1][key.column - 1] in 'd"'


def test_the_place_of_what_is_not_there_is_the_nearest_that_is():
    place = parse("a:\n  b: {c: 1}\n", YAML).place(("a", "b", "zzz", 4))
    assert (place.line, place.column, place.path) == (2, 6, "a.b.zzz[4]")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\{}[],:é', max_size=4), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_every_value_of_a_json_text_has_the_place_where_it_is_written(value):
    text = json.dumps(value, indent=1)
    document = parse(text, JSON)
    lines = text.split("\n")
    assert document.data == value
    for path, part in walk(value):
        place = document.place(path)
        begins = lines[place.line - 1][place.column - 1]
        assert begins == json.dumps(part)[0]


def walk(value, path=()):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in items:
        yield from walk(part, (*path, step))


def test_every_key_that_is_twice_is_refused_at_its_second_place():
    assert refusals("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        '/c/x.yaml:2:11: the key "c" is here a second time; the first is in line 2',
        '/c/x.yaml:3:1: the key "a" is here a second time; the first is in line 1',
    ]
    assert refusals('{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 3}', JSON) == [
        '/c/x.json:2:16: the key "c" is here a second time; the first is in line 2',
        '/c/x.json:3:2: the key "a" is here a second time; the first is in line 1',
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: [1", "1:6: no YAML"),
        ("a: b: c", "1:5: no YAML"),
        ("a: 1\n\tb: 2", "2:1: no YAML"),
        ("ok: 1\na: x\x01", "2:5: no YAML"),
        ("a: *b", "1:4: *b is not defined before"),
        ("a: &b [*b]", "1:8: *b is inside of itself"),
        ("a: !!python/object:os.system x", "1:4: the tag"),
        ("a: !!int '1'", "1:4: the tag"),
        ("? [a]\n: 1", "1:3: a key must be plain text"),
        ("a: 1\n---\nb: 2", "2:1: a second document"),
        ('a: "\\ud800"', "1:1: an escape"),
    ],
)
def test_what_is_no_configuration_yaml_is_refused_at_its_place(text, where):
    (refusal,) = refusals(text)
    assert refusal.startswith(f"/c/x.yaml:{where}")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": ', "1:7: no JSON"),
        ('{"a": NaN}', "1:1: no JSON"),
        ('{"a":\n 1,}', "2:"),
        ("[" * 200_000, "1:1: is nested deeper"),
        ("[" + "9" * 5000 + "]", "1:1: no JSON"),
        ('["\\ud800"]', "1:1: an escape"),
    ],
)
def test_what_is_no_json_is_refused_at_its_place(text, where):
    (refusal,) = refusals(text, JSON)
    assert refusal.startswith(f"/c/x.json:{where}")


def test_nesting_is_bounded():
    assert parse("[" * DEPTH_MAX + "]" * DEPTH_MAX, YAML).data is not None
    assert "nested deeper" in refusals("[" * (DEPTH_MAX + 2) + "]" * (DEPTH_MAX + 2))[0]


def test_what_aliases_expand_to_is_bounded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "aliases expand to more than 1000000 values" in refusals("\n".join(lines))[0]


def test_an_alias_stands_for_the_value_and_its_place():
    document = parse("a: &x\n  b: 1\nc: *x\n", YAML)
    assert document.data["c"] == {"b": 1}
    assert document.place(("c", "b")).line == 2


def test_a_file_that_cannot_be_read_is_told_from_one_that_is_wrong(tmp_path):
    with pytest.raises(UnreadableError, match="cannot be read: No such file"):
        read(tmp_path / "absent.yaml")
    with pytest.raises(UnreadableError, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_bytes_that_are_no_utf_8_are_refused_with_their_line(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"x\.yaml:2:1: is no UTF-8 text"):
        read(file)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read(file).data == {"a": 1}
