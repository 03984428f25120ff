"""Topic filters: the table of spec.md §6.2, and the tree against the rule it is made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.topic_filters import CACHE_MAX, VARIABLE, TopicFilters, matches
from config.model import Dimension

TABLE = [
    ("data/+/activity", "data/b1/activity", True),
    ("data/+/activity", "data/b1/x/activity", False),
    ("data/#", "data", False),
    ("data/#", "data/", True),
    ("data/#", "data/a/b", True),
    ("+", "data", True),
    ("+/+", "/data", True),
    ("+/+", "data", False),
    ("#", "a/b", True),
    ("#", "$aws/things", False),
    ("+/things", "$aws/things", False),
    ("$aws/#", "$aws/things", True),
    ("$aws/+", "$aws/things", True),
    ("Data", "data", False),
    ("a//b", "a//b", True),
    ("a/+/b", "a//b", True),
]
level = st.sampled_from(["a", "b", "", "$x", "+", VARIABLE, f"p-{VARIABLE}", "c1", "p-c1"])
filters = st.lists(level, min_size=1, max_size=4).map("/".join) | st.lists(level, max_size=3).map(
    lambda levels: "/".join([*levels, "#"])
)
topics = st.lists(st.sampled_from(["a", "b", "", "$x", "c1", "p-c1", "+", "x", "y"]), min_size=1, max_size=5).map(
    "/".join
)
clients = st.sampled_from(["c1", "a", "", "x/y", "+", "#", "a/b"])


@pytest.mark.parametrize(("topic_filter", "topic", "inside"), TABLE)
def test_the_table_of_the_specification_holds(topic_filter: str, topic: str, inside: bool) -> None:
    assert matches(topic_filter, topic, "c42") is inside
    assert TopicFilters([Dimension(name="d", string_values=(topic_filter,))]).bits(topic, "c42") == int(inside)


@pytest.mark.parametrize(("topic", "inside"), [("dev/c42/up", True), ("dev/c43/up", False)])
def test_the_variable_is_the_client_that_is_measured(topic: str, inside: bool) -> None:
    assert matches(f"dev/{VARIABLE}/up", topic, "c42") is inside


def test_wildcards_in_a_client_id_are_ordinary_characters() -> None:
    assert not matches(f"dev/{VARIABLE}/up", "dev/x/up", "+")
    assert matches(f"dev/{VARIABLE}/up", "dev/+/up", "+")
    assert not matches(f"dev/{VARIABLE}", "dev/x/y", "#")


def test_the_mqtt_standard_takes_the_parent_too() -> None:
    assert matches("data/#", "data", "c", parent_too=True)
    assert TopicFilters([Dimension(name="d", string_values=("data/#",))], parent_too=True).bits("data", "c") == 1
    assert not matches("#", "$aws", "c", parent_too=True)


@given(st.lists(st.lists(filters, min_size=1, max_size=4), min_size=1, max_size=4), topics, clients, st.booleans())
def test_the_tree_finds_what_the_rule_says(of: list[list[str]], topic: str, client: str, parent_too: bool) -> None:
    dimensions = [Dimension(name=f"d{n}", string_values=tuple(one)) for n, one in enumerate(of)]
    expected = sum(
        1 << bit
        for bit, one in enumerate(of)
        if any(matches(each, topic, client, parent_too=parent_too) for each in one)
    )
    assert TopicFilters(dimensions, parent_too=parent_too).bits(topic, client) == expected


def test_the_cache_is_bounded_and_its_bound_counted() -> None:
    found = TopicFilters([Dimension(name="d", string_values=("a/+",))])
    for n in range(CACHE_MAX + 1):
        found.bits(f"a/{n}", "c")
    assert found.flushed == 1
    assert found.bits("a/1", "c") == 1


def test_without_the_variable_a_topic_is_looked_up_once_for_all_clients() -> None:
    found = TopicFilters([Dimension(name="d", string_values=("a/+",))])
    for n in range(1000):
        found.bits("a/b", f"c{n}")
    assert len(found._cache) == 1
