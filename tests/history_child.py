"""Writes reports into a history for ever, from where it ends, packing often; prints what is durable. To be killed."""
# ruff: noqa: E402 - the checkout must be found first

import asyncio
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import msgspec

from actors.entries import frames_of
from actors.metrics import kinds
from actors.world import World
from config.model import NS, Limits, Rules, SecurityProfile
from daemon.history.points import REPORTS
from daemon.history.recorder import History

PROFILE = {
    "securityProfileName": "K",
    "targets": ["all/things"],
    "additionalMetricsToRetainV2": [{"metric": "aws:all-bytes-out"}],
}
START_NS = 1_767_312_000 * NS


def entry(position: int) -> tuple[int, int, str, bytes, None, int]:
    network = {"bytes_out": position, "bytes_in": 1, "packets_in": 1, "packets_out": 1}
    body = {"header": {"report_id": position, "version": "1.0"}, "metrics": {"network_stats": network}}
    return (
        position,
        START_NS + position * NS,
        "$aws.things.t.defender.metrics.json",
        json.dumps(body).encode(),
        None,
        0,
    )


async def main(path: Path) -> None:
    history = await History.open(path)
    position = await history.adopt("log", 2**40)
    rules = Rules(profiles=(msgspec.convert(PROFILE, SecurityProfile),), limits=Limits(report_interval_s=0))
    world = World(rules, kinds(), "log")
    history.begin(position, world)
    running = asyncio.create_task(history.run(None, None))  # type: ignore[arg-type]  # it never falls behind
    while not running.done():
        history.take(world.router.route(frames_of([entry(position + n) for n in range(1, 21)])))
        position += 20
        await history.settled()
        print(history._reached[REPORTS], flush=True)
        if position % 100 == 0:
            history.packer.pack_soon()
            await history.packer.packed()


asyncio.run(main(Path(sys.argv[1])))
