"""Which value is in force where."""

from daemon.in_force import InForce


def test_an_entry_that_changes_a_value_still_has_the_one_before() -> None:
    value = InForce[str]()
    value.follow(5, "old")
    value.follow(10, "new")
    assert [value.at(position) for position in (4, 9, 10, 11)] == ["old", "old", "old", "new"]
    assert value.latest == "new"


def test_the_first_value_was_always_in_force() -> None:
    value = InForce[str]()
    value.follow(5, "first")
    assert [value.at(position) for position in (4, 5, 6)] == ["first", "first", "first"]


def test_of_a_value_before_the_last_two_nothing_is_known() -> None:
    value = InForce[str]()
    for position, word in ((1, "a"), (2, "b"), (3, "c")):
        value.follow(position, word)
    assert [value.at(position) for position in (1, 3, 4)] == ["b", "b", "c"]
