"""The payload bytes of each message from a device: every message of a window must comply (spec.md §1.3)."""

from config.kinds import NUMERIC, Metric

METRIC = Metric(
    name="aws:message-byte-size",
    side="cloud",
    value_field="count",
    kind="permessage",
    operators=NUMERIC,
    duration="optional",
    statistical=True,
    ml=True,
    dimension=True,
    unit="bytes",
    events=frozenset({"published"}),
)
