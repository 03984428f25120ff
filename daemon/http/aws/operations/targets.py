"""What security profiles are attached to (spec.md §5.3, §10.2)."""

from typing import Any

from daemon.control import profiles, targets
from daemon.control.plane import Call
from daemon.http.aws.operations.profiles import identifier
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]


async def attach_security_profile(call: Call) -> Answer:
    name, target = call.params["securityProfileName"], _target(call)
    await call.change(lambda con: targets.attach(con, name, target), profiles.resource(name))
    return {}


async def detach_security_profile(call: Call) -> Answer:
    name, target = call.params["securityProfileName"], _target(call)
    await call.change(lambda con: targets.detach(con, name, target), profiles.resource(name))
    return {}


async def list_targets_for_security_profile(call: Call) -> Answer:
    name, after, size = call.params["securityProfileName"], start_of(call.params, str) or "", page_size(call.params)
    shown, more = page(await call.read(lambda con: targets.of_profile(con, name, after, size + 1)), size, str)
    return {"securityProfileTargets": [{"arn": call.plane.arn(target)} for target in shown], **more}


async def list_security_profiles_for_target(call: Call) -> Answer:
    """Those attached to a target itself; `recursive` adds what `targets.of_target` says."""
    target, recursive = _target(call), call.params.get("recursive", False)
    after, size = start_of(call.params, tuple[str, str]) or ("", ""), page_size(call.params)
    found = await call.read(lambda con: targets.of_target(con, target, after, size + 1, recursive=recursive))
    shown, more = page(found, size, tuple)
    mappings = [
        {"securityProfileIdentifier": identifier(call, name), "target": {"arn": call.plane.arn(at)}}
        for name, at in shown
    ]
    return {"securityProfileTargetMappings": mappings, **more}


def _target(call: Call) -> str:
    return targets.target_of(call.plane.account, call.params["securityProfileTargetArn"])
