"""Who is connected, from events that may come late, twice, or in the wrong order."""

from builders import START

from actors.events import CONNECTED, DISCONNECTED
from actors.presence import BEGAN, ENDED, IDLE_NS, LEFT, NOTHING, Presence
from config.model import NS, Client
from daemon.checkpoint import frozen


def presence(*clients: Client, things_max: int = 100) -> Presence:
    return Presence(clients, things_max)


def turn(of: Presence, client: str, kind: int, at: int, session: str = "", version: int = 0) -> int | None:
    return of.turn(of.row(client), kind, START + at * NS, 0, session, version)


def test_a_connection_begins_and_ends() -> None:
    one = presence()
    assert turn(one, "a", CONNECTED, 0) == BEGAN
    assert turn(one, "a", DISCONNECTED, 5) == ENDED
    [standing] = one.standings()
    assert (standing.thing, standing.since, standing.until) == (b"a", 0, START + 5 * NS)


def test_who_is_first_seen_to_leave_has_left() -> None:
    assert turn(presence(), "a", DISCONNECTED, 0) == LEFT


def test_an_event_that_comes_twice_is_known_by_its_session() -> None:
    one = presence()
    assert turn(one, "a", CONNECTED, 0, "s", 1) == BEGAN
    assert turn(one, "a", CONNECTED, 0, "s", 1) is None
    assert turn(one, "a", DISCONNECTED, 1, "s", 1) == ENDED
    assert turn(one, "a", DISCONNECTED, 1, "s", 1) is None
    assert turn(one, "a", CONNECTED, 2, "s", 2) == BEGAN  # a session that goes on has another version


def test_the_late_end_of_a_connection_that_was_taken_over_does_not_end_the_present_one() -> None:
    one = presence()
    turn(one, "a", CONNECTED, 0, "old")
    assert turn(one, "a", CONNECTED, 1, "new") == NOTHING
    assert turn(one, "a", DISCONNECTED, 2, "old") == NOTHING
    assert turn(one, "a", DISCONNECTED, 3, "new") == ENDED


def test_an_end_that_is_told_before_its_beginning_leaves_nobody_connected() -> None:
    one = presence()
    assert turn(one, "a", DISCONNECTED, 1, "s") == LEFT
    assert turn(one, "a", CONNECTED, 0, "s") == NOTHING
    assert [standing.since for standing in one.standings()] == [0]


def test_who_is_taken_over_was_connected_all_the_time() -> None:
    one = presence()
    turn(one, "a", CONNECTED, 0)
    turn(one, "a", CONNECTED, 9)
    assert [standing.since for standing in one.standings()] == [START]
    assert turn(one, "a", CONNECTED, 20, "new") == NOTHING
    assert turn(one, "a", CONNECTED, 15, "older") == NOTHING
    assert turn(one, "a", DISCONNECTED, 25, "older") == NOTHING
    assert turn(one, "a", DISCONNECTED, 25, "new") == ENDED


def test_without_sessions_the_order_of_the_log_decides() -> None:
    one = presence()
    assert turn(one, "a", CONNECTED, 0) == BEGAN
    assert turn(one, "a", CONNECTED, 1) == NOTHING
    assert turn(one, "a", DISCONNECTED, 2) == ENDED


def test_a_client_is_the_thing_that_the_first_matching_pattern_says() -> None:
    one = presence(Client("gw-(.*)-[0-9]+", r"\1"), Client("(.*)", r"x-\1"))
    assert [one.things[one.row(name)] for name in ("gw-p1-7", "p2")] == [b"p1", b"x-p2"]
    one.configure((), 100)
    assert one.things[one.row("gw-p1-7")] == b"gw-p1-7"


def test_a_name_that_is_none_is_no_thing() -> None:
    one = presence()
    assert one.things[one.row("a\nb")] == b""
    assert one.things[one.row("x" * 129)] == b""


def test_the_table_is_bounded() -> None:
    one = presence(things_max=2)
    assert [one.row(name) for name in ("a", "b", "c", "a")] == [0, 1, -1, 0]


def test_who_is_connected_is_not_forgotten_and_who_is_away_is_after_a_week() -> None:
    one = presence()
    for name in ("a", "b"):
        row = one.row(name)
        one.seen[row] = START
    turn(one, "a", CONNECTED, 0)
    one.forget_idle(START + IDLE_NS + 1)
    assert list(one.rows) == ["a"]
    assert one.row("new") == 1


def test_the_end_of_a_source_ends_its_connections_and_no_others() -> None:
    one = presence()
    for name, source in (("a", 0), ("b", 3)):
        one.turn(one.row(name), CONNECTED, START, source, "", 0)
    assert one.cut(0, START + NS) == [b"a"]
    assert {s.thing: s.since > 0 for s in one.standings()} == {b"a": False, b"b": True}


def test_a_dump_that_is_loaded_goes_on() -> None:
    one, again = presence(), presence()
    turn(one, "a", CONNECTED, 0, "s")
    turn(one, "b", CONNECTED, 0)
    again.load(frozen(one.dump()))  # type: ignore[arg-type]
    assert turn(again, "a", CONNECTED, 0, "s") is None
    assert turn(again, "b", DISCONNECTED, 1) == ENDED
