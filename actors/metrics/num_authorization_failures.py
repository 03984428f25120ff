"""How many requests of a device the broker refused for lack of permission in a window (spec.md §1.2)."""

from config.kinds import NUMERIC, Metric

METRIC = Metric(
    name="aws:num-authorization-failures",
    side="cloud",
    value_field="count",
    kind="counter",
    operators=NUMERIC,
    duration="required",
    statistical=True,
    ml=True,
    dimension=True,
    unit="failures",
    events=frozenset({"denied"}),
)
