"""The remote addresses of a device's open TCP connections; an empty list is a datapoint (spec.md §1.3)."""

from typing import TYPE_CHECKING

from config.kinds import CIDR, Metric

if TYPE_CHECKING:
    from actors.report import Report


def read(report: "Report") -> tuple[str, ...] | None:
    return report.addresses


METRIC = Metric(
    name="aws:destination-ip-addresses",
    side="device",
    value_field="cidrs",
    kind="set",
    operators=CIDR,
    duration="none",
    read=read,
    column="addresses",
)
