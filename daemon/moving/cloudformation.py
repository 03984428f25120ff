"""A CloudFormation template, or what aws-cdk synthesises, as drafts of definitions."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from config.behaviors import STATISTICS
from config.document import Document
from config.model import Account, CustomMetric, Dimension, Limits, SecurityProfile
from config.problem import ConfigError, Finding, KeyPath, problem
from config.targets import short_target
from daemon.moving.drafts import Draft, Drafts, PlaceOf
from daemon.moving.intrinsics import NO_VALUE, UNKNOWN, Resolver
from daemon.moving.members import api_members, property_of

DEFINED: Final = {
    "AWS::IoT::SecurityProfile": ("profiles", SecurityProfile, "SecurityProfileName"),
    "AWS::IoT::CustomMetric": ("custom_metrics", CustomMetric, "MetricName"),
    "AWS::IoT::Dimension": ("dimensions", Dimension, "Name"),
}
WITHOUT_FILE: Final = {
    "AWS::IoT::ThingType": "files know no thing types: make it through the API",
    "AWS::IoT::BillingGroup": "files know no billing groups: make it through the API",
    "AWS::IoT::MitigationAction": "mitigation actions are not supported yet",
}
FLEET: Final = {"AWS::IoT::Thing", "AWS::IoT::ThingGroup"}
NOWHERE: Final = Account()
"""Stands for the account and region of a target's ARN, of which neither is kept."""

Resource = Mapping[str, Any]


def drafts_of(
    document: Document, given: Mapping[str, str], region: str | None, account: str | None, limits: Limits
) -> Drafts:
    """What a template defines.

    Raises:
        ConfigError: values that can't be told from the template alone, each with its place and what to do.
    """
    resolver = Resolver(document, given, region, account)
    reading = _Reading(resolver, Drafts(limits=limits))
    if region and account:
        reading.drafts.account = Account(account, region)
    _refuse_macros(resolver)
    for name, resource in resolver.section("Resources").items():
        if isinstance(resource, dict):
            reading.take(name, resource)
    if resolver.problems:
        raise ConfigError(sorted(set(resolver.problems), key=lambda each: (each.line, each.column, each.message)))
    reading.finish()
    return reading.drafts


def unknown_names(document: Document, given: Mapping[str, str]) -> list[str]:
    """Those of `given` that nothing in the template can ask for."""
    resolver = Resolver(document, given, None, None)
    known = {*resolver.section("Parameters"), *resolver.section("Resources")}
    heads = ("AWS::", "ImportValue:")
    return [name for name in given if name.partition(".")[0] not in known and not name.startswith(heads)]


def _refuse_macros(resolver: Resolver) -> None:
    for name in resolver.section("Resources"):
        if name.startswith("Fn::"):
            how = "`aws cloudformation get-template --template-stage Processed` prints the template after it"
            resolver.problems.append(
                problem(resolver.document.place(("Resources", name), key=True), f"{name} is a macro's: {how}")
            )


class _Reading:
    """One template on its way into `drafts`."""

    def __init__(self, resolver: Resolver, drafts: Drafts) -> None:
        self._resolver = resolver
        self.drafts = drafts
        self._others: Counter[str] = Counter()
        # A target's ARN is shortened, so that account and region need not be known for it.
        self._targets = resolver.elsewhere(resolver.region or NOWHERE.region, resolver.account or NOWHERE.id)

    def take(self, name: str, resource: Resource) -> None:
        kind = str(resource.get("Type"))
        if kind not in DEFINED and kind not in FLEET and kind not in WITHOUT_FILE:
            self._others[kind] += 1
        elif self._is_wanted(name, resource):
            if kind in DEFINED:
                self._define(name, resource, *DEFINED[kind])
            elif kind in FLEET:
                self._register(name, kind)
            else:
                self._note(("Resources", name), f"{kind} {name}: {WITHOUT_FILE[kind]}")

    def _is_wanted(self, name: str, resource: Resource) -> bool:
        condition = resource.get("Condition")
        if condition is None:
            return True
        held = self._resolver.holds(condition, ("Resources", name, "Condition"))
        if held is False:
            self._note(("Resources", name), f"{name}: its condition {condition} does not hold")
        return held is True

    def _define(self, name: str, resource: Resource, collection: str, wanted: Any, named: str) -> None:
        properties = self._properties(name, resource)
        if properties is None:
            return
        given = {key: value for key, value in properties.items() if key != named}
        path = ("Resources", name, "Properties")
        resolved = {key: self._resolver_of(key).resolve(value, (*path, key)) for key, value in given.items()}
        resolved = {key: value for key, value in resolved.items() if value is not NO_VALUE and value is not UNKNOWN}
        targets = resolved.pop("TargetArns", [])
        body = {api_name(named): self._name_of(name, named, properties), **api_members(resolved, wanted)}
        if collection == "profiles":
            body["targets"] = list(map(_shortened, targets)) if isinstance(targets, list) else targets
        self.drafts.of(collection).append(Draft(body, self._places(path), tuple(_averages(body))))

    def _properties(self, name: str, resource: Resource) -> dict[str, Any] | None:
        """None: it has something else there, which is noted."""
        found = resource.get("Properties") or {}
        if isinstance(found, dict):
            return found
        self._resolver.unknown(("Resources", name, "Properties"), "Properties must be a mapping")
        return None

    def _resolver_of(self, key: str) -> Resolver:
        return self._targets if key == "TargetArns" else self._resolver

    def _name_of(self, name: str, named: str, properties: Mapping[str, Any]) -> Any:
        path = ("Resources", name, "Properties", named)
        found = self._resolver.name_of(name, path)
        if named not in properties:
            self._note(("Resources", name), f"{name} has no {named}: its logical id is its name")
        return found

    def _register(self, name: str, kind: str) -> None:
        properties = self._properties(name, self._resolver.section("Resources")[name])
        if properties is None:
            return
        named = "ThingName" if kind == "AWS::IoT::Thing" else "ThingGroupName"
        found = self._name_of(name, named, properties)
        if found is UNKNOWN:
            return
        path = ("Resources", name)
        lost = [key for key in ("AttributePayload", "ThingGroupProperties", "Tags") if key in properties]
        if lost:
            self._note(path, f"{kind} {found}: a fleet file has no place for {', '.join(lost)}")
        if kind == "AWS::IoT::Thing":
            self.drafts.things.append(found)
            return
        if "QueryString" in properties:
            self._note(path, f"{kind} {found} is dynamic: it is a group without things here")
        parent = self._resolver.resolve(properties.get("ParentGroupName"), (*path, "Properties", "ParentGroupName"))
        has_parent = parent is not None and parent is not NO_VALUE
        self.drafts.groups[found] = {"parent": parent} if has_parent else {}

    def finish(self) -> None:
        """What the whole says: groups that only targets name, and what is not ours."""
        self.drafts.name_groups_of_targets()
        if self._others:
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(self._others.items()))
            self.drafts.notes.append(f"not Detect's, left out: {listed}")

    def _note(self, path: KeyPath, text: str) -> None:
        self.drafts.notes.append(f"{_spot(self._resolver.document, path)}: {text}")

    def _places(self, base: KeyPath) -> PlaceOf:
        document = self._resolver.document
        return lambda path: _spot(
            document, (*base, *(property_of(step) if isinstance(step, str) else step for step in path))
        )


def _shortened(target: Any) -> Any:
    return (short_target(target) or target) if isinstance(target, str) else target


def _averages(body: Mapping[str, Any]) -> list[Finding]:
    """CloudFormation's schema lists a statistic that Detect never had."""
    findings = []
    behaviors = body.get("behaviors")
    for at, behavior in enumerate(behaviors if isinstance(behaviors, list) else ()):
        match behavior:
            case {"name": name, "criteria": {"statisticalThreshold": {"statistic": "Average"}}}:
                message = f"Behavior {name} is malformed. There is no statistic Average; there is {_known()}"
                findings.append(Finding(("behaviors", at, "criteria", "statisticalThreshold", "statistic"), message))
    return findings


def _known() -> str:
    return f"{', '.join(STATISTICS)} (p50 is the middle one)"


def api_name(name: str) -> str:
    return name[:1].lower() + name[1:]


def _spot(document: Document, path: KeyPath) -> str:
    place = document.place(path)
    return f"{place.file}:{place.line}:{place.column}"
