"""What a receiver is told about one transition: the message, its ids, and nothing about how it travels."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import msgspec

from actors.effects import EventType, Transition
from config.model import Behavior, MetricValue

UNKNOWN: Final = "UNKNOWN"
"""The verification state of a violation that nobody has judged yet (spec.md §7.3)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event for one receiver: a row of the outbox. Times are ns.

    `message` is the SNS message object of spec.md §9.1 as JSON bytes. It is made once, when the event is stored,
    so that every attempt sends the same bytes.
    """

    id: int  # the order of the outbox: a later row has a larger id
    webhook_id: str
    receiver: str
    violation_id: str
    event_type: EventType
    thing: str
    time_ns: int  # of the event
    created_ns: int  # when it was stored
    message: bytes
    attempts: int = 0  # failed so far
    due_ns: int = 0  # not to be sent before


class Message(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """The alarm message (spec.md §9.1). Its time is in epoch **milliseconds**, unlike the REST API's."""

    violation_event_time: int
    thing_name: str
    behavior: Behavior
    violation_event_type: EventType
    metric_value: MetricValue | None = None
    violation_id: str
    security_profile_name: str
    verification_state: str | None = None
    violation_event_additional_info: dict[str, str] | None = None


_encoder = msgspec.json.Encoder()


def event_id(violation_id: str, event_type: EventType) -> str:
    """An episode has at most one event of each type, so this names it (design.md §4, Ids)."""
    return f"{violation_id}-{event_type}"


def webhook_id(violation_id: str, event_type: EventType, receiver: str) -> str:
    """The same over retries, restarts and replays. A Standard Webhooks id holds no '.', and a header no space."""
    return f"{event_id(violation_id, event_type)}-{quote(receiver, safe='').replace('.', '%2E')}"


def message(transition: Transition, verification_state: str = UNKNOWN) -> bytes:
    """The SNS message object of spec.md §9.1 as JSON bytes."""
    return _encoder.encode(
        Message(
            violation_event_time=transition.time_ns // 1_000_000,
            thing_name=transition.thing,
            behavior=transition.behavior,
            violation_event_type=transition.event_type,
            metric_value=transition.value,
            violation_id=transition.violation_id,
            security_profile_name=transition.profile,
            verification_state=verification_state,
            violation_event_additional_info=additional_info(transition.behavior),
        )
    )


def additional_info(behavior: Behavior) -> dict[str, str] | None:
    """{confidenceLevel} for an ML behavior, else None (spec.md §7.1)."""
    criteria = behavior.criteria
    if criteria is None or criteria.ml_detection_config is None:
        return None
    return {"confidenceLevel": criteria.ml_detection_config.confidence_level}


def criteria_type(behavior: Behavior) -> str:
    """STATIC, STATISTICAL or MACHINE_LEARNING: what the lists can be filtered by (spec.md §7.2)."""
    criteria = behavior.criteria
    if criteria is not None and criteria.ml_detection_config is not None:
        return "MACHINE_LEARNING"
    if criteria is not None and criteria.statistical_threshold is not None:
        return "STATISTICAL"
    return "STATIC"
