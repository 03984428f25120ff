"""Reading the log again for the history alone, from where it stopped taking: the router as it was there goes on.

Which reports count (duplicates, reports too soon) depends on those before, so the router's state at that place is
kept, in memory: as much as one checkpoint holds for a moment.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from actors.controls import Change, Control, Retry, pieces
from actors.messages import Frames
from actors.retention import Retention, Vocabulary, retention
from actors.router import Routed
from actors.world import World
from config.model import Rules
from daemon.checkpoint import frozen
from daemon.log.reader import Gap

ReadRange = Callable[[int, int], AsyncIterator[Frames | Gap]]
Definition = Callable[[str], Awaitable[Rules]]


@dataclass(slots=True)
class Behind:
    """A router of its own, at `position`. Its world's actors are empty, and are told nothing."""

    world: World
    position: int
    kept: Retention


@dataclass(frozen=True, slots=True)
class Read:
    """One step: a batch, or new definitions, or entries that the log no longer had."""

    routed: Routed | None = None
    vocabulary: Vocabulary | None = None
    lost: int = 0


def fallen(world: World, position: int) -> Behind:
    """The router of a live world (one with the default floor between reports) at its present position, copied."""
    state: Any = frozen(world.router.dump())
    mine = World(world.rules, world.kinds, world.identity)
    mine.router.load(state)
    return Behind(mine, position, _kept(mine))


async def again(behind: Behind, last: int, read_range: ReadRange, definition: Definition) -> AsyncIterator[Read]:
    """Read on to `last`; `behind` stands where the step that is given stands."""
    async for frames in read_range(behind.position + 1, last):
        if isinstance(frames, Gap):
            behind.position = frames.last
            yield Read(lost=frames.last - frames.first + 1)
            continue
        for piece in pieces(frames):
            if isinstance(piece, Control):
                behind.position = piece.position
                if isinstance(piece.what, Change):
                    yield Read(vocabulary=await _changed(behind, piece, await definition(piece.what.digest)))
                elif not isinstance(piece.what, Retry):
                    behind.world.obey(piece, None)
            else:
                routed = behind.world.router.route(piece)
                behind.position = int(piece.seq[-1])
                yield Read(routed=routed)
    behind.position = max(behind.position, last)


async def _changed(behind: Behind, control: Control, rules: Rules) -> Vocabulary:
    behind.world.obey(control, rules)
    behind.kept = _kept(behind.world)
    return behind.kept.vocabulary


def _kept(world: World) -> Retention:
    return retention(world.rules, world.kinds, world.schema, world.router.registry)
