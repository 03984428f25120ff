"""Bytes per (thing, numeric behavior at 300 s) in actor state, and a process with 1 million things × 4 behaviors."""

import os
import subprocess
import sys
from typing import Any, Final

import machine
import msgspec
import numpy as np

from actors.entries import frames_of
from actors.metrics import kinds
from actors.world import World
from config.model import NS, Limits, Rules, SecurityProfile

BATCH: Final = 1_024
ROUNDS: Final = 2  # reports of each thing, 300 s apart: then every ring holds what it holds in normal life
BEHAVIORS: Final = ("bytes-out", "bytes-in", "packets-out", "packets-in")
ONE_SHOTS: Final = "one-shots"
NAMES_A_DAY: Final = 10_000
TARGET_BYTES: Final = 128
TARGET_RSS: Final = 2 * 1024**3
BODY: Final = (
    b'{"header":{"report_id":%d,"version":"1.0"},'
    b'"metrics":{"network_stats":{"bytes_in":%d,"bytes_out":9,"packets_in":3,"packets_out":2}}}'
)


def main(things: int) -> None:
    empty = machine.rss_bytes(os.getpid())
    world = World(rules(), kinds(), "bench", 300.0)
    for turn in range(ROUNDS):
        for first in range(0, things, BATCH):
            numbers = range(first, min(first + BATCH, things))
            world.handle(frames_of([entry(turn * things + n, n, turn, things) for n in numbers]))
    (actor,) = world.actors.values()
    assert len(actor.roster) == things
    rss, state = machine.rss_bytes(os.getpid()), sum(array_bytes(actor.dump()))
    used, room = state / things / len(BEHAVIORS), actor.roster.capacity
    machine.note(f"{things:,} things × {len(BEHAVIORS)} behaviors at 300 s, {ROUNDS} reports each; room for {room:,}")
    machine.line(
        "actor state per (thing, behavior), as allocated", f"{used:.0f} bytes", "", f"≤ {TARGET_BYTES}",
        met=used <= TARGET_BYTES,
    )  # fmt: skip
    machine.line("of which used, were no room spare", f"{used * things / room:.0f} bytes")
    machine.line(
        "RSS of the process, names and gate included",
        f"{rss / 2**20:,.0f} MiB",
        "",
        "< 2,048 MiB",
        met=rss < TARGET_RSS,
    )
    machine.line("of which before the first report", f"{empty / 2**20:,.0f} MiB")
    machine.line("each thing more costs", f"{(rss - empty) / things:,.0f} bytes of RSS")


def one_shots(names: int) -> None:
    """Names that report once and never again, NAMES_A_DAY of them: prints the RSS in bytes."""
    world = World(rules(), kinds(), "bench", 300.0)
    for first in range(0, names, BATCH):
        numbers = range(first, min(first + BATCH, names))
        world.handle(frames_of([one_shot(number) for number in numbers]))
    print(machine.rss_bytes(os.getpid()))


def compare_one_shots(names: int) -> None:
    few, many = (
        int(subprocess.check_output([sys.executable, __file__, ONE_SHOTS, str(n)])) for n in (names // 10, names)
    )
    machine.line(
        f"RSS after {names:,} one-shot names, over that after a tenth",
        f"{many / 2**20:,.0f} MiB", f"{many / few:.2f} ×", "≤ 1.10 ×", met=many <= 1.1 * few,
    )  # fmt: skip


def one_shot(number: int) -> tuple[int, int, str, bytes, None, int]:
    ts = 1_767_312_000 * NS + number * (86_400 * NS // NAMES_A_DAY)
    return number + 1, ts, f"$aws.things.once-{number:07d}.defender.metrics.json", BODY % (number + 1, 1), None, 0


def rules() -> Rules:
    behaviors = [
        {
            "name": name,
            "metric": f"aws:all-{name}",
            "criteria": {"comparisonOperator": "less-than", "value": {"count": 10**9}, "durationSeconds": 300},
        }
        for name in BEHAVIORS
    ]
    profile = {"securityProfileName": "p", "targets": ["all/things"], "behaviors": behaviors}
    return Rules(profiles=(msgspec.convert(profile, SecurityProfile),), limits=Limits())


def entry(position: int, thing: int, turn: int, things: int) -> tuple[int, int, str, bytes, None, int]:
    ts = 1_767_312_000 * NS + turn * 300 * NS + thing * 300 * NS // things
    subject = f"$aws.things.thing-{thing:07d}.defender.metrics.json"
    return position + 1, ts, subject, BODY % (position + 1, thing), None, 0


def array_bytes(state: Any) -> Any:
    """Of all arrays in an actor's dump, as they are allocated."""
    match state:
        case np.ndarray():
            yield state.nbytes
        case dict():
            for part in state.values():
                yield from array_bytes(part)


if __name__ == "__main__":
    if ONE_SHOTS in sys.argv:
        one_shots(int(sys.argv[-1]))
    else:
        main(100_000 if machine.is_quick() else 1_000_000)
        compare_one_shots(200_000 if machine.is_quick() else 1_000_000)
