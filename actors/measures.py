"""What a group actor measures of the brokers' events: which series over which windows, to judge and to keep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from actors.criteria._base import Slot
from actors.series import Series, named, series_of
from config.kinds import Metric
from config.model import NS, Behavior, Limits, SecurityProfile


@dataclass(frozen=True, slots=True)
class Measure:
    """One series over tumbling windows that are aligned to the epoch (spec.md §1.3)."""

    metric: Metric
    series: Series
    window_ns: int
    bit: int  # of the dimension among all that are defined; -1: all messages
    is_kept: bool  # its datapoints are told, for the history and the export

    @property
    def key(self) -> tuple[Series, int]:
        """Two measures with the same key are the same, whatever else has changed."""
        return self.series, self.window_ns

    @property
    def is_negated(self) -> bool:
        return self.series.operator == "NOT_IN"


def measures_of(
    profiles: Iterable[SecurityProfile], slots: Sequence[Slot], metrics: Mapping[str, Metric],
    dimensions: Sequence[str], limits: Limits,
) -> tuple[Measure, ...]:  # fmt: skip
    """Those of the behaviors, and every series that a profile names over the common window: that one is kept."""
    common_ns = limits.cloud_window_s * NS
    kept = {(series, common_ns) for profile in profiles for series in named(profile)}
    judged = {(slot_series(slot), window_ns(slot, limits)) for slot in slots if slot.metric.side == "cloud"}
    bits = {name: bit for bit, name in enumerate(dimensions)}
    return tuple(
        Measure(metrics[series.metric], series, window, bits.get(series.dimension, -1), (series, window) in kept)
        for series, window in sorted(kept | judged)
        if series.metric in metrics and metrics[series.metric].side == "cloud"
    )


def slot_series(slot: Slot) -> Series:
    return series_of(slot.metric.name, slot.behavior.metric_dimension)


def window_ns(slot: Slot, limits: Limits) -> int:
    """How long a window of a behavior is: as it says, else the common one."""
    return (_duration_s(slot.behavior) or limits.cloud_window_s) * NS


def _duration_s(behavior: Behavior) -> int | None:
    return behavior.criteria.duration_seconds if behavior.criteria else None
