"""Which profiles, custom metrics, dimensions and fleets are valid, alone and together (spec.md §5, §6, §10.7, §11)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import regex

from config.behaviors import NAME, NAME_RULE, check_behaviors, check_dimension, metrics_of, unknown_metric
from config.kinds import Kinds, Metric
from config.model import (
    Behavior,
    CustomMetric,
    Dimension,
    Fleet,
    MetricsExportConfig,
    Rules,
    SecurityProfile,
    Tag,
)
from config.problem import Finding
from config.shape import did_you_mean
from config.targets import ALL, GROUP, group_of, short_target
from config.topics import RULE, is_topic

BEHAVIORS_MAX: Final = 100
ELEMENTS_MAX: Final = 1000
PROFILES_PER_TARGET_MAX: Final = 5
DIMENSIONS_MAX: Final = 10
CUSTOM_METRICS_MAX: Final = 100
FILTERS_MAX: Final = 100
GROUP_DEPTH_MAX: Final = 7
TAGS_MAX: Final = 50

_PRINTABLE: Final = regex.compile(r"[\p{Graph}\x20]*")  # spec.md §5.1, §6.3
_VARIABLE: Final = re.compile(r"\$\{[^}]*\}")

Found = Iterator[Finding]


def check_rules(rules: Rules, kinds: Kinds) -> list[Finding]:
    """Everything wrong with, or odd about, what decides alarms; paths begin with `profiles`, `fleet` and so on."""
    return [*_custom_metrics(rules), *_dimensions(rules), *_fleet(rules.fleet), *_profiles(rules, kinds)]


# Custom metrics


def _custom_metrics(rules: Rules) -> Found:
    yield from _twice((metric.metric_name for metric in rules.custom_metrics), "custom_metrics", "metricName")
    if len(rules.custom_metrics) > CUSTOM_METRICS_MAX:
        yield _at(f"{len(rules.custom_metrics)} custom metrics; at most {CUSTOM_METRICS_MAX}", "custom_metrics")
    for at, metric in enumerate(rules.custom_metrics):
        for found in check_one_custom_metric(metric):
            yield found.below("custom_metrics", at)


def check_one_custom_metric(metric: CustomMetric) -> Found:
    """What is wrong with a custom metric alone; paths begin inside it."""
    if not NAME.fullmatch(metric.metric_name):
        yield _at(f"a custom metric's name {NAME_RULE}", "metricName")
    elif metric.metric_name.startswith("aws:"):
        yield _at("a custom metric's name must not begin with aws:", "metricName")
    if metric.display_name is not None:
        yield from _printable(metric.display_name, 128, "displayName")
    yield from _tags(metric.tags)


# Dimensions


def _dimensions(rules: Rules) -> Found:
    yield from _twice((dimension.name for dimension in rules.dimensions), "dimensions", "name")
    if len(rules.dimensions) > DIMENSIONS_MAX:
        yield _at(f"{len(rules.dimensions)} dimensions; at most {DIMENSIONS_MAX}", "dimensions")
    for at, dimension in enumerate(rules.dimensions):
        for found in check_one_dimension(dimension):
            yield found.below("dimensions", at)


def check_one_dimension(dimension: Dimension) -> Found:
    """What is wrong with a dimension alone; paths begin inside it."""
    if not NAME.fullmatch(dimension.name):
        yield _at(f"a dimension's name {NAME_RULE}", "name")
    if not 1 <= len(dimension.string_values) <= FILTERS_MAX:
        yield _at(f"a dimension has 1 to {FILTERS_MAX} topic filters", "stringValues")
    for at, text in enumerate(dimension.string_values):
        message = bad_filter(text)
        if message:
            yield _at(message, "stringValues", at)
    yield from _tags(dimension.tags)


def bad_filter(text: str) -> str | None:
    """Why a text is no topic filter (spec.md §6.1, §6.2); None where it is one."""
    if not 1 <= len(text) <= 256:
        return "a topic filter has 1 to 256 characters"
    if any(variable != "${iot:ClientId}" for variable in _VARIABLE.findall(text)):
        return "the only variable of a topic filter is ${iot:ClientId}"
    levels = text.split("/")
    if any(("+" in level or "#" in level) and len(level) > 1 for level in levels):
        return "in a topic filter, + and # stand for a whole level"
    if "#" in levels[:-1]:
        return "in a topic filter, # is the last level"
    return "a topic filter has no NUL" if "\0" in text else None


# Fleet


def _fleet(fleet: Fleet) -> Found:
    yield from _thing_names(fleet.things, "fleet", "things")
    for name, group in fleet.groups.items():
        if not NAME.fullmatch(name):
            yield Finding(("fleet", "groups", name), f"a group's name {NAME_RULE}", at_key=True)
        if group.parent is not None:
            yield from _ancestry(fleet, name, group.parent)
        yield from _thing_names(group.things, "fleet", "groups", name, "things")


def _thing_names(things: Iterable[str], *path: str) -> Found:
    for at, thing in enumerate(things):
        if not NAME.fullmatch(thing):
            yield Finding((*path, at), f"a thing's name {NAME_RULE}")


def _ancestry(fleet: Fleet, name: str, parent: str) -> Found:
    """A group's way up: it must exist, end, and have few steps."""
    path = ("fleet", "groups", name, "parent")
    if parent not in fleet.groups:
        yield _at(f'group "{parent}" is not defined{did_you_mean(parent, list(fleet.groups))}', *path)
        return
    ancestors: list[str] = []
    above: str | None = parent
    while above is not None and above in fleet.groups and above not in ancestors:
        ancestors.append(above)
        above = fleet.groups[above].parent
    if name in ancestors:
        yield _at("the group is among its own ancestors", *path)
    elif above not in ancestors and len(ancestors) >= GROUP_DEPTH_MAX:  # a circle further up is said there
        yield _at(f"groups are nested at most {GROUP_DEPTH_MAX} deep", *path)


# Profiles


def _profiles(rules: Rules, kinds: Kinds) -> Found:
    yield from _twice((profile.security_profile_name for profile in rules.profiles), "profiles", "securityProfileName")
    attached: dict[str, int] = {}
    for at, profile in enumerate(rules.profiles):
        for found in check_one_profile(profile, rules, kinds):
            yield found.below("profiles", at)
        for found in _targets(profile, rules.fleet, attached):
            yield found.below("profiles", at)


def check_one_profile(profile: SecurityProfile, rules: Rules, kinds: Kinds) -> Found:
    """What is wrong with a profile, or odd, but for its targets; paths begin inside it.

    Of `rules`, what a profile may refer to counts: custom metrics, dimensions, limits.
    """
    name = profile.security_profile_name
    if not NAME.fullmatch(name):
        yield _at(f"a security profile's name {NAME_RULE}", "securityProfileName")
    if profile.security_profile_description is not None:
        yield from _printable(profile.security_profile_description, 1000, "securityProfileDescription")
    yield from check_quotas(profile.behaviors)
    given = (profile.behaviors, kinds, rules.custom_metrics, rules.dimensions, rules.limits)
    for found in check_behaviors(*given, profile=name):
        yield found.below("behaviors")
    yield from _alert_targets(profile)
    yield from _export(profile)
    yield from _tags(profile.tags)
    yield from _retained(profile, metrics_of(kinds, rules.custom_metrics), rules)


def check_quotas(behaviors: Sequence[Behavior]) -> Found:
    """Whether a profile has too many behaviors, or too much in them (spec.md §11)."""
    if len(behaviors) > BEHAVIORS_MAX:
        yield _at(f"{len(behaviors)} behaviors; a security profile has at most {BEHAVIORS_MAX}", "behaviors")
    elements = sum(map(_elements, behaviors))
    if elements > ELEMENTS_MAX:
        message = f"{elements} cidrs, ports, numbers and strings in all behaviors; at most {ELEMENTS_MAX}"
        yield _at(message, "behaviors")


def _elements(behavior: Behavior) -> int:
    value = behavior.criteria.value if behavior.criteria else None
    if value is None:
        return 0
    return sum(len(members or ()) for members in (value.cidrs, value.ports, value.numbers, value.strings))


def _alert_targets(profile: SecurityProfile) -> Found:
    for key, target in profile.alert_targets.items():
        if key != "SNS":
            yield Finding(("alertTargets", key), "the only kind of alert target is SNS", at_key=True)
        if not 1 <= len(target.alert_target_arn) <= 2048:
            yield _at("an alertTargetArn has 1 to 2048 characters", "alertTargets", key, "alertTargetArn")
        elif key == "SNS" and not is_topic(target.alert_target_arn):
            yield _at(f"the ARN of an SNS topic {RULE}", "alertTargets", key, "alertTargetArn")
        yield from _role(target.role_arn, "alertTargets", key)


def _export(profile: SecurityProfile) -> Found:
    config = profile.metrics_export_config
    if config is not None:
        for found in _export_config(config):
            yield found.below("metricsExportConfig")
        return
    for at, behavior in enumerate(profile.behaviors):
        if behavior.export_metric:
            yield _odd("exportMetric does nothing without metricsExportConfig", "behaviors", at, "exportMetric")
    for at, retained in enumerate(profile.additional_metrics_to_retain_v2):
        if retained.export_metric:
            path = ("additionalMetricsToRetainV2", at, "exportMetric")
            yield _odd("exportMetric does nothing without metricsExportConfig", *path)


def _export_config(config: MetricsExportConfig) -> Found:
    topic = config.mqtt_topic
    if not 1 <= len(topic) <= 512 or {"+", "#", "\0"} & set(topic):
        yield _at("an mqttTopic has 1 to 512 characters and no wildcards", "mqttTopic")
    yield from _role(config.role_arn)


def _role(role_arn: str, *path: str) -> Found:
    if not 20 <= len(role_arn) <= 2048:
        yield _at("a roleArn has 20 to 2048 characters", *path, "roleArn")


def _retained(profile: SecurityProfile, metrics: Mapping[str, Metric], rules: Rules) -> Found:
    """Metrics that are kept without being judged; with a dimension on those that may have one (spec.md §12 #16)."""
    for at, name in enumerate(profile.additional_metrics_to_retain):
        if name not in metrics:
            yield _at(unknown_metric(name, metrics), "additionalMetricsToRetain", at)
    dimensions = frozenset(dimension.name for dimension in rules.dimensions)
    for at, retained in enumerate(profile.additional_metrics_to_retain_v2):
        path = ("additionalMetricsToRetainV2", at)
        metric = metrics.get(retained.metric)
        if metric is None:
            yield _at(unknown_metric(retained.metric, metrics), *path, "metric")
        elif retained.metric_dimension is not None:
            for found in check_dimension(retained.metric_dimension, metric, dimensions):
                yield found.below(*path)


def _targets(profile: SecurityProfile, fleet: Fleet, attached: dict[str, int]) -> Found:
    """The profile's targets; `attached` counts the profiles of each so far."""
    if not profile.targets:
        yield _odd("the security profile has no targets: it watches nothing", "targets")
    seen = set()
    for at, text in enumerate(profile.targets):
        target = short_target(text)
        if target is None:
            message = f"a target is one of {', '.join(ALL)}, {GROUP}NAME, or an ARN of these"
            yield _at(message, "targets", at)
        elif target not in seen:
            seen.add(target)
            yield from _target(target, at, fleet, attached)


def _target(target: str, at: int, fleet: Fleet, attached: dict[str, int]) -> Found:
    group = group_of(target)
    if group is not None and group not in fleet.groups:
        yield _at(f'group "{group}" is not defined{did_you_mean(group, list(fleet.groups))}', "targets", at)
    attached[target] = attached.get(target, 0) + 1
    if attached[target] > PROFILES_PER_TARGET_MAX:
        yield _at(f"{target} has more than {PROFILES_PER_TARGET_MAX} security profiles", "targets", at)


# What several kinds of objects have


def _tags(tags: Iterable[Tag]) -> Found:
    tags = list(tags)
    if len(tags) > TAGS_MAX:
        yield _at(f"{len(tags)} tags; at most {TAGS_MAX}", "tags")
    for at, tag in enumerate(tags):
        if not 1 <= len(tag.key) <= 128:
            yield _at("a tag's Key has 1 to 128 characters", "tags", at, "Key")
        if len(tag.value) > 256:
            yield _at("a tag's Value has at most 256 characters", "tags", at, "Value")


def _printable(text: str, length_max: int, member: str) -> Found:
    if len(text) > length_max or not _PRINTABLE.fullmatch(text):
        yield _at(f"{member} has at most {length_max} characters, all printable", member)


def _twice(names: Iterable[str], kind: str, member: str) -> Found:
    seen = set()
    for at, name in enumerate(names):
        if name in seen:
            yield _at(f'"{name}" is defined a second time', kind, at, member)
        seen.add(name)


def _odd(message: str, *path: str | int) -> Finding:
    return Finding(path, message, is_warning=True)


def _at(message: str, *path: str | int) -> Finding:
    return Finding(path, message)
