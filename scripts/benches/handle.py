"""GroupActor.handle alone on 1,024 decoded reports, against the naive twin and a vectorised NumPy version."""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import fleet
import machine
import msgspec
import naive
import numpy as np
from vectorised import Vectorised

from actors.entries import frames_of
from actors.messages import Share
from actors.metrics import kinds
from actors.report import Report, decode
from actors.world import World
from config.model import NS, Limits, Rules, SecurityProfile

BATCH: Final = 1_024
INTERVAL_NS: Final = 300 * NS // fleet.THINGS  # every thing reports every 300 s
START_NS: Final = 1_767_312_000 * NS
WARM: Final = 2 * fleet.THINGS // BATCH + 1  # every thing has a row and a full window
WRONG_SHARE: Final = 0.0002  # and cleared by the next report: one report in 2 500 makes a transition

Flip = tuple[str, str, str]  # thing, behavior, in-alarm | alarm-cleared


def main(batches: int) -> None:
    rules = Rules(profiles=(msgspec.convert(fleet.profile(), SecurityProfile),), limits=Limits(report_interval_s=0))
    world = World(rules, kinds(), "bench", 0.0)
    shares, heard = prepared(world, rules, WARM + batches)
    (actor,) = world.actors.values()
    flips: dict[str, list[Flip]] = {"ours": [], "numpy": [], "naive": []}

    def ours(share: Share) -> None:
        found = actor.handle(share)
        flips["ours"] += [(t.thing, t.behavior.name, t.event_type) for t in found]

    vectorised = Vectorised(actor.slots, world.schema, fleet.THINGS)

    def numpy(share: Share) -> None:
        flips["numpy"] += vectorised.handle(share)

    twin = naive.Detect(rules)

    def slow(batch: Sequence[naive.Heard]) -> None:
        # Its judging alone: the way it lets time pass, entry by entry over all things, would make any ratio look good.
        for one in batch:
            twin.position = one.position
            twin.judge(one.ts, one)

    took = [timed(ours, shares), timed(numpy, shares), timed(slow, heard)]
    flips["naive"] = [(e.thing, e.behavior, e.type) for e in twin.events]
    check(flips)
    each = [machine.median(one[WARM:]) / BATCH for one in took]
    machine.note(
        f"{BATCH:,} reports a batch, {fleet.THINGS:,} things, {len(actor.slots)} behaviors, {len(flips['ours'])} "
        f"transitions, the same from all three; medians of {batches} batches"
    )
    show("GroupActor.handle", each[0], len(actor.slots))
    ends = sum(took[0][WARM:]) / batches / BATCH
    show("the same, mean: ends of windows included", ends, len(actor.slots))
    show("vectorised NumPy", each[1], len(actor.slots), each[1] / each[0], 5)
    show("naive twin, judging only", each[2], len(actor.slots), each[2] / each[0], 50)


def prepared(world: World, rules: Rules, batches: int) -> tuple[list[Share], list[list[naive.Heard]]]:
    """The same reports for all: decoded and routed to columns for two of them, to natural values for the twin."""
    bodies = fleet.reports(batches * BATCH, wrong_share=WRONG_SHARE)
    shares, heard = [], []
    metrics = {b.metric: kinds().metrics[b.metric or ""] for p in rules.profiles for b in p.behaviors}
    for batch in range(batches):
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        entries = [(n + 1, START_NS + n * INTERVAL_NS, fleet.subject(n), next(bodies), None, 0) for n in numbers]
        (share,) = world.router.route(frames_of(entries)).shares.values()
        assert len(share.entries) == BATCH
        shares.append(share)
        heard.append([natural(seq, ts, fleet.name(seq - 1), body, metrics) for seq, ts, _, body, _, _ in entries])
    return shares, heard


def natural(seq: int, ts: int, thing: str, body: bytes, metrics: dict[Any, Any]) -> naive.Heard:
    report = decode(body, False)
    assert isinstance(report, Report)
    return naive.Heard(seq, ts, thing, {name: metric.read(report) for name, metric in metrics.items()})


def timed(work: Callable[[Any], None], batches: Sequence[Any]) -> list[float]:
    """CPU seconds of each batch."""
    took = []
    gc.collect()
    gc.freeze()
    for batch in batches:
        began = time.thread_time()
        work(batch)
        took.append(time.thread_time() - began)
    return took


def check(flips: dict[str, list[Flip]]) -> None:
    """Three ways, one result. The percentile's windows end in ours alone: the others only gather for it."""
    wanted = sorted(flip for flip in flips["ours"] if flip[1] != "unusual")
    for who in ("numpy", "naive"):
        if sorted(flips[who]) != wanted or not wanted:
            raise SystemExit(f"{who} says {len(flips[who])} transitions, not {len(wanted)}")


def show(what: str, each_s: float, behaviors: int, ratio: float | None = None, target: int = 0) -> None:
    value = f"{1e9 * each_s / behaviors:>9,.1f} ns per (report × behavior)"
    if ratio is None:
        machine.line(what, value)
    else:
        machine.line(what, value, f"{ratio:.1f} ×", f"≥ {target} ×", met=ratio >= target)


if __name__ == "__main__":
    np.seterr(all="raise")
    main(10 if machine.is_quick() else 40)
