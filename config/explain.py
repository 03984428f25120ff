"""A behavior in plain words: when it alarms. A behavior says what is normal, so it alarms on the opposite."""

from collections.abc import Sequence
from typing import Final

from config.kinds import Metric
from config.model import Behavior, Criteria, MetricValue

_COMPARED: Final = {
    "less-than": "less than",
    "less-than-equals": "less than or equal to",
    "greater-than": "greater than",
    "greater-than-equals": "greater than or equal to",
}
_ELEMENTS: Final = {"ports": "a port", "cidrs": "an address", "numbers": "a number", "strings": "a word"}
_NAMED_MAX: Final = 8  # members of a set that are named; the rest is counted


def explain(behavior: Behavior, metric: Metric) -> str:
    """One sentence, such as `alarms when aws:all-bytes-out over 5 min is not less than 10000`.

    The behavior is checked, and `metric` is the one that it names.
    """
    criteria = behavior.criteria
    assert criteria is not None, behavior.name
    suppressed = "; nobody is notified" if behavior.suppress_alerts else ""
    return f"alarms when {_condition(behavior, criteria, metric)}{_repeated(criteria)}{suppressed}"


def _condition(behavior: Behavior, criteria: Criteria, metric: Metric) -> str:
    measured = metric.name + _dimension(behavior)
    if criteria.ml_detection_config is not None:
        level = criteria.ml_detection_config.confidence_level
        return f"{measured} is unusual by the model learned from its group, at {level} confidence"
    if criteria.statistical_threshold is not None:
        limit = f"the {criteria.statistical_threshold.statistic} of all things of the profile's targets"
        return f"{measured}{_over(criteria, metric)} is not {_COMPARED[_operator(criteria)]} {limit}"
    assert criteria.value is not None, behavior.name
    if metric.is_set:
        return f"{_ELEMENTS[metric.value_field]} in {measured} is {_outside(criteria, metric, criteria.value)}"
    subject = f"any message's {measured}" if metric.kind == "permessage" else measured + _over(criteria, metric)
    return f"{subject} is not {_COMPARED[_operator(criteria)]} {_limit(criteria.value)}"


def _dimension(behavior: Behavior) -> str:
    if behavior.metric_dimension is None:
        return ""
    within = "outside" if behavior.metric_dimension.operator == "NOT_IN" else "within"
    return f" {within} {behavior.metric_dimension.dimension_name}"


def _over(criteria: Criteria, metric: Metric) -> str:
    """The span that is summed; for a snapshot the latest counts, so that a span would mislead (spec.md §1.3)."""
    summed = metric.kind in {"counter", "delta"} or criteria.statistical_threshold is not None
    return f" over {_span(criteria.duration_seconds)}" if summed and criteria.duration_seconds else ""


def _span(duration_s: int) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if duration_s % size == 0:
            return f"{duration_s // size} {unit}"
    return f"{duration_s} s"


def _limit(value: MetricValue) -> str:
    return str(value.count) if value.count is not None else _written(value.number or 0.0)


def _written(number: float) -> str:
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _outside(criteria: Criteria, metric: Metric, value: MetricValue) -> str:
    """How an element that alarms lies to the set: `not one of 22, 443`, `in 10.0.0.0/8`."""
    ranges = metric.value_field == "cidrs"
    single = len(_elements(value)) == 1
    inside = ("in" if ranges else "") if single else ("in one of" if ranges else "one of")
    alarms_inside = _operator(criteria).startswith("not-")
    return " ".join(filter(None, ("" if alarms_inside else "not", inside, _listed(_elements(value)))))


def _elements(value: MetricValue) -> Sequence[str]:
    words = [f'"{word}"' for word in value.strings or ()]
    return [*map(str, value.ports or ()), *(value.cidrs or ()), *map(_written, value.numbers or ()), *words]


def _listed(elements: Sequence[str]) -> str:
    more = len(elements) - _NAMED_MAX
    return ", ".join(elements[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _operator(criteria: Criteria) -> str:
    assert criteria.comparison_operator is not None
    return criteria.comparison_operator


def _repeated(criteria: Criteria) -> str:
    """What it takes besides one datapoint; nothing where one suffices."""
    alarm, clear = criteria.consecutive_datapoints_to_alarm or 1, criteria.consecutive_datapoints_to_clear or 1
    text = f", {alarm} datapoints in a row" if alarm > 1 else ""
    return text + (f"; clears after {clear} in a row that comply" if clear > 1 else "")
