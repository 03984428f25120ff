"""Which behaviors are valid (spec.md Appendix B, 1 to 9): one code path for files, `check` and the API.

Every error begins `Behavior NAME is malformed.`, as AWS's do.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from math import isfinite
from typing import Any, Final

from config.explain import explain
from config.kinds import NUMERIC, Kinds, Metric
from config.model import Behavior, Criteria, CustomMetric, Dimension, Limits, MetricDimension, MetricValue
from config.problem import Finding
from config.shape import did_you_mean

DURATIONS: Final = (300, 600, 900, 1800, 3600)
STATISTICS: Final = ("p0", "p0.1", "p0.01", "p1", "p10", "p50", "p90", "p99", "p99.9", "p99.99", "p100")
CONSECUTIVE_MAX: Final = 10
COUNT_MAX: Final = 2**63 - 1
DURATION_MAX_S: Final = 14 * 86_400
"""With `durations: any`: no datapoint is kept longer."""

NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
NAME_RULE: Final = 'must be 1 to 128 characters of a-z, A-Z, 0-9, ":", "_" and "-"'

_CIDR: Final = re.compile(r"[a-fA-F0-9:.]{2,43}(?:/[0-9]{1,3})?")
_MEMBERS: Final = ("count", "cidrs", "ports", "number", "numbers", "strings")
# Not above, below, less, few …: names that say what is normal, as a behavior does, speak so too.
_HIGH: Final = frozenset({"high", "max", "maximum", "many", "much", "excess", "excessive", "flood", "spike"})
_LOW: Final = frozenset({"low", "min", "minimum", "insufficient", "lack"})
_WORD: Final = re.compile(r"[0-9]+[A-Z]?[a-z]*|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True, slots=True)
class Known:
    """What a behavior may refer to."""

    metrics: Mapping[str, Metric]
    dimensions: frozenset[str]
    limits: Limits
    profile: str = ""


Found = Iterator[Finding]


def check_behaviors(
    behaviors: Sequence[Behavior],
    kinds: Kinds,
    custom: Iterable[CustomMetric],
    dimensions: Iterable[Dimension],
    limits: Limits,
    *,
    profile: str = "",
) -> list[Finding]:
    """Everything wrong with, or odd about, the behaviors of one profile.

    Args:
        behaviors: as decoded; of the right shape, and nothing else is taken for granted.
        kinds: the metrics of this build.
        custom: the custom metrics that are defined.
        dimensions: those that are defined.
        limits: decides which durations there are.
        profile: its name, against which the operators are held as well.

    Returns:
        Findings whose path begins with the behavior's index; warnings are marked.
    """
    known = Known(metrics_of(kinds, custom), frozenset(each.name for each in dimensions), limits, profile)
    found: list[Finding] = []
    names: set[str] = set()
    for at, behavior in enumerate(behaviors):
        errors = [*_name(behavior, names), *_metric(behavior, known), *_criteria(behavior, known)]
        found += [_malformed(behavior, error).below(at) for error in errors]
        if not errors:
            found += [warning.below(at) for warning in _oddities(behavior, known)]
    return found


def metrics_of(kinds: Kinds, custom: Iterable[CustomMetric]) -> dict[str, Metric]:
    """Every metric that a behavior can name: the built-in ones and the custom ones that are defined."""
    made = {each.metric_name: kinds.custom[each.metric_type](each.metric_name) for each in custom}
    return {**made, **kinds.metrics}


def check_dimension(given: MetricDimension, metric: Metric, dimensions: frozenset[str]) -> Found:
    """Whether a metric may be restricted so (spec.md §1.1); paths begin at whoever has the `metricDimension`."""
    if not metric.dimension:
        yield _at(f"{metric.name} can't have a metricDimension", "metricDimension")
    if given.dimension_name not in dimensions:
        hint = did_you_mean(given.dimension_name, sorted(dimensions))
        yield _at(f'dimension "{given.dimension_name}" is not defined{hint}', "metricDimension", "dimensionName")


def unknown_metric(name: str, metrics: Mapping[str, Metric]) -> str:
    kind = "metric" if name.startswith("aws:") else "custom metric"
    undefined = "does not exist" if kind == "metric" else "is not defined"
    return f'{kind} "{name}" {undefined}{did_you_mean(name, list(metrics))}'


def _malformed(behavior: Behavior, error: Finding) -> Finding:
    return Finding(error.path, f"Behavior {behavior.name} is malformed. {error.message}")


def _name(behavior: Behavior, names: set[str]) -> Found:
    if not NAME.fullmatch(behavior.name):
        yield _at(f"name {NAME_RULE}", "name")
    if behavior.name in names:
        yield _at("another behavior of the profile has this name", "name")
    names.add(behavior.name)


def _metric(behavior: Behavior, known: Known) -> Found:
    if not behavior.metric:
        yield _at("metric is required")
        return
    metric = known.metrics.get(behavior.metric)
    if metric is None:
        yield _at(unknown_metric(behavior.metric, known.metrics), "metric")
    elif behavior.metric_dimension is not None:
        yield from check_dimension(behavior.metric_dimension, metric, known.dimensions)


def _criteria(behavior: Behavior, known: Known) -> Found:
    """The criteria; what depends on the metric is left out while that is unknown."""
    criteria = behavior.criteria
    if criteria is None:
        yield _at("criteria is required")
        return
    metric = known.metrics.get(behavior.metric or "")
    check = _shape_of(criteria)
    if check is None:
        yield _at("criteria must have exactly one of value, statisticalThreshold and mlDetectionConfig", "criteria")
    elif metric is not None:
        yield from check(criteria, metric)
        yield from _duration(criteria, metric, known.limits)
    for member in ("consecutiveDatapointsToAlarm", "consecutiveDatapointsToClear"):
        yield from _consecutive(criteria, member)


def _shape_of(criteria: Criteria) -> Callable[[Criteria, Metric], Found] | None:
    """The check of the one shape that the criteria have; None where it is none or several (spec.md §5.2)."""
    shapes: list[tuple[object, Callable[[Criteria, Metric], Found]]] = [
        (criteria.value, _static),
        (criteria.statistical_threshold, _statistical),
        (criteria.ml_detection_config, _learned),
    ]
    present = [check for member, check in shapes if member is not None]
    return present[0] if len(present) == 1 else None


def _static(criteria: Criteria, metric: Metric) -> Found:
    yield from _operator(criteria, metric.operators, metric)
    assert criteria.value is not None
    yield from _value(criteria.value, metric)


def _statistical(criteria: Criteria, metric: Metric) -> Found:
    if not metric.statistical:
        yield _at(f"{metric.name} can't have a statisticalThreshold", "criteria", "statisticalThreshold")
        return
    yield from _operator(criteria, NUMERIC, metric)
    assert criteria.statistical_threshold is not None
    if criteria.statistical_threshold.statistic not in STATISTICS:
        message = f"statistic should be one of {', '.join(STATISTICS)}"
        yield _at(message, "criteria", "statisticalThreshold", "statistic")


def _learned(criteria: Criteria, metric: Metric) -> Found:
    if not metric.ml:
        yield _at(f"{metric.name} can't have an mlDetectionConfig", "criteria", "mlDetectionConfig")
    if criteria.comparison_operator is not None:
        yield _at("comparisonOperator can't go with mlDetectionConfig", "criteria", "comparisonOperator")


def _operator(criteria: Criteria, operators: frozenset[str], metric: Metric) -> Found:
    operator = criteria.comparison_operator
    if operator is None:
        yield _at(f"comparisonOperator is required: one of {', '.join(sorted(operators))}", "criteria")
    elif operator not in operators:
        message = f"{operator} does not fit {metric.name}, which takes {', '.join(sorted(operators))}"
        yield _at(message, "criteria", "comparisonOperator")


def _value(value: MetricValue, metric: Metric) -> Found:
    wanted = metric.value_field
    present = [member for member in _MEMBERS if getattr(value, member) is not None]
    if present != [wanted]:
        got = f"not {', '.join(present)}" if present else "but it is empty"
        yield _at(f"the value of {metric.name} is given as {wanted}, {got}", "criteria", "value")
        return
    content = getattr(value, wanted)
    if content == ():
        yield _at(f"{wanted} is empty", "criteria", "value", wanted)
    many = content if isinstance(content, tuple) else None
    for at, element in enumerate((content,) if many is None else many):
        message = _ELEMENT[wanted](element)
        if message:
            yield _at(message, "criteria", "value", wanted, *(() if many is None else (at,)))


def _bad_count(count: int) -> str | None:
    return None if 0 <= count <= COUNT_MAX else f"count should be in range[0,{COUNT_MAX}]"


def _bad_port(port: int) -> str | None:
    return None if 0 <= port <= 65_535 else f"port {port} should be in range[0,65535]"


def _bad_number(number: float) -> str | None:
    return None if isfinite(number) else "a number must be finite"


def _bad_word(_word: str) -> str | None:
    return None


def bad_cidr(text: str) -> str | None:
    """Why a text is no address and no range; host bits may be set, a bare address is a range of one (spec.md §1.1)."""
    try:
        valid = _CIDR.fullmatch(text) is not None and bool(ip_network(text, strict=False))
    except ValueError:
        valid = False
    return None if valid else f'"{text[:43]}" is no IPv4 or IPv6 address or CIDR range'


_ELEMENT: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "count": _bad_count,
    "ports": _bad_port,
    "number": _bad_number,
    "numbers": _bad_number,
    "strings": _bad_word,
    "cidrs": bad_cidr,
}


def _duration(criteria: Criteria, metric: Metric, limits: Limits) -> Found:
    duration = criteria.duration_seconds
    if duration is None:
        if criteria.statistical_threshold is not None and metric.statistical:
            yield _at("durationSeconds is required with statisticalThreshold", "criteria")
        elif criteria.value is not None and metric.duration == "required":
            yield _at(f"durationSeconds is required for {metric.name}", "criteria")
    elif criteria.ml_detection_config is not None:
        yield _at("durationSeconds can't go with mlDetectionConfig", "criteria", "durationSeconds")
    elif metric.duration in {"none", "forbidden"}:
        yield _at(f"durationSeconds can't go with {metric.name}", "criteria", "durationSeconds")
    elif limits.durations == "aws" and duration not in DURATIONS:
        message = f"durationSeconds {duration} should be one of {', '.join(map(str, DURATIONS))}"
        yield _at(message, "criteria", "durationSeconds")
    elif not 1 <= duration <= DURATION_MAX_S:
        yield _at(f"durationSeconds {duration} should be in range[1,{DURATION_MAX_S}]", "criteria", "durationSeconds")


def _consecutive(criteria: Criteria, member: str) -> Found:
    alarm = member == "consecutiveDatapointsToAlarm"
    count = criteria.consecutive_datapoints_to_alarm if alarm else criteria.consecutive_datapoints_to_clear
    if count is not None and not 1 <= count <= CONSECUTIVE_MAX:
        yield _at(f"{member} {count} should be in range[1,{CONSECUTIVE_MAX}]", "criteria", member)


def _oddities(behavior: Behavior, known: Known) -> Found:
    """Warnings about a behavior that is valid."""
    assert behavior.metric is not None
    assert behavior.criteria is not None
    metric, criteria = known.metrics[behavior.metric], behavior.criteria
    if criteria.ml_detection_config is not None:
        yield _odd(behavior, "learned models are not judged by this version", "criteria", "mlDetectionConfig")
    elif metric.read is None and not metric.events:
        yield _odd(behavior, f"{metric.name} is not measured by this version", "metric")
    if contradicts(behavior, known.profile):
        message = f"the name suggests the opposite of what it does: it {explain(behavior, metric)}"
        yield _odd(behavior, message, "criteria", "comparisonOperator")
    fate = _foregone(criteria, metric)
    if fate:
        yield _odd(behavior, fate, "criteria")


def contradicts(behavior: Behavior, profile: str) -> bool:
    """Whether the name speaks of too much where too little alarms, or the other way round.

    Only where the behavior's own name says neither does the profile's count, and that only where it speaks of the
    same thing as the metric: `High-Cpu-Usage` of cpu_usage, but not `Low-Power-Sensors` of bytes.
    """
    operator = (behavior.criteria and behavior.criteria.comparison_operator) or ""
    wrong, right = (_HIGH, _LOW) if operator.startswith("greater-than") else (_LOW, _HIGH)
    if operator not in NUMERIC:
        return False
    own = _words(behavior.name)
    if own & (_HIGH | _LOW):
        return bool(own & wrong) and not own & right
    others = _words(profile)
    same_subject = bool(others & (own | _words(behavior.metric or "")))
    return same_subject and bool(others & wrong) and not others & right


def _words(name: str) -> set[str]:
    words = {word.lower() for word in _WORD.findall(name)}
    return words - {"min"} if "per" in words else words  # per minute


def _foregone(criteria: Criteria, metric: Metric) -> str | None:
    """Where the outcome does not depend on the device: it alarms always, or never (spec.md §3.2)."""
    operator = criteria.comparison_operator
    if criteria.statistical_threshold is not None:
        case = (operator, criteria.statistical_threshold.statistic)
        if case in {("less-than-equals", "p100"), ("greater-than-equals", "p0")}:
            return "never alarms: every thing complies with this percentile"
        if case in {("less-than", "p100"), ("greater-than", "p0")}:
            return "alarms in every window: some thing always is the extreme"
    if metric.value_field == "count" and criteria.value is not None and criteria.value.count == 0:
        return {
            "less-than": "alarms at every datapoint: a count is never less than 0",
            "greater-than-equals": "never alarms: a count is always at least 0",
        }.get(operator or "")
    return None


def _odd(behavior: Behavior, message: str, *path: str) -> Finding:
    return Finding(path, f"Behavior {behavior.name}: {message}", is_warning=True)


def _at(message: str, *path: str | int) -> Finding:
    return Finding(path, message)
