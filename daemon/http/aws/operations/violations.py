"""Alarms: what is open, what happened, and what people make of it (spec.md §7, §10.4)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from actors import notice
from config.model import MS, Behavior, MetricValue
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException, ResourceNotFoundException
from daemon.http.aws.members import epoch_seconds
from daemon.http.aws.paging import page_size, start_of, token_of
from daemon.store import lists, violations
from daemon.store.lists import ActivePlace, EventPlace, Told, ViolationEvent, Wanted
from daemon.store.violations import Con, Violation

Answer = dict[str, Any]


async def list_active_violations(call: Call) -> Answer:
    wanted, before, size = _wanted(call.params), start_of(call.params, ActivePlace), page_size(call.params)

    def read(con: Con) -> tuple[list[Violation], ActivePlace | None]:
        if wanted.profile is not None and not _is_profile(con, wanted.profile):
            raise ResourceNotFoundException(f"there is no security profile {wanted.profile}")
        return lists.active(con, wanted, before, size)

    found, place = await call.read(read)
    return {"activeViolations": [_active(one) for one in found], **_next(place)}


async def list_violation_events(call: Call) -> Answer:
    since, until = call.params["startTime"], call.params["endTime"]
    if since > until:
        raise InvalidRequestException("startTime is after endTime")
    # An event is found at the time that it is listed with, which is in milliseconds.
    since, until = since // MS * MS, until // MS * MS + MS - 1
    wanted, before, size = _wanted(call.params), start_of(call.params, EventPlace), page_size(call.params)
    found, place = await call.read(lambda con: lists.events(con, since, until, wanted, before, size))
    return {"violationEvents": [_event(one) for one in found], **_next(place)}


async def put_verification_state_on_violation(call: Call) -> Answer:
    """Any state may follow any other; a missing description clears the one before (spec.md §7.3)."""
    name, state = call.params["violationId"], call.params["verificationState"]
    description = call.params.get("verificationStateDescription")
    now_ns = call.plane.now_ns()

    def verify(con: Con) -> None:
        if not violations.verify(con, name, state, description, now_ns):
            raise InvalidRequestException(f"there is no violation {name}")

    await call.change(verify, f"violation/{name}", rules=False)
    return {}


def _wanted(params: Mapping[str, Any]) -> Wanted:
    return Wanted(
        thing=params.get("thingName"),
        profile=params.get("securityProfileName"),
        criteria_type=params.get("behaviorCriteriaType"),
        suppressed=params.get("listSuppressedAlerts"),
        verification_state=params.get("verificationState"),
    )


def _is_profile(con: Con, name: str) -> bool:
    return con.execute("SELECT 1 FROM profiles WHERE name = ?", (name,)).fetchone() is not None


def _next(place: object) -> Answer:
    return {} if place is None else {"nextToken": token_of(place)}


def _active(violation: Violation) -> Answer:
    return {
        "violationId": violation.violation_id,
        "thingName": violation.thing,
        "securityProfileName": violation.profile,
        "behavior": _plain(violation.behavior),
        "lastViolationValue": _plain(violation.last_violation_value),
        "violationEventAdditionalInfo": notice.additional_info(violation.behavior),
        "verificationState": violation.verification_state,
        "verificationStateDescription": violation.verification_description,
        "lastViolationTime": violation.last_violation_ns,
        "violationStartTime": violation.start_ns,
    }


class _Event(Told, frozen=True, rename="camel", kw_only=True):
    """The model's ViolationEvent, written as it is: there are up to 250 in an answer."""

    verification_state: str
    verification_state_description: str | msgspec.UnsetType
    violation_event_time: float


def _event(event: ViolationEvent) -> _Event:
    told, description = event.told, event.verification_description
    return _Event(
        violation_id=told.violation_id,
        thing_name=told.thing_name,
        security_profile_name=told.security_profile_name,
        behavior=told.behavior,
        metric_value=told.metric_value,
        violation_event_additional_info=told.violation_event_additional_info,
        violation_event_type=told.violation_event_type,
        verification_state=event.verification_state,
        verification_state_description=msgspec.UNSET if description is None else description,
        violation_event_time=epoch_seconds(event.time_ns),
    )


def _plain(value: Behavior | MetricValue | None) -> Answer | None:
    return None if value is None else msgspec.to_builtins(value)
