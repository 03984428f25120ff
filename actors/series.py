"""What is measured under which name: a metric, of all messages or of those that a dimension selects."""

from collections.abc import Iterator
from dataclasses import dataclass

from config.model import MetricDimension, SecurityProfile

IN = "IN"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """One measured quantity. "" = no dimension."""

    metric: str
    dimension: str = ""
    operator: str = ""  # IN | NOT_IN where there is a dimension


def series_of(metric: str, dimension: MetricDimension | None) -> Series:
    return Series(metric) if dimension is None else Series(metric, dimension.dimension_name, dimension.operator or IN)


def named(profile: SecurityProfile) -> Iterator[Series]:
    """Every series that a profile names, in a behavior or among the metrics to retain (spec.md §1.6)."""
    for behavior in profile.behaviors:
        if behavior.metric:
            yield series_of(behavior.metric, behavior.metric_dimension)
    for metric in profile.additional_metrics_to_retain:
        yield Series(metric)
    for each in profile.additional_metrics_to_retain_v2:
        yield series_of(each.metric, each.metric_dimension)
