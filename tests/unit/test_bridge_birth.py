"""The status that a bridge leaves at its broker: said, taken back, and given up where the broker will not have it."""

from daemon.brokers._birth import OFFLINE, Birth


def connected(birth: Birth) -> bool:
    """An attempt that worked; whether it carried a will."""
    will = birth.will()
    birth.opened()
    return will is not None


def turned_down(birth: Birth, times: int) -> list[bool]:
    """Attempts that did not; which of them carried a will."""
    carried = []
    for _ in range(times):
        carried.append(birth.will() is not None)
        birth.refused()
    return carried


def test_the_will_says_offline_where_the_birth_says_online() -> None:
    birth = Birth("detectd-plant")
    will = birth.will()
    assert will is not None
    assert (will.topic, will.payload) == (birth.topic, OFFLINE) == ("detectd/detectd-plant/status", OFFLINE)


def test_after_two_refusals_the_will_is_left_out_twice_as_each_may_be_of_another_version() -> None:
    assert turned_down(Birth("c"), 6) == [True, True, False, False, True, True]


def test_without_a_will_there_is_no_birth() -> None:
    birth = Birth("c")
    turned_down(birth, 2)
    assert not connected(birth)
    assert not birth.begin()


def test_what_showed_at_two_connections_in_a_row_is_not_tried_again() -> None:
    birth = Birth("c")
    for _ in range(2):
        turned_down(birth, 2)
        connected(birth)
    assert not connected(birth)


def test_a_single_coincidence_is_not_held_against_the_broker() -> None:
    birth = Birth("c")
    turned_down(birth, 2)  # it was down
    connected(birth)
    assert connected(birth)
    turned_down(birth, 2)
    connected(birth)
    assert connected(birth)


def test_a_refused_birth_is_not_repeated_and_nothing_is_taken_back() -> None:
    birth = Birth("c")
    connected(birth)
    assert birth.begin()
    birth.took(well=False)
    assert not birth.is_out
    connected(birth)
    assert not birth.begin()


def test_a_birth_that_costs_two_connections_is_not_repeated() -> None:
    birth = Birth("c")
    begun = []
    for _ in range(3):
        connected(birth)
        begun.append(birth.begin())
        birth.cut_off()
    assert begun == [True, True, False]


def test_a_connection_that_ended_for_another_reason_says_nothing() -> None:
    birth = Birth("c")
    for _ in range(3):
        connected(birth)
        assert birth.begin()
        birth.cut_off(is_suspect=False)
