"""How many UDP ports a device listens on: the block's total, else the length of its list (spec.md §1.2)."""

from typing import TYPE_CHECKING

from config.kinds import NUMERIC, Metric

if TYPE_CHECKING:
    from actors.report import Report


def read(report: "Report") -> int | None:
    return report.udp_total


METRIC = Metric(
    name="aws:num-listening-udp-ports",
    side="device",
    value_field="count",
    kind="snapshot",
    operators=NUMERIC,
    duration="optional",
    statistical=True,
    ml=True,
    unit="ports",
    read=read,
    column="udp_total",
)
