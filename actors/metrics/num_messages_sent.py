"""How many messages a device sent to the broker in a window (spec.md §1.2)."""

from config.kinds import NUMERIC, Metric

METRIC = Metric(
    name="aws:num-messages-sent",
    side="cloud",
    value_field="count",
    kind="counter",
    operators=NUMERIC,
    duration="required",
    statistical=True,
    ml=True,
    dimension=True,
    unit="messages",
    events=frozenset({"published"}),
)
