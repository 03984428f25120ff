"""How often a device tried to connect in a window, successfully or not (spec.md §1.2)."""

from config.kinds import NUMERIC, Metric

METRIC = Metric(
    name="aws:num-connection-attempts",
    side="cloud",
    value_field="count",
    kind="counter",
    operators=NUMERIC,
    duration="required",
    statistical=True,
    ml=True,
    unit="connection attempts",
    events=frozenset({"connected", "connect-failed"}),
)
