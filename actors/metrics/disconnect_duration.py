"""How long a device has been disconnected, in seconds; 0 while it is connected (spec.md §1.5)."""

from config.kinds import Metric

METRIC = Metric(
    name="aws:disconnect-duration",
    side="cloud",
    value_field="count",
    kind="gauge",
    operators=frozenset({"less-than", "less-than-equals"}),
    duration="none",
    unit="s",
    events=frozenset({"connected", "disconnected"}),
)
