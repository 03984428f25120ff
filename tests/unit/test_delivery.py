"""The life of one delivery, all of it: every state with every event, every outcome, the whole schedule."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.delivery import (
    FAILURES_MAX,
    TRANSITIONS,
    Delivered,
    Disabled,
    Done,
    Event,
    GiveUp,
    Hold,
    IllegalTransition,
    Reason,
    Retry,
    State,
    Wait,
    after,
    due_ns,
    gap_s,
    settle,
    sources,
)
from config.model import NS

ID = "5f0c2b7e9a4d41c8b3e6d7a8c9f01234-in-alarm-ops"
FAILED = Retry(Reason.UNREACHABLE, "Connection refused")
HOUR_S = 3600.0


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_an_event_leads_where_the_table_says_or_cannot_happen(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert after(state, event) is TRANSITIONS[state][event]
        assert state in sources(event)
    else:
        with pytest.raises(IllegalTransition, match=f"{event} cannot happen to a delivery that is {state}"):
            after(state, event)
        assert state not in sources(event)


def test_every_state_can_be_reached_and_every_event_can_happen() -> None:
    reached = {target for row in TRANSITIONS.values() for target in row.values()} | {State.QUEUED}
    assert reached == set(State)
    assert all(sources(event) for event in Event)


def test_only_what_is_queued_is_sent_and_only_what_is_sent_is_delivered() -> None:
    assert sources(Event.SEND) == (State.QUEUED,)
    assert [state for state in State if State.DELIVERED in TRANSITIONS[state].values()] == [State.SENDING]


def test_a_success_is_the_end() -> None:
    assert settle(Delivered(), ID, 3, 0) == Done(State.DELIVERED)


def test_a_receiver_that_is_gone_holds_its_deliveries_without_counting_an_attempt() -> None:
    assert settle(Disabled(detail="HTTP 410"), ID, 3, 0) == Hold(State.QUEUED, "gone: HTTP 410")


def test_failures_wait_one_two_four_eight_seconds_give_or_take_a_tenth() -> None:
    gaps_s = [_wait(failures).due_ns / NS for failures in range(6)]
    assert gaps_s == [pytest.approx(2.0**n, rel=0.1) for n in range(6)]
    assert _wait(0) == Wait(State.QUEUED, 1, _wait(0).due_ns, "unreachable: Connection refused")


def test_gaps_never_exceed_an_hour_and_never_shrink_by_more_than_the_jitter() -> None:
    gaps_s = [gap_s(ID, n) for n in range(1, FAILURES_MAX)]
    assert max(gaps_s) <= HOUR_S
    assert min(gaps_s[13:]) >= HOUR_S * 0.9
    assert all(later >= earlier * 0.8 for earlier, later in pairwise(gaps_s))


@given(st.text(max_size=60))
def test_whatever_the_jitter_a_delivery_is_tried_for_three_days(webhook_id: str) -> None:
    now_ns, attempts = 0, 0
    while isinstance(then := settle(FAILED, webhook_id, attempts, now_ns), Wait):
        now_ns, attempts = then.due_ns, then.attempts
    assert then == GiveUp(State.DEAD, FAILURES_MAX, "unreachable: Connection refused")
    assert 3 * 24 * HOUR_S <= now_ns / NS <= 4 * 24 * HOUR_S


def test_the_schedule_of_a_delivery_is_the_same_wherever_it_runs() -> None:
    assert gap_s(ID, 5) == gap_s(ID, 5)
    assert len({gap_s(f"{ID}{n}", 5) for n in range(50)}) == 50


@pytest.mark.parametrize(
    ("asked_s", "failures", "gap"),
    [
        (30.0, 0, 30.0),  # longer than the schedule's second: honoured
        (7200.0, 0, HOUR_S),  # bounded
        (-5.0, 0, gap_s(ID, 1)),
        (1.0, 8, gap_s(ID, 9)),  # never shortens: 92 attempts a second apart would be over in two minutes
    ],
)
def test_retry_after_is_honoured_within_bounds(asked_s: float, failures: int, gap: float) -> None:
    then = settle(Retry(Reason.THROTTLED, "HTTP 429", asked_s), ID, failures, 0)
    assert isinstance(then, Wait)
    assert then.due_ns == int(gap * NS)


def test_a_receiver_that_asks_for_time_is_left_alone_altogether() -> None:
    then = settle(Retry(Reason.THROTTLED, "HTTP 429", 30.0), ID, 0, 5 * NS)
    assert isinstance(then, Wait)
    assert then.pause_ns == 35 * NS
    assert _wait(0).pause_ns == 0


def test_a_clock_that_was_ahead_holds_nothing_back_for_longer_than_the_longest_gap() -> None:
    assert due_ns(stored_ns=10**6 * NS, now_ns=5 * NS) == 3605 * NS
    assert due_ns(stored_ns=7 * NS, now_ns=5 * NS) == 7 * NS


def _wait(failures: int) -> Wait:
    then = settle(FAILED, ID, failures, 0)
    assert isinstance(then, Wait)
    return then
