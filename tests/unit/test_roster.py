"""Rows of things: handed out low, given back, used again; two identities of one name."""

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
