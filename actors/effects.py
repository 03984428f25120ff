"""What comes out of the core: transitions of alarms, which must be durable, and datapoints that it formed."""

from dataclasses import dataclass
from typing import Literal

from actors.messages import I8
from actors.series import Series
from config.model import Behavior, MetricValue

EventType = Literal["in-alarm", "alarm-cleared", "alarm-invalidated"]


@dataclass(frozen=True, slots=True)
class Transition:
    """An alarm was raised, cleared or invalidated: one event of spec.md §3.5.

    `violation_id` is derived from the log (design.md §4), so the same log gives the same id; the event's id is
    `violation_id` + `event_type`. `value` is None on alarm-invalidated. Times are ns.
    """

    event_type: EventType
    violation_id: str
    profile: str
    behavior: Behavior  # as of the event
    thing: str
    registered: bool
    time_ns: int
    value: MetricValue | None
    start_ns: int  # of the episode
    last_violation_ns: int
    last_violation_value: MetricValue | None
    position: int  # of the log entry that brought it about
    reason: str  # in words: why it was raised, cleared or invalidated


@dataclass(frozen=True, slots=True)
class Formed:
    """The datapoints of one series of what the brokers tell, in a window that has ended: for the history, the export.

    `figures` and `addresses` are as in `actors.criteria._base.Points`; datapoint k is of things[k].
    """

    series: Series
    end: int  # ns, of the window
    position: int  # of the log entry that ended it
    things: tuple[bytes, ...]
    figures: I8
    addresses: tuple[tuple[str, ...], ...]
