"""The natural value of a datapoint, for events: read again from the report, since columns do not keep it."""

from dataclasses import dataclass

import msgspec

from actors.criteria._base import Slot
from actors.messages import CONTROL, REPORT_CBOR, Frames, Rejected
from actors.report import decode, metric_value
from config.kinds import Metric
from config.model import MetricValue

NAMED_MAX = 5  # offenders named in a reason; further ones are counted


@dataclass(frozen=True, slots=True)
class Seen:
    """A report kept as it came. Few are ever read again: only those that raise, clear or are looked at.

    Of what brokers told there is no such thing: there `kind` is CONTROL, and the payload the value itself.
    """

    payload: bytes
    kind: int  # as in `Frames`

    @classmethod
    def at(cls, frames: Frames, entry: int) -> "Seen":
        return cls(frames.payload(entry), int(frames.kind[entry]))

    @classmethod
    def of(cls, value: MetricValue) -> "Seen":
        return cls(msgspec.json.encode(value), CONTROL)

    def value(self, metric: Metric) -> MetricValue:
        """The metric's value; the report was accepted before, so it is there."""
        if self.kind == CONTROL:
            return msgspec.json.decode(self.payload, type=MetricValue)
        cbor = self.kind == REPORT_CBOR
        report = decode(self.payload, cbor, lenient=True, payload_bytes_max=len(self.payload))
        assert not isinstance(report, Rejected), report
        value = metric_value(report, metric)
        assert value is not None, metric.name
        return value


def in_words(slot: Slot, value: MetricValue, offenders: tuple[str, ...]) -> str:
    """Why a verdict fell as it did, in one sentence."""
    criteria = slot.behavior.criteria
    assert criteria is not None
    expected = f"{criteria.comparison_operator} {_expected(slot)}"
    if offenders:
        named = ", ".join(offenders[:NAMED_MAX])
        more = f" and {len(offenders) - NAMED_MAX} more" if len(offenders) > NAMED_MAX else ""
        return f"{slot.metric.name}: {named}{more}; expected {expected}"
    return f"{slot.metric.name} was {_shown(value)}; expected {expected}"


def _expected(slot: Slot) -> str:
    criteria = slot.behavior.criteria
    assert criteria is not None
    if criteria.statistical_threshold is not None:
        return f"{criteria.statistical_threshold.statistic} of the group"
    assert criteria.value is not None
    return _shown(criteria.value)


def _shown(value: MetricValue) -> str:
    for number in (value.count, value.number):
        if number is not None:
            return f"{number:g}" if isinstance(number, float) else str(number)
    elements = [*(value.ports or ()), *(value.cidrs or ()), *(value.numbers or ()), *(value.strings or ())]
    shown = ", ".join(map(str, elements[:NAMED_MAX]))
    more = f", … {len(elements) - NAMED_MAX} more" if len(elements) > NAMED_MAX else ""
    return f"[{shown}{more}]"
