"""Builders of transitions for stories about alarms: what a story leaves out has a sensible value."""

from hashlib import blake2b
from typing import Any

from actors.effects import EventType, Transition
from config.model import NS, Behavior, Criteria, MetricValue

START_NS = 1_767_323_100 * NS


def violation_id(thing: str, episode: int = 0) -> str:
    return blake2b(f"{thing}/{episode}".encode(), digest_size=16).hexdigest()


def behavior(name: str = "MaxSent", **members: Any) -> Behavior:
    criteria = Criteria(comparison_operator="less-than-equals", value=MetricValue(count=40), duration_seconds=300)
    usual: dict[str, Any] = {"name": name, "metric": "aws:num-messages-sent", "criteria": criteria}
    return Behavior(**usual | members)


def transition(event_type: EventType, thing: str = "meter-12", episode: int = 0, **members: Any) -> Transition:
    """An event of the nth episode of `thing`."""
    value = None if event_type == "alarm-invalidated" else MetricValue(count=97 if event_type == "in-alarm" else 12)
    usual: dict[str, Any] = {
        "event_type": event_type,
        "violation_id": violation_id(thing, episode),
        "profile": "MeterProfile",
        "behavior": behavior(),
        "thing": thing,
        "registered": True,
        "time_ns": START_NS if event_type == "in-alarm" else START_NS + 300 * NS,
        "value": value,
        "start_ns": START_NS,
        "last_violation_ns": START_NS,
        "last_violation_value": MetricValue(count=97),
        "position": 7,
        "reason": "told by a test",
    }
    return Transition(**usual | members)


def raised(thing: str = "meter-12", episode: int = 0, **members: Any) -> Transition:
    return transition("in-alarm", thing, episode, **members)


def cleared(thing: str = "meter-12", episode: int = 0, **members: Any) -> Transition:
    return transition("alarm-cleared", thing, episode, **members)


def invalidated(thing: str = "meter-12", episode: int = 0, **members: Any) -> Transition:
    return transition("alarm-invalidated", thing, episode, **members)
