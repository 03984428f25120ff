"""The fast reader of plain YAML makes the very tree that the full parser makes, or leaves the text to it."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.document import full_tree
from config.plain_yaml import plain_tree
from config.problem import ConfigError

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "config" / "examples").rglob("*.yaml"))
FILE = Path("/c/x.yaml")


def shape(node):
    """A tree as plain values, places and types included."""
    return (
        repr(node.data), node.line, node.column,
        [shape(item) for item in node.items],
        [(key, named.line, named.column, shape(value)) for key, (named, value) in node.members.items()],
    )  # fmt: skip


def assert_same(text):
    fast = plain_tree(text)
    if fast is not None:
        assert shape(fast) == shape(full_tree(text, FILE))
    return fast is not None


SCALARS = [
    "1", "-1", "0x1f", "010", "1e3", "true", "no", "null", "~", "a", "a b", "a  b", "a: b", "a:b", "a,b", "a, b",
    "a#b", "a #b", "x:", ":x", "- x", "-x", "-", "--", "?x", "? x", "&a", "*a", "!t", "|", ">", "%x", "@x", "`",
    "'q'", '"q"', "'it''s'", '"a\\n"', "'a' b", "don't", '"a', "'", "thinggroup/pumps", "aws:all-bytes-out",
    "arn:aws:iot:local:0:all/things", "10.0.0.0/8", "2001:db8::/32", "::1", "2026-01-02T03:04:05Z", "$aws", "é",
    "\xa0", "ab\x85c", "a\tb", "=", "<<", "...", "---", "[]", "{}", "[1, 2]", "[1,2]", "[ 1 , 2 ]", "[1, ]", "[,]",
    "[a b, 'c, d']", "{a: 1}", "{a: 1, b: [x, {c: d}]}", "{a}", "{a:1}", '{"a": 1}', "{a: }", "{a: 1, a: 2}",
    "[a: 1]", "[[1], [2]]", "[1", "{a: 1", "[1] x",
    "[a:b]", "[a:b, c]", "{a: b:c}", "[127.0.0.1:1883, x]", "[a::b]", "[2001:db8::/32]", "[profiles/*.yaml]", "a*",
    "a::b", "a::", "a:: b", "[a::]", "[a:: b]", "a:,b", "[a:]", "[a: b]", "[-1, - 1]", "[#]", "{a: x y, b: 'z'}",
    "[a#b]", "[a #b]", "{ }", "[ ]", "(x)", "a(b)", "50%", "a=b", "a+b", "a;b",
]  # fmt: skip
PREFIXES = [
    "",
    "k: ",
    "b: ",
    "c:",
    "- ",
    "-",
    "- k: ",
    "- - ",
    "-  k: ",
    "k:  ",
    "k : ",
    "'k': ",
    "# ",
    "1: ",
    "<<: ",
    "null: ",
]
ENDS = ["", " ", " # note", "# note", " #", " # it's", ' # "q"', "   "]
LINES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", " ", "  ", "    ", "   "]),
    st.sampled_from(PREFIXES),
    st.just("") | st.sampled_from(SCALARS),
    st.sampled_from(ENDS),
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_the_examples_are_written_in_is_plain(path):
    assert assert_same(path.read_text())


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("indent", ["", "  "])
def test_one_line_is_read_as_the_full_parser_reads_it(indent, prefix, end):
    for scalar in ["", *SCALARS]:
        assert_same(f"{indent}{prefix}{scalar}{end}\n")


@settings(max_examples=1500, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=7).map("\n".join))
@example("k:\n- a\nb: 1")
@example("- k:\n  - a\n- b")
@example("k: foo\n  bar: baz")
@example("k: foo\n  - bar")
@example("  k: 1\n b: 2")
@example("k:\n    a: 1\n  b: 2")
@example("-\n  k: 1\n-\n")
@example("k:\nb:\n  - \n  -\n")
def test_lines_are_read_as_the_full_parser_reads_them(text):
    assert_same(text)


BLOCKS = st.recursive(
    st.sampled_from(["1", "a b", "'q'", "[1, {a: b}]", "{}", "thinggroup/pumps", ""]).map(lambda text: [text]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: nested("- ", items)),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: nested("k{}: ", items)),
    ),
    max_leaves=12,
)


def nested(prefix, items):
    """Lines of a list, or of a mapping."""
    lines = []
    for at, item in enumerate(items):
        begin = prefix.format(at)
        if len(item) == 1 and not item[0].startswith(("- ", "k")):
            lines.append(begin + item[0])
        elif begin == "- " and item[0].startswith("k"):
            lines += [begin + item[0], *("  " + line for line in item[1:])]
        else:
            lines += [begin.rstrip(), *("  " + line for line in item)]
    return lines


@settings(max_examples=300, deadline=None)
@given(BLOCKS.map(lambda lines: lines if lines[0].startswith(("-", "k")) else ["k: " + lines[0]]))
def test_blocks_of_lists_and_mappings_are_plain(lines):
    assert assert_same("\n".join(lines))


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "{a: 1", "a: 1\n- b", "a: 1\n  b: 2", "- a\nb: 1"])
def test_what_is_wrong_is_left_to_the_full_parser(text):
    assert plain_tree(text) is None
    with pytest.raises(ConfigError):
        full_tree(text, FILE)
