"""How long news is gathered: a quarter of a second, a batch, or until the broker waits for us."""

from daemon.brokers._gather import GATHER_MAX, GATHER_NS, STALL_NS, Gather

MS = 1_000_000


def burst(gather: Gather, count: int, now_ns: int = 0) -> None:
    """Messages that come within a millisecond."""
    gather.begin()
    gather.came(1, now_ns)
    gather.came(count - 1, now_ns + MS)


def test_a_first_message_waits_for_others_a_quarter_of_a_second_at_most() -> None:
    gather = Gather()
    gather.begin()
    gather.came(1, 0)
    assert [gather.left_ns(at) for at in (0, 100 * MS, GATHER_NS)] == [GATHER_NS, GATHER_NS - 100 * MS, 0]


def test_a_full_batch_is_written_at_once() -> None:
    gather = Gather()
    burst(gather, GATHER_MAX)
    assert gather.left_ns(MS) == 0


def test_after_a_burst_a_pause_ends_the_wait_for_the_broker_waits_too() -> None:
    gather = Gather()
    burst(gather, 20)
    assert 0 < gather.left_ns(MS) <= STALL_NS
    assert gather.left_ns(MS + STALL_NS) == 0


def test_a_steady_trickle_is_gathered_to_the_end() -> None:
    gather = Gather()
    gather.begin()
    left = []
    for at in range(0, 250, 20):
        gather.came(1, at * MS)
        left.append(gather.left_ns(at * MS) >= min(20 * MS, GATHER_NS - at * MS))
    assert all(left)


def test_a_number_at_which_the_broker_stopped_twice_is_not_waited_behind_a_third_time() -> None:
    gather = Gather()
    for at_ns in (0, GATHER_NS):
        burst(gather, 20, at_ns)
        assert gather.left_ns(at_ns + MS) > 0
        assert gather.left_ns(at_ns + MS + STALL_NS) == 0
    burst(gather, 20, 2 * GATHER_NS)
    assert gather.left_ns(2 * GATHER_NS + MS) == 0


def test_a_broker_that_sends_more_after_all_is_waited_for_again() -> None:
    gather = Gather()
    for at_ns in (0, GATHER_NS):
        burst(gather, 20, at_ns)
        gather.left_ns(at_ns + MS + STALL_NS)
    burst(gather, 25, 2 * GATHER_NS)
    gather.begin()
    burst(gather, 20, 3 * GATHER_NS)
    assert gather.left_ns(3 * GATHER_NS + MS) > 0
