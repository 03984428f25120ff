"""How often a device was disconnected in a window, for whatever cause (spec.md §1.2)."""

from config.kinds import NUMERIC, Metric

METRIC = Metric(
    name="aws:num-disconnects",
    side="cloud",
    value_field="count",
    kind="counter",
    operators=NUMERIC,
    duration="required",
    statistical=True,
    ml=True,
    unit="disconnects",
    events=frozenset({"disconnected"}),
)
