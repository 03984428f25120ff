"""The addresses from which a device connected inside a window; one that merely continues adds none (spec.md §1.3)."""

from config.kinds import CIDR, Metric

METRIC = Metric(
    name="aws:source-ip-address",
    side="cloud",
    value_field="cidrs",
    kind="set",
    operators=CIDR,
    duration="none",
    dimension=True,
    events=frozenset({"connected"}),
)
