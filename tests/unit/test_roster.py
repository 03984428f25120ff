"""Rows of things: handed out low, given back, used again; two identities of one name; what a mark stands for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.roster import Roster


def test_a_registered_and_an_unregistered_thing_of_one_name_have_rows_of_their_own():
    roster = Roster()
    assert (roster.add(b"p1", 0), roster.add(b"p1", 1)) == (0, 1)
    assert (roster.find(b"p1", 0), roster.find(b"p1", 1)) == (0, 1)
    assert roster.identities() == [(0, b"p1", False), (1, b"p1", True)]


def test_the_lowest_free_row_is_handed_out_first():
    roster = Roster()
    for name in (b"a", b"b", b"c"):
        roster.add(name, 0)
    roster.remove(2, 0)
    roster.remove(0, 0)
    assert (roster.add(b"d", 0), roster.add(b"e", 1), roster.add(b"f", 0)) == (0, 2, 3)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.booleans()), max_size=60))
def test_any_coming_and_going_leaves_each_identity_in_one_row_and_survives_a_dump(toggles):
    roster, again, twin = Roster(), Roster(), {}
    for name, registered in toggles:
        key = (name, int(registered))
        if key in twin:
            roster.remove(twin.pop(key), key[1])
        else:
            twin[key] = roster.add(*key)
        again = Roster()
        again.load(roster.dump())
        for one in (roster, again):
            assert len(one) == len(twin)
            assert one.identities() == sorted((row, name, bool(flag)) for (name, flag), row in twin.items())
            assert [one.find(*identity) for identity in twin] == list(twin.values())
    assert again.add(b"new", 0) == roster.add(b"new", 0)


# ---- marks ----


def recognised(roster, mark, registered):
    rows, missing = roster.recognise(np.array([mark]), np.zeros(1, np.int32), np.array([registered], np.uint8))
    assert missing == (rows[0] < 0)
    return int(rows[0])


def numbers(count):
    return np.arange(count, dtype=np.int32)


def remember(roster, mark, registered, row):
    roster.remember(np.array([mark]), np.array([registered], np.uint8), np.array([row], np.int32))


def placed(count):
    """A roster of so many unregistered things, thing k with mark k + 1 and in row k."""
    roster = Roster()
    rows = np.array([roster.add(b"t%d" % k, 0) for k in range(count)], np.int32)
    roster.remember(np.arange(1, count + 1), np.zeros(count, np.uint8), rows)
    return roster


def test_a_thing_that_was_remembered_is_recognised_by_its_mark():
    roster = placed(3)
    rows, missing = roster.recognise(np.array([3, 1, 9, 3]), numbers(4), np.zeros(4, np.uint8))
    assert (rows.tolist(), missing) == ([2, 0, -1, 2], 1)


def test_a_mark_of_zero_is_nobodys():
    roster = placed(1)
    remember(roster, 0, 0, 0)
    remember(roster, 0, 1, 0)
    assert (recognised(roster, 0, 0), recognised(roster, 0, 1), recognised(roster, 1, 0)) == (-1, -1, 0)


def test_the_two_identities_of_a_marked_name_are_not_taken_for_each_other():
    roster = placed(1)
    assert recognised(roster, 1, 1) == -1
    remember(roster, 1, 1, roster.add(b"t0", 1))
    assert (recognised(roster, 1, 0), recognised(roster, 1, 1)) == (0, 1)


def test_the_next_owner_of_a_row_is_not_taken_for_the_one_before():
    roster = placed(2)
    roster.remove(0, 0)
    assert recognised(roster, 1, 0) == -1
    remember(roster, 8, 0, roster.add(b"new", 0))
    assert (recognised(roster, 1, 0), recognised(roster, 8, 0), recognised(roster, 2, 0)) == (-1, 0, 1)


def test_a_loaded_roster_recognises_nobody_of_those_it_knew_before():
    roster, other = placed(100), placed(2)
    roster.load(other.dump())
    rows, missing = roster.recognise(np.arange(1, 101), numbers(100), np.zeros(100, np.uint8))
    assert (set(rows.tolist()), missing) == ({-1}, 100)


def test_all_of_a_large_fleet_are_recognised_however_far_apart_their_marks_lie():
    roster, marks = Roster(), np.arange(1, 5_001) * 2**20
    rows = np.array([roster.add(b"t%d" % k, 1) for k in range(5_000)], np.int32)
    for some in np.array_split(np.arange(5_000), 7):
        roster.remember(marks[some], np.ones(len(some), np.uint8), rows[some])
    assert roster.recognise(marks, numbers(5_000), np.ones(5_000, np.uint8))[0].tolist() == rows.tolist()
    assert len(roster._hints) <= 4 * 5_000


def test_new_marks_of_the_same_things_need_no_more_room():
    roster = placed(20)
    for mark in range(100, 10_000):
        remember(roster, mark, 0, mark % 20)
        assert recognised(roster, mark, 0) == mark % 20
    assert (len(roster._hints), len(roster._keys)) == (64, 20)


changes = st.lists(
    st.tuples(
        st.sampled_from(["report"] * 6 + ["anew", "remove", "remove", "load"]), st.sampled_from("abcdefgh"),
        st.booleans(),
    ),
    max_size=120,
)  # fmt: skip


@given(changes)
def test_whatever_comes_and_goes_a_mark_finds_the_row_of_its_thing_or_none(history):
    roster, twin, mark_of, all_marks = Roster(), {}, {}, {}
    for what, letter, registered in history:
        name, identity = letter.encode(), (letter, int(registered))
        if what == "report":
            mark = mark_of.setdefault(letter, len(all_marks) + 1)
            all_marks[mark] = letter
            if identity not in twin:
                twin[identity] = roster.add(name, int(registered))
            remember(roster, mark, int(registered), twin[identity])
            assert recognised(roster, mark, int(registered)) == twin[identity]
        elif what == "anew":
            mark_of.pop(letter, None)
        elif what == "remove" and identity in twin:
            roster.remove(twin.pop(identity), int(registered))
        elif what == "load":
            roster.load(roster.dump())
        for mark, owner in all_marks.items():
            for flag in (0, 1):
                assert recognised(roster, mark, flag) in (-1, twin.get((owner, flag)))
