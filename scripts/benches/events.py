"""What brokers tell, judged: events a second per core, of 10,000 clients and 5 topic filters."""

import time
from typing import Final

import machine
import numpy as np

from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed
from actors.messages import Frames
from actors.metrics import kinds
from actors.world import World
from config.model import NS, Behavior, Criteria, Dimension, Limits, MetricDimension, MetricValue, Rules, SecurityProfile

CLIENTS: Final = 10_000
AN_ENTRY: Final = 2_000  # events: a tenth of a second of them
ROUNDS: Final = 3
START_NS: Final = 1_767_312_000 * NS
DIMENSIONS: Final = (
    Dimension(name="up", string_values=("dt/+/up", "dt/+/status")),
    Dimension(name="own", string_values=("dt/${iot:ClientId}/#",)),
    Dimension(name="cmd", string_values=("cmd/#", "ota/+/done")),
)
METRICS: Final = (
    ("aws:num-messages-sent", None), ("aws:num-messages-sent", "up"), ("aws:num-messages-sent", "own"),
    ("aws:num-messages-received", "cmd"), ("aws:num-authorization-failures", None), ("aws:message-byte-size", "up"),
    ("aws:num-disconnects", None), ("aws:num-connection-attempts", None),
)  # fmt: skip


def main(entries: int) -> None:
    machine.note(f"{CLIENTS:,} clients, 5 topic filters, {len(METRICS)} behaviors, {AN_ENTRY:,} events an entry")
    routed, judged, sizes = [], [], []
    for _ in range(ROUNDS):
        route_s, judge_s, size = one_round(entries)
        count = entries * AN_ENTRY
        routed.append(1e6 * route_s / count)
        judged.append(1e6 * judge_s / count)
        sizes.append(size)
    route_us, judge_us = machine.median(routed), machine.median(judged)
    rate = 1e6 / judge_us
    machine.line("decoded, matched, routed", f"{1e6 / route_us:,.0f}/s  {route_us:.2f} µs each")
    machine.line(
        "judged, from decoded events", f"{rate:,.0f}/s  {judge_us:.3f} µs each", "", "≥ 100,000/s", met=rate >= 1e5
    )
    both = 1e6 / (route_us + judge_us)
    machine.line("both", f"{both:,.0f}/s", "", "≥ 100,000/s", met=both >= 1e5)
    machine.line("state", f"{sizes[0] / CLIENTS:,.0f} bytes a client")
    machine.line("state, a hundred times the messages", f"{grown():.2f} × as much", "", "1.00", met=grown() <= 1.0)


def one_round(entries: int) -> tuple[float, float, int]:
    """CPU seconds for routing and for judging, and the bytes of the actor's arrays."""
    world = World(rules(), kinds(), "bench", 0.0)
    [actor] = world.actors.values()
    log = [entry(n) for n in range(entries + 5)]
    route_s = judge_s = 0.0
    for n, frames in enumerate(log):
        before = time.process_time()
        share = world.router.route(frames).shares[actor.key]
        between = time.process_time()
        actor.handle(share)
        if n >= 5:  # by then every client has its row
            route_s += between - before
            judge_s += time.process_time() - between
    actor.taken()
    return route_s, judge_s, sum(array.nbytes for array in vars(actor.meter).values() if isinstance(array, np.ndarray))


def grown() -> float:
    """The state after a million messages in one entry each, against that after ten thousand, of the same clients."""
    sizes = []
    for count in (1, 100):
        world = World(rules(), kinds(), "bench", 0.0)
        [actor] = world.actors.values()
        for n in range(5):
            world.handle(entry(n, count))
        sizes.append(actor.meter.value.nbytes + actor.meter.marks.nbytes)
    return sizes[1] / sizes[0]


def rules() -> Rules:
    behaviors = tuple(
        Behavior(
            name=f"b{n}", metric=metric, metric_dimension=MetricDimension(dimension) if dimension else None,
            criteria=Criteria(
                comparison_operator="less-than-equals", value=MetricValue(count=10**9), duration_seconds=300
            ),
        )
        for n, (metric, dimension) in enumerate(METRICS)
    )  # fmt: skip
    profile = SecurityProfile(security_profile_name="p", behaviors=behaviors, targets=("all/things",))
    return Rules(profiles=(profile,), dimensions=DIMENSIONS, limits=Limits())


def entry(n: int, count: int = 1) -> Frames:
    """Every client publishes on three topics in turn, and now and then gets a command, is refused, comes or goes."""
    ts = START_NS + n * NS // 10
    payload = packed(event(n * AN_ENTRY + i, ts, count) for i in range(AN_ENTRY))
    return frames_of([(n + 1, ts, SUBJECT + EMBEDDED, payload, None, 0)])


def event(i: int, ts: int, count: int) -> Event:
    client = f"c{i % CLIENTS}"
    down = f"cmd/{client}/reboot"
    match i // CLIENTS % 8:
        case 0:
            return Event(event="connected", client_id=client, time=ts, ip="192.0.2.7", session=f"s{i}")
        case 1:
            return Event(event="delivered", client_id=client, time=ts, topic=down, bytes=10, count=count)
        case 2:
            return Event(event="denied", client_id=client, time=ts, topic="$SYS/x", count=count)
    topic = (f"dt/{client}/up", "dt/all/status", f"dt/{client}/log/x")[i % 3]
    return Event(
        event="published", client_id=client, time=ts, topic=topic, bytes=120 * count, bytes_min=120, bytes_max=120,
        count=count,
    )  # fmt: skip


if __name__ == "__main__":
    main(40 if machine.is_quick() else 200)
