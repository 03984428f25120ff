"""The life of one delivery: outcome, attempts so far and now, to what happens next.

A row of the outbox is in one `State`; `TRANSITIONS` is all that can happen to it, read by the code, by the
store's SQL and by the tests. SENDING exists in memory only: a daemon that is killed finds the row QUEUED again
and sends it once more under the same id (at least once, design.md §4).

                 send             delivered
     QUEUED ───────────► SENDING ───────────► DELIVERED
       ▲ ▲  ◄──────────── │   │
       │ │  failed, gone  │   │ exhausted                skip: its in-alarm was never delivered
       │ └── resend ── DEAD ◄─┘                          orphan: its receiver left the configuration
       └── resend ──── SKIPPED, DROPPED;  adopt ── ORPHANED
"""

from dataclasses import dataclass
from enum import StrEnum, unique
from hashlib import blake2b
from typing import Final, assert_never

from config.model import NS

GAP_MAX_S: Final = 3600.0
JITTER: Final = 0.1
"""A gap is its nominal length ± this share, so that many deliveries which failed together come back apart."""
HORIZON_S: Final = 3 * 86_400.0
"""How long a delivery is tried at the very least (design.md §5)."""


@unique
class State(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"
    SKIPPED = "skipped"
    ORPHANED = "orphaned"
    DROPPED = "dropped"


@unique
class Event(StrEnum):
    SEND = "send"
    ACCEPTED = "accepted"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    GONE = "gone"
    SKIP = "skip"
    ORPHAN = "orphan"
    ADOPT = "adopt"
    EXPIRE = "expire"
    DROP = "drop"
    RESEND = "resend"


TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.QUEUED: {
        Event.SEND: State.SENDING,
        Event.SKIP: State.SKIPPED,
        Event.ORPHAN: State.ORPHANED,
        Event.EXPIRE: State.DEAD,
        Event.DROP: State.DROPPED,
    },
    State.SENDING: {
        Event.ACCEPTED: State.DELIVERED,
        Event.FAILED: State.QUEUED,
        Event.EXHAUSTED: State.DEAD,
        Event.GONE: State.QUEUED,
    },
    State.ORPHANED: {
        Event.SKIP: State.SKIPPED,
        Event.ADOPT: State.QUEUED,
        Event.EXPIRE: State.DEAD,
        Event.DROP: State.DROPPED,
    },
    State.DELIVERED: {Event.RESEND: State.QUEUED},
    State.DEAD: {Event.RESEND: State.QUEUED, Event.DROP: State.DROPPED},
    State.SKIPPED: {Event.RESEND: State.QUEUED, Event.DROP: State.DROPPED},
    State.DROPPED: {Event.RESEND: State.QUEUED},
}


class IllegalTransition(Exception):
    """A bug: the event cannot happen in that state."""


def after(state: State, event: Event) -> State:
    """The state that `event` leads to. Raises `IllegalTransition`."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen to a delivery that is {state}") from None


def sources(event: Event) -> tuple[State, ...]:
    """The states in which `event` can happen: the WHERE clause of the store."""
    return tuple(state for state in State if event in TRANSITIONS[state])


@unique
class Reason(StrEnum):
    """Why an attempt failed: a metric's label, so a fixed few."""

    REDIRECT = "redirect"
    CLIENT_ERROR = "client-error"
    SERVER_ERROR = "server-error"
    THROTTLED = "throttled"
    GONE = "gone"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    PROTOCOL = "protocol"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """It failed, and may succeed later: `after_s` is what the receiver asked for. `detail` holds no secret."""

    reason: Reason
    detail: str = ""
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Disabled:
    """The receiver wants nothing any more (HTTP 410)."""

    reason: Reason = Reason.GONE
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """This notice will never be taken, however often it is sent; others may be."""

    reason: Reason = Reason.CLIENT_ERROR
    detail: str = ""


Outcome = Delivered | Retry | Disabled | Refused


@dataclass(frozen=True, slots=True)
class Done:
    state: State


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again at `due_ns`. `pause_ns`: the receiver asked to be left alone until then, whatever the thing."""

    state: State
    attempts: int
    due_ns: int
    why: str
    pause_ns: int = 0


@dataclass(frozen=True, slots=True)
class GiveUp:
    state: State
    attempts: int
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more goes to this receiver until someone enables it; this delivery waits with the others."""

    state: State
    why: str


Next = Done | Wait | GiveUp | Hold


def settle(outcome: Outcome, webhook_id: str, attempts: int, now_ns: int) -> Next:
    """What follows an attempt that ended with `outcome`, after `attempts` earlier failures."""
    match outcome:
        case Delivered():
            return Done(after(State.SENDING, Event.ACCEPTED))
        case Disabled():
            return Hold(after(State.SENDING, Event.GONE), _why(outcome))
        case Refused():
            return GiveUp(after(State.SENDING, Event.EXHAUSTED), attempts + 1, _why(outcome))
        case Retry():
            return _again(outcome, webhook_id, attempts + 1, now_ns)
        case _:
            assert_never(outcome)


def _again(outcome: Retry, webhook_id: str, failures: int, now_ns: int) -> Next:
    if failures >= FAILURES_MAX:
        return GiveUp(after(State.SENDING, Event.EXHAUSTED), failures, _why(outcome))
    asked_s = min(max(outcome.after_s or 0.0, 0.0), GAP_MAX_S)
    # The longer of the two: a short Retry-After must not use up three days of attempts within minutes.
    gap_ns = int(max(gap_s(webhook_id, failures), asked_s) * NS)
    pause_ns = now_ns + int(asked_s * NS) if asked_s else 0
    return Wait(after(State.SENDING, Event.FAILED), failures, now_ns + gap_ns, _why(outcome), pause_ns)


def gap_s(webhook_id: str, failures: int) -> float:
    """Seconds to wait after the nth failure (n ≥ 1): 1, 2, 4, 8 … ± 10 %, at most an hour.

    The jitter is a function of the id and n, so that the same delivery has the same schedule wherever it runs.
    """
    return min(_nominal_s(failures) * (1 + JITTER * _spread(webhook_id, failures)), GAP_MAX_S)


def _nominal_s(failures: int) -> float:
    return min(2.0 ** min(failures - 1, 12), GAP_MAX_S)


def _spread(webhook_id: str, failures: int) -> float:
    """A number in [-1, 1) that looks random."""
    digest = blake2b(f"{webhook_id}/{failures}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**31 - 1


def _failures_max() -> int:
    # Counted in attempts, not by the clock: a clock that jumps, or a daemon that was off for a week, would
    # otherwise bury deliveries that were never tried.
    waited_s, failures = 0.0, 0
    while waited_s < HORIZON_S:
        failures += 1
        waited_s += _nominal_s(failures) * (1 - JITTER)
    return failures + 1


FAILURES_MAX: Final = _failures_max()
"""The failure that makes a delivery DEAD: its attempts span at least `HORIZON_S` even with the shortest gaps."""


def due_ns(stored_ns: int, now_ns: int) -> int:
    """When a delivery found in the outbox is due: never later than the longest gap from now.

    A clock that was ahead when the row was written must not hold it back for years.
    """
    return min(stored_ns, now_ns + int(GAP_MAX_S * NS))


def _why(outcome: Retry | Disabled | Refused) -> str:
    return f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)
