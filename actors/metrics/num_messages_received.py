"""How many messages the broker delivered to a device in a window (spec.md §1.2)."""

from config.kinds import NUMERIC, Metric

METRIC = Metric(
    name="aws:num-messages-received",
    side="cloud",
    value_field="count",
    kind="counter",
    operators=NUMERIC,
    duration="required",
    statistical=True,
    ml=True,
    dimension=True,
    unit="messages",
    events=frozenset({"delivered"}),
)
