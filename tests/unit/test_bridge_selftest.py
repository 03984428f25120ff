"""The self-test of a bridge: each outcome, what it means for replies, and what is not taken for proof."""

import pytest

from config.model import Bridge
from daemon.brokers._selftest import SelfTest, Verdict


class Told:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def selftest(replies: str = "auto", told: Told | None = None) -> SelfTest:
    return SelfTest(Bridge(name="plant", url="mqtt://b", replies=replies), "detectd-plant", told or Told())  # type: ignore[arg-type]


def test_before_anything_is_known_replies_wait_and_are_kept() -> None:
    fresh = selftest()
    assert not fresh.may_reply()
    assert fresh.may_yet_reply()


def test_a_message_that_comes_back_lets_replies_out() -> None:
    told = Told()
    tested = selftest(told=told)
    payload = tested.begin(now_ns=5)
    assert payload is not None
    assert tested.heard(payload)
    assert tested.verdict is Verdict.CARRIED
    assert tested.may_reply()
    assert told.count == 1


def test_the_message_of_an_earlier_connection_proves_nothing() -> None:
    tested = selftest()
    earlier = tested.begin(now_ns=5)
    tested.begin(now_ns=6)
    assert earlier is not None
    assert not tested.heard(earlier)
    assert tested.verdict is Verdict.UNTRIED
    assert tested.is_under_way


def test_a_message_that_never_comes_back_stops_replies() -> None:
    tested = selftest()
    tested.begin(now_ns=5)
    tested.missed()
    assert tested.verdict is Verdict.MISSING
    assert not tested.may_yet_reply()


def test_one_that_comes_back_late_corrects_the_verdict() -> None:
    tested = selftest()
    payload = tested.begin(now_ns=5)
    tested.missed()
    assert payload is not None
    assert tested.heard(payload)
    assert tested.may_reply()


def test_a_wait_that_ends_without_a_message_under_way_judges_nothing() -> None:
    tested = selftest()
    tested.missed()
    assert tested.verdict is Verdict.UNTRIED


def test_one_lost_connection_is_no_proof_and_the_second_in_a_row_is() -> None:
    tested, verdicts = selftest(), list[Verdict]()
    for now_ns in (5, 6):
        tested.begin(now_ns)
        tested.cut_off()
        verdicts.append(tested.verdict)
    assert verdicts == [Verdict.UNTRIED, Verdict.KICKED]
    assert tested.begin(now_ns=7) is None


def test_a_success_between_two_lost_connections_clears_the_broker() -> None:
    tested = selftest()
    tested.begin(now_ns=5)
    tested.cut_off()
    payload = tested.begin(now_ns=6)
    assert payload is not None
    tested.heard(payload)
    tested.cut_off()
    tested.begin(now_ns=7)
    tested.cut_off()
    assert tested.verdict is Verdict.CARRIED


def test_a_refusal_is_learnt_once() -> None:
    tested = selftest()
    tested.begin(now_ns=5)
    tested.refused()
    assert tested.verdict is Verdict.REFUSED
    assert tested.begin(now_ns=6) is None


def test_where_we_may_not_listen_replies_are_sent() -> None:
    tested = selftest()
    tested.unheard()
    assert tested.may_reply()


@pytest.mark.parametrize("outcome", ["refused", "missed", "unheard"])
def test_on_means_on_whatever_is_found(outcome: str) -> None:
    tested = selftest("on")
    tested.begin(now_ns=5)
    getattr(tested, outcome)()
    assert tested.may_reply()


def test_off_means_off_and_touches_no_topic_of_a_device() -> None:
    tested = selftest("off")
    payload = tested.begin(now_ns=5)
    assert payload is not None
    assert tested.heard(payload)
    assert not tested.may_yet_reply()
    assert tested.topic == "detectd/detectd-plant/probe"
    assert tested.words == "replies are off"
