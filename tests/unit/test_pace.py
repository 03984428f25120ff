"""Rests between batches grow with how busy the thread is, and vanish with it."""

from daemon.pace import LOOK_S, REST_MAX_S, REST_MIN_S, SMALL, Pace


class Clocks:
    def __init__(self) -> None:
        self.now = self.worked = 0.0
        self.pace = Pace(lambda: self.now, lambda: self.worked)

    def rest_after(self, share: float, looks: int, count: int = 1) -> float:
        """What it says after so many looks at a thread that works this share of the time."""
        rest_s = 0.0
        for _ in range(looks):
            self.now += LOOK_S
            self.worked += share * LOOK_S
            rest_s = self.pace.rest_s(count)
        return rest_s


def test_a_thread_with_little_to_do_never_rests() -> None:
    assert Clocks().rest_after(0.2, 100) == 0.0


def test_a_busy_one_rests_longer_and_longer_up_to_a_bound() -> None:
    clocks = Clocks()
    rests = [clocks.rest_after(0.9, 1) for _ in range(20)]
    assert rests[0] == REST_MIN_S
    assert rests == sorted(rests)
    assert rests[-1] == REST_MAX_S


def test_in_between_nothing_changes_and_when_it_is_over_rests_shrink_to_none() -> None:
    clocks = Clocks()
    rest_s = clocks.rest_after(0.9, 5)
    assert clocks.rest_after(0.4, 10) == rest_s
    assert 0.0 < clocks.rest_after(0.1, 1) < rest_s
    assert clocks.rest_after(0.1, 20) == 0.0


def test_a_large_batch_has_earned_its_price() -> None:
    assert Clocks().rest_after(0.9, 20, count=SMALL) == 0.0


def test_it_looks_now_and_then_not_after_each_batch() -> None:
    clocks = Clocks()
    for _ in range(100):
        clocks.now += LOOK_S / 200
        clocks.worked += LOOK_S / 200
        assert clocks.pace.rest_s(1) == 0.0
