"""Definitions out of a CloudFormation template, YAML or JSON (clients.md §3.7): what `cdk synth` writes, too.

Intrinsic functions are resolved from parameters, conditions, mappings and the template's own resources; what can't be
is a problem with its place. CloudFormation spells members in Pascal case, counts as strings, and has targets in the
profile.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import YAMLError

from config.model import CustomMetric, Dimension, Fleet, Group, Rules, SecurityProfile
from config.targets import short_target

PREFIX: Final = "AWS::IoT::"
_SUB: Final = re.compile(r"\$\{(!?)([^}]+)\}")
_NAMES: Final = {
    "SecurityProfile": ("SecurityProfileName", "securityprofile"),
    "CustomMetric": ("MetricName", "custommetric"),
    "Dimension": ("Name", "dimension"),
    "ThingGroup": ("ThingGroupName", "thinggroup"),
    "Thing": ("ThingName", "thing"),
}
"""Kind of resource -> the property with its name, and what stands before the name in its ARN."""
_WHOLE: Final = ("Count", "DurationSeconds", "ConsecutiveDatapointsToAlarm", "ConsecutiveDatapointsToClear")
_KEPT: Final = {"SNS"}  # a map's key, and no member


class Unreadable(Exception):
    """The file is no template."""


class Unresolved(Exception):
    """A value that only a deployment knows."""


@dataclass(slots=True)
class Template:
    """A template under way. `problems` says what could not be taken over, with line and place."""

    file: str
    body: Mapping[str, Any]
    parameters: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def resources(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(logical id, properties, resolved) of the resources of a kind that are not switched off."""
        for logical, resource in (self.body.get("Resources") or {}).items():
            if not isinstance(resource, Mapping) or resource.get("Type") != PREFIX + kind:
                continue
            try:
                if "Condition" in resource and not _condition(self, str(resource["Condition"])):
                    continue
                yield str(logical), _resolved(self, resource.get("Properties") or {})
            except Unresolved as problem:
                self.problems.append(f"{self.file}:{_line(resource)}: Resources.{logical}: {problem}")

    def names(self) -> dict[str, tuple[str, str]]:
        """{logical id: (kind, name)} of the resources that may be referred to."""
        found = {}
        for logical, resource in (self.body.get("Resources") or {}).items():
            kind = str(resource.get("Type", "")).removeprefix(PREFIX) if isinstance(resource, Mapping) else ""
            if kind in _NAMES:
                given = (resource.get("Properties") or {}).get(_NAMES[kind][0])
                found[str(logical)] = (kind, given if isinstance(given, str) else str(logical))
        return found


def read(file: str, text: str, parameters: Mapping[str, str], region: str, account: str) -> tuple[Rules, Template]:
    """The definitions of a template, and what there is to say about it.

    Raises:
        Unreadable: it is no template.
    """
    body = _parsed(text)
    defaults = {name: each["Default"] for name, each in (body.get("Parameters") or {}).items() if "Default" in each}
    pseudo = {
        "AWS::Region": region,
        "AWS::AccountId": account,
        "AWS::Partition": "aws",
        "AWS::URLSuffix": "amazonaws.com",
    }
    template = Template(file, body, {**defaults, **pseudo, **parameters})
    for logical, resource in (body.get("Resources") or {}).items():
        kind = str(resource.get("Type", "")) if isinstance(resource, Mapping) else ""
        if kind.startswith(PREFIX) and kind.removeprefix(PREFIX) not in _NAMES:
            template.notes.append(f"{file}:{_line(resource)}: Resources.{logical}: {kind} is left out")
    return _rules(template), template


def _rules(template: Template) -> Rules:
    return Rules(
        profiles=tuple(_made(template, "SecurityProfile", SecurityProfile, _profile)),
        custom_metrics=tuple(
            _made(template, "CustomMetric", CustomMetric, lambda name, body: {"metricName": name, **body})
        ),
        dimensions=tuple(_made(template, "Dimension", Dimension, lambda name, body: {"name": name, **body})),
        fleet=_fleet(template),
    )


def _made(
    template: Template, kind: str, made: type[Any], shape: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> Iterator[Any]:
    member = _NAMES[kind][0]
    for logical, properties in template.resources(kind):
        name = str(properties.get(member) or logical)
        body = _camel({key: value for key, value in properties.items() if key != member})
        try:
            yield msgspec.convert(shape(name, body), made, strict=False)
        except msgspec.ValidationError as problem:
            template.problems.append(f"{template.file}: Resources.{logical}: {problem}")


def _profile(name: str, body: dict[str, Any]) -> dict[str, Any]:
    targets = [short_target(target) or target for target in body.pop("targetArns", ())]
    return {"securityProfileName": name, "targets": targets, **body}


def _fleet(template: Template) -> Fleet:
    groups = {}
    for logical, properties in template.resources("ThingGroup"):
        if properties.get("QueryString"):
            template.notes.append(f"{template.file}: Resources.{logical}: a dynamic group is left out")
            continue
        groups[str(properties.get("ThingGroupName") or logical)] = Group(properties.get("ParentGroupName"))
    things = tuple(str(properties.get("ThingName") or logical) for logical, properties in template.resources("Thing"))
    return Fleet(things, groups)


def _camel(value: Any) -> Any:
    """Pascal case to camel case, numbers out of strings where AWS's API has numbers."""
    match value:
        case Mapping():
            # Tags are Pascal case in the API as well.
            return {
                _member(key): inner if key == "Tags" else _number(key, _camel(inner)) for key, inner in value.items()
            }
        case list() | tuple():
            return [_camel(inner) for inner in value]
    return value


def _member(key: str) -> str:
    return key if key in _KEPT else key[:1].lower() + key[1:]


def _number(key: str, value: Any) -> Any:
    return int(value) if key in _WHOLE and isinstance(value, str) and value.isdecimal() else value


# ---- intrinsic functions ----


def _resolved(template: Template, node: Any) -> Any:
    match node:
        case Mapping() if len(node) == 1 and (function := _FUNCTIONS.get(next(iter(node)))) is not None:
            return function(template, next(iter(node.values())))
        case Mapping():
            pairs = {str(key): _resolved(template, inner) for key, inner in node.items()}
            return {key: inner for key, inner in pairs.items() if inner is not _NO_VALUE}
        case list():
            return [inner for inner in (_resolved(template, each) for each in node) if inner is not _NO_VALUE]
    return node


_NO_VALUE: Final = object()


def _ref(template: Template, name: Any) -> Any:
    if name == "AWS::NoValue":
        return _NO_VALUE
    if name in template.parameters:
        return template.parameters[name]
    resources = template.names()
    if name in resources:
        return resources[name][1]
    raise Unresolved(f"!Ref {name}: give it with --parameter {name}=VALUE")


def _get_att(template: Template, node: Any) -> Any:
    logical, _, attribute = (
        ".".join(map(str, node)).partition(".") if isinstance(node, list) else str(node).partition(".")
    )
    resources = template.names()
    if logical in resources and attribute in ("Arn", "SecurityProfileArn", "MetricArn"):
        kind, name = resources[logical]
        place = f"{template.parameters['AWS::Region']}:{template.parameters['AWS::AccountId']}"
        return f"arn:aws:iot:{place}:{_NAMES[kind][1]}/{name}"
    given = template.parameters.get(f"{logical}.{attribute}")
    if given is None:
        raise Unresolved(f"!GetAtt {logical}.{attribute}: give it with --parameter {logical}.{attribute}=VALUE")
    return given


def _sub(template: Template, node: Any) -> str:
    text, own = (node[0], node[1]) if isinstance(node, list) else (node, {})
    known = {str(key): _resolved(template, value) for key, value in own.items()}

    def filled(match: "re.Match[str]") -> str:
        literal, name = match[1], match[2].strip()
        if literal:
            return "${" + name + "}"
        if name in known:
            return str(known[name])
        return str(
            _get_att(template, name) if "." in name and name not in template.parameters else _ref(template, name)
        )

    return _SUB.sub(filled, str(text))


def _join(template: Template, node: Any) -> str:
    separator, parts = node
    return str(separator).join(map(str, _resolved(template, parts)))


def _select(template: Template, node: Any) -> Any:
    index, parts = node
    return _resolved(template, parts)[int(_resolved(template, index))]


def _split(template: Template, node: Any) -> list[str]:
    separator, text = node
    return str(_resolved(template, text)).split(str(separator))


def _find_in_map(template: Template, node: Any) -> Any:
    try:
        found: Any = template.body.get("Mappings") or {}
        for key in _resolved(template, node):
            found = found[key]
    except (KeyError, TypeError):
        raise Unresolved(f"!FindInMap {list(node)}: there is no such entry") from None
    return _resolved(template, found)


def _if(template: Template, node: Any) -> Any:
    condition, yes, no = node
    return _resolved(template, yes if _condition(template, str(condition)) else no)


def _import_value(template: Template, node: Any) -> Any:
    name = _resolved(template, node)
    if f"import:{name}" in template.parameters:
        return template.parameters[f"import:{name}"]
    raise Unresolved(f"!ImportValue {name}: another stack knows it; give it with --parameter import:{name}=VALUE")


def _condition(template: Template, name: str) -> bool:
    conditions = template.body.get("Conditions") or {}
    if name not in conditions:
        raise Unresolved(f"there is no condition {name}")
    return bool(_truth(template, conditions[name]))


def _truth(template: Template, node: Any) -> bool:
    match node:
        case {"Fn::Equals": [left, right]}:
            return bool(str(_resolved(template, left)) == str(_resolved(template, right)))
        case {"Fn::And": list(each)}:
            return all(_truth(template, one) for one in each)
        case {"Fn::Or": list(each)}:
            return any(_truth(template, one) for one in each)
        case {"Fn::Not": [one]}:
            return not _truth(template, one)
        case {"Condition": name}:
            return _condition(template, str(name))
    raise Unresolved("a condition that can't be understood")


_FUNCTIONS: Final[Mapping[str, Callable[[Template, Any], Any]]] = {
    "Ref": _ref,
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::FindInMap": _find_in_map,
    "Fn::If": _if,
    "Fn::ImportValue": _import_value,
}


# ---- the file ----


def _parsed(text: str) -> Mapping[str, Any]:
    """The template with its short tags (`!Ref`) written out; JSON is taken for what it is."""
    try:
        body = json.loads(text) if text.lstrip().startswith("{") else _long(YAML().load(text))
    except (YAMLError, ValueError, RecursionError) as problem:
        raise Unreadable(f"it is neither YAML nor JSON: {problem}") from None
    if not isinstance(body, Mapping) or not isinstance(body.get("Resources"), Mapping):
        raise Unreadable("it has no Resources: is it a CloudFormation template?")
    return body


def _long(node: Any) -> Any:
    tag = _tag(node)
    match node:
        case TaggedScalar():
            plain: Any = node.value
        case CommentedMap():
            plain = Lined((str(key), _long(inner)) for key, inner in node.items())
            plain.line = node.lc.line + 1
        case CommentedSeq():
            plain = [_long(inner) for inner in node]
        case _:
            plain = node
    if tag is None:
        return plain
    return {tag: plain if tag != "Fn::GetAtt" or isinstance(plain, list) else str(plain)}


class Lined(dict[str, Any]):
    """A mapping that knows its line."""

    line = 1


def _tag(node: Any) -> str | None:
    value = getattr(getattr(node, "tag", None), "value", None)
    if not isinstance(value, str) or not value.startswith("!"):
        return None
    name = value.removeprefix("!")
    return name if name in ("Ref", "Condition") else f"Fn::{name}"


def _line(node: Any) -> int:
    return getattr(node, "line", 1)
