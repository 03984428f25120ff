"""CloudFormation's intrinsic functions: what a template's values are, as far as a template alone can say.

Parameters, pseudo parameters, mappings, conditions, and the names and ARNs of resources that the template itself names.
What only a stack knows (a generated name, another stack's export, a secret) is given by the caller, or is a problem
that says how to give it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from config.document import Document
from config.problem import KeyPath, Problem, problem

TEXT_MAX: Final = 1_000_000
"""Characters that one value may grow to."""

_SUBSTITUTED: Final = re.compile(r"\$\{(!?)([^}]*)\}")
_DYNAMIC: Final = re.compile(r"\{\{resolve:[^}]*\}\}")
_LISTS: Final = ("CommaDelimitedList", "List<")


class _Marker:
    """A value that is none."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NO_VALUE: Final = _Marker("NO_VALUE")
"""`AWS::NoValue`: the member that has it is absent."""
UNKNOWN: Final = _Marker("UNKNOWN")
"""It can't be told; the problem has been noted."""


@dataclass(frozen=True, slots=True)
class Named:
    """A type of resources whose name and ARN are known beforehand.

    `arns`: attribute -> what follows "arn:PARTITION:", with {region}, {account}, {folder} and {name}. `ref`: what `Ref`
    gives, "" for the name. `invents`: CloudFormation makes up a name with a random end where the template has none.
    """

    name: str
    arns: Mapping[str, str]
    ref: str = ""
    invents: bool = False


def _iot(name: str, kind: str, attribute: str = "Arn") -> Named:
    return Named(name, {attribute: f"iot:{{region}}:{{account}}:{kind}/{{name}}"})


RESOURCES: Final[Mapping[str, Named]] = {
    "AWS::IoT::SecurityProfile": _iot("SecurityProfileName", "securityprofile", "SecurityProfileArn"),
    "AWS::IoT::CustomMetric": _iot("MetricName", "custommetric", "MetricArn"),
    "AWS::IoT::Dimension": _iot("Name", "dimension"),
    "AWS::IoT::Thing": _iot("ThingName", "thing"),
    "AWS::IoT::ThingGroup": _iot("ThingGroupName", "thinggroup"),
    "AWS::IoT::ThingType": _iot("ThingTypeName", "thingtype"),
    "AWS::IoT::BillingGroup": _iot("BillingGroupName", "billinggroup"),
    "AWS::SNS::Topic": Named("TopicName", {"TopicArn": "sns:{region}:{account}:{name}"}, "TopicArn", invents=True),
    "AWS::IAM::Role": Named("RoleName", {"Arn": "iam::{account}:role{folder}{name}"}, invents=True),
}


@dataclass(slots=True)
class Resolver:
    """Tells values of one template. `given` are the caller's: parameters, and what stands in for a stack's knowledge.

    Keys of `given`: a parameter's name, a resource's logical id (what `Ref` gives), `LOGICAL_ID.ATTRIBUTE`,
    `ImportValue:NAME`, `AWS::StackName` and its like.
    """

    document: Document
    given: Mapping[str, str]
    region: str | None
    account: str | None
    problems: list[Problem] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)
    _told: dict[str, Any] = field(default_factory=dict)

    def elsewhere(self, region: str, account: str) -> "Resolver":
        """One for the same template, as of this region and account. Problems are noted in one place."""
        return replace(self, region=region, account=account, _told={})

    def section(self, name: str) -> Mapping[str, Any]:
        found = self.document.data.get(name)
        return found if isinstance(found, dict) else {}

    def resolve(self, value: Any, path: KeyPath) -> Any:
        """The value without functions in it; UNKNOWN (at any depth) where a problem was noted, NO_VALUE for none."""
        match value:
            case dict() if len(value) == 1 and (function := _function(value)):
                ((key, argument),) = value.items()
                return function(self, argument, (*path, key))
            case dict():
                members = {key: self.resolve(each, (*path, key)) for key, each in value.items()}
                return {key: each for key, each in members.items() if each is not NO_VALUE}
            case list():
                items = [self.resolve(each, (*path, at)) for at, each in enumerate(value)]
                return [each for each in items if each is not NO_VALUE]
            case str() if _DYNAMIC.search(value):
                return self.unknown(
                    path, "a dynamic reference is looked up when a stack is made: write the value itself"
                )
        return value

    def unknown(self, path: KeyPath, message: str) -> Any:
        """Note a problem."""
        self.problems.append(problem(self.document.place(path), message))
        return UNKNOWN

    # Names

    def ref(self, name: str, path: KeyPath) -> Any:
        """What `Ref` gives."""
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.section("Parameters"):
            return self._parameter(name, path)
        if name in self.given:
            return self.given[name]
        return self._pseudo(name, path) if name.startswith("AWS::") else self._ref_of_resource(name, path)

    def _ref_of_resource(self, name: str, path: KeyPath) -> Any:
        resource = self.section("Resources").get(name)
        if not isinstance(resource, dict):
            return self.unknown(path, f"the template has no parameter or resource {name}")
        kind = RESOURCES.get(str(resource.get("Type")))
        if kind is None:
            return self.unknown(path, _stack_knows(name, resource))
        return (
            self._arn(name, kind, kind.arns[kind.ref], path, name) if kind.ref else self._name(name, kind, path, name)
        )

    def attribute(self, resource_name: str, attribute: str, path: KeyPath) -> Any:
        """What `Fn::GetAtt` gives."""
        key = f"{resource_name}.{attribute}"
        if key in self.given:
            return self.given[key]
        resource = self.section("Resources").get(resource_name)
        if not isinstance(resource, dict):
            return self.unknown(path, f"the template has no resource {resource_name}")
        kind = RESOURCES.get(str(resource.get("Type")))
        pattern = kind.arns.get(attribute) if kind else None
        if kind is None or pattern is None:
            return self.unknown(path, _stack_knows(key, resource))
        return self._arn(resource_name, kind, pattern, path, key)

    def name_of(self, resource_name: str, path: KeyPath) -> Any:
        """The name of a resource of a known type: as it says, else its logical id."""
        kind = RESOURCES[self.section("Resources")[resource_name]["Type"]]
        return self._name(resource_name, kind, path, resource_name)

    def _name(self, resource_name: str, kind: Named, path: KeyPath, key: str) -> Any:
        """`key`: by which a caller gives what only a stack knows."""
        given = self._properties(resource_name).get(kind.name)
        if given is not None:
            where: KeyPath = ("Resources", resource_name, "Properties", kind.name)
            resolved = self._once(resource_name, lambda: self.resolve(given, where), path)
            if resolved is not NO_VALUE:
                return resolved if resolved is UNKNOWN else _text(resolved)
        if kind.invents:
            return self.unknown(path, _stack_knows(key, self.section("Resources")[resource_name]))
        return resource_name

    def _arn(self, resource_name: str, kind: Named, pattern: str, path: KeyPath, key: str) -> Any:
        parts = {"name": self._name(resource_name, kind, path, key)}
        if "{region}" in pattern:
            parts["region"] = self._pseudo("AWS::Region", path)
        if "{folder}" in pattern:
            parts["folder"] = self.resolve(self._properties(resource_name).get("Path", "/"), path)
        parts["account"] = self._pseudo("AWS::AccountId", path)
        if any(part is UNKNOWN or part is NO_VALUE for part in parts.values()):
            return UNKNOWN
        return f"arn:{_partition(self.region)}:{pattern.format(**parts)}"

    def _properties(self, resource_name: str) -> Mapping[str, Any]:
        found = self.section("Resources")[resource_name].get("Properties")
        return found if isinstance(found, dict) else {}

    def _pseudo(self, name: str, path: KeyPath) -> Any:
        match name:
            case "AWS::Region":
                return self.region or self.unknown(path, "the region is not known: give it with --region")
            case "AWS::AccountId":
                return self.account or self.unknown(path, "the account is not known: give it with --account")
            case "AWS::Partition":
                return _partition(self.region)
            case "AWS::URLSuffix":
                return "amazonaws.com.cn" if _partition(self.region) == "aws-cn" else "amazonaws.com"
        return self.unknown(path, f"{name} is known only to a stack: give it with --parameter {name}=VALUE")

    def _parameter(self, name: str, path: KeyPath) -> Any:
        declared = self.section("Parameters")[name]
        declared = declared if isinstance(declared, dict) else {}
        kind = str(declared.get("Type", "String"))
        value = self.given.get(name, declared.get("Default"))
        looked_up = kind.startswith("AWS::SSM::Parameter::Value") and name not in self.given
        if value is None or looked_up:
            why = "is looked up when a stack is made" if looked_up else "has no default"
            return self.unknown(path, f"the parameter {name} {why}: give it with --parameter {name}=VALUE")
        allowed = declared.get("AllowedValues")
        if isinstance(allowed, list) and _text(value) not in map(_text, allowed):
            return self.unknown(path, f"the parameter {name} has a value that its AllowedValues don't have")
        is_list = any(word in kind for word in _LISTS)
        return [each.strip() for each in _text(value).split(",")] if is_list else value

    # Conditions

    def holds(self, condition: Any, path: KeyPath) -> bool | None:
        """Whether the named condition holds; None: it can't be told."""
        declared = self.section("Conditions")
        if not isinstance(condition, str) or condition not in declared:
            self.unknown(path, f"the template has no condition {condition}")
            return None
        body = declared[condition]
        result = self._once(f"condition {condition}", lambda: self._truth(body, ("Conditions", condition)), path)
        return None if result is UNKNOWN else bool(result)

    def _truth(self, body: Any, path: KeyPath) -> Any:
        """True, False or UNKNOWN."""
        match body:
            case {"Condition": name}:
                held = self.holds(name, path)
                return UNKNOWN if held is None else held
            case {"Fn::Equals": [left, right]}:
                sides = [self.resolve(each, (*path, "Fn::Equals", at)) for at, each in enumerate((left, right))]
                return UNKNOWN if UNKNOWN in sides else _text(sides[0]) == _text(sides[1])
            case {"Fn::Not": [each]}:
                truth = self._truth(each, (*path, "Fn::Not", 0))
                return UNKNOWN if truth is UNKNOWN else not truth
            case {"Fn::And": [*each]} | {"Fn::Or": [*each]}:
                (key,) = body
                truths = [self._truth(one, (*path, key, at)) for at, one in enumerate(each)]
                return UNKNOWN if UNKNOWN in truths else (all if key == "Fn::And" else any)(truths)
        return self.unknown(path, "a condition is made of Fn::Equals, Fn::And, Fn::Or, Fn::Not and Condition")

    def _once(self, what: str, run: Any, path: KeyPath) -> Any:
        """What `run` tells, remembered; unless it is already being told further out."""
        if what in self._busy:
            return self.unknown(path, f"{what} depends on itself")
        if what not in self._told:
            self._busy.add(what)
            self._told[what] = run()
            self._busy.discard(what)
        return self._told[what]


# The functions: each takes the resolver, its argument, and the way to that


def _ref(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    return resolver.ref(str(argument), path)


def _get_att(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    parts = argument.split(".", 1) if isinstance(argument, str) else resolver.resolve(argument, path)
    match parts:
        case [str(name), str(attribute)]:
            return resolver.attribute(name, attribute, path)
    return resolver.unknown(path, "Fn::GetAtt takes a resource and one of its attributes")


def _sub(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    match argument:
        case str(template):
            own: Mapping[str, Any] = {}
        case [str(template), dict(variables)]:
            own = {key: resolver.resolve(each, (*path, 1, key)) for key, each in variables.items()}
        case _:
            return resolver.unknown(path, "Fn::Sub takes a text, or a text and its variables")
    values = {
        name: own[name] if name in own else _named(resolver, name, path) for name in dict.fromkeys(_variables(template))
    }
    if any(value is UNKNOWN or value is NO_VALUE for value in values.values()):
        return UNKNOWN
    return _bounded(
        resolver, _SUBSTITUTED.sub(lambda m: f"${{{m[2]}}}" if m[1] else _text(values[m[2].strip()]), template), path
    )


def _variables(template: str) -> Iterator[str]:
    return (match[2].strip() for match in _SUBSTITUTED.finditer(template) if not match[1])


def _named(resolver: Resolver, name: str, path: KeyPath) -> Any:
    head, dot, attribute = name.partition(".")
    return resolver.attribute(head, attribute, path) if dot else resolver.ref(name, path)


def _join(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    match resolver.resolve(argument, path):
        case [str(between), list(parts)]:
            return UNKNOWN if UNKNOWN in parts else _bounded(resolver, between.join(map(_text, parts)), path)
        case [str(), _Marker()]:
            return UNKNOWN
    return resolver.unknown(path, "Fn::Join takes what comes between, and a list")


def _split(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    match resolver.resolve(argument, path):
        case [str(at), str(text)] if at:
            return text.split(at)
        case [_, _Marker()]:
            return UNKNOWN
    return resolver.unknown(path, "Fn::Split takes where to split, and a text")


def _select(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    match resolver.resolve(argument, path):
        case [(int() | str()) as at, list(items)] if str(at).isdecimal() and int(at) < len(items):
            return items[int(at)]
        case [_, _Marker()]:
            return UNKNOWN
    return resolver.unknown(path, "Fn::Select takes a number and a list that is longer than it")


def _find_in_map(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    keys = resolver.resolve(argument, path)
    match keys:
        case [str(name), (str() | int()) as first, (str() | int()) as second, *more]:
            found = resolver.section("Mappings").get(name)
            for key in (first, second):
                found = found.get(str(key)) if isinstance(found, dict) else None
            if found is not None:
                return found
            if more and isinstance(more[0], dict) and "DefaultValue" in more[0]:
                return more[0]["DefaultValue"]
            return resolver.unknown(path, f"the mapping {name} has nothing for {first} and {second}")
        case list() if UNKNOWN in keys:
            return UNKNOWN
    return resolver.unknown(path, "Fn::FindInMap takes a mapping and two keys")


def _if(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    match argument:
        case [condition, yes, no]:
            held = resolver.holds(condition, path)
            if held is None:
                return UNKNOWN
            return resolver.resolve(yes if held else no, (*path, 1 if held else 2))
    return resolver.unknown(path, "Fn::If takes a condition and two values")


def _import_value(resolver: Resolver, argument: Any, path: KeyPath) -> Any:
    name = resolver.resolve(argument, path)
    if name is UNKNOWN or f"ImportValue:{name}" in resolver.given:
        return UNKNOWN if name is UNKNOWN else resolver.given[f"ImportValue:{name}"]
    return resolver.unknown(
        path, f"{name} is exported by another stack: give it with --parameter 'ImportValue:{name}=VALUE'"
    )


_FUNCTIONS: Final = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Split": _split,
    "Fn::Select": _select,
    "Fn::FindInMap": _find_in_map,
    "Fn::If": _if,
    "Fn::ImportValue": _import_value,
}


def _function(value: Mapping[str, Any]) -> Any:
    """The function that a mapping of one member calls; None where it is a plain mapping."""
    (key,) = value
    if key in _FUNCTIONS:
        return _FUNCTIONS[key]
    return _unsupported if key.startswith("Fn::") else None


def _unsupported(resolver: Resolver, _: Any, path: KeyPath) -> Any:
    return resolver.unknown(path, f"{path[-1]} can't be told from the template alone: write the value itself")


def _bounded(resolver: Resolver, text: str, path: KeyPath) -> Any:
    return text if len(text) <= TEXT_MAX else resolver.unknown(path, "the text gets too long")


def _stack_knows(key: str, resource: Mapping[str, Any]) -> str:
    head = f"{key} of the {resource.get('Type')} is known only to its stack"
    return f"{head}: give it with --parameter {key}=VALUE"


def _partition(region: str | None) -> str:
    heads = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((partition for head, partition in heads.items() if (region or "").startswith(head)), "aws")


def _text(value: Any) -> str:
    """As CloudFormation writes a value into a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(_text, value)) if isinstance(value, list) else str(value)
