"""Custom metrics: what each of the four types measures, is read from and may be compared with (spec.md §6.3).

A value whose key does not match the defined type is no datapoint (spec.md §2.3). Readers are values: two of one name
and type are equal, and so are the metrics made with them, so that a reload can see that nothing has changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from config.kinds import CIDR, NUMERIC, SET, Metric

if TYPE_CHECKING:
    from actors.report import Report


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one member (`number`, `numbers`, `strings`, `cidrs`) of the custom metric `name`."""

    name: str
    member: str

    def __call__(self, report: "Report") -> Any:
        value = report.custom.get(self.name)
        return None if value is None else getattr(value, self.member)


def number(name: str) -> Metric:
    return Metric(
        name=name,
        side="custom",
        value_field="number",
        kind="snapshot",
        operators=NUMERIC,
        duration="optional",
        statistical=True,
        ml=True,
        read=Reader(name, "number"),
    )


def number_list(name: str) -> Metric:
    return Metric(
        name=name,
        side="custom",
        value_field="numbers",
        kind="set",
        operators=SET,
        duration="forbidden",
        read=Reader(name, "numbers"),
    )


def string_list(name: str) -> Metric:
    return Metric(
        name=name,
        side="custom",
        value_field="strings",
        kind="set",
        operators=SET,
        duration="forbidden",
        read=Reader(name, "strings"),
    )


def ip_address_list(name: str) -> Metric:
    return Metric(
        name=name,
        side="custom",
        value_field="cidrs",
        kind="set",
        operators=CIDR,
        duration="forbidden",
        read=Reader(name, "cidrs"),
    )


CUSTOM: Final[Mapping[str, Callable[[str], Metric]]] = {
    "number": number,
    "number-list": number_list,
    "string-list": string_list,
    "ip-address-list": ip_address_list,
}
