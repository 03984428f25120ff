"""What all interfaces of a device received since its previous report, in packets (spec.md §1.2)."""

from typing import TYPE_CHECKING

from config.kinds import NUMERIC, Metric

if TYPE_CHECKING:
    from actors.report import Report


def read(report: "Report") -> int | None:
    return report.packets_in


METRIC = Metric(
    name="aws:all-packets-in",
    side="device",
    value_field="count",
    kind="delta",
    operators=NUMERIC,
    duration="required",
    statistical=True,
    ml=True,
    unit="packets",
    read=read,
    column="packets_in",
)
