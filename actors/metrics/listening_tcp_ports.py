"""The TCP ports that a device listens on; an empty list is a datapoint (spec.md §1.3)."""

from typing import TYPE_CHECKING

from config.kinds import PORT, Metric

if TYPE_CHECKING:
    from actors.report import Report


def read(report: "Report") -> tuple[int, ...] | None:
    return report.tcp_ports


METRIC = Metric(
    name="aws:listening-tcp-ports",
    side="device",
    value_field="ports",
    kind="set",
    operators=PORT,
    duration="none",
    read=read,
    column="tcp_ports",
)
