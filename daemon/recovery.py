"""Where a world comes from after a stop or a crash, and the checkpoints that make it quick (design.md §4.9).

A checkpoint is the state of the router and of every actor at one position of the log; the log from there on gives the
rest. Effects that are already stored are recognised by their ids.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from actors.controls import Change, Control, Retry, pieces
from actors.effects import Transition
from actors.group import GroupActor
from actors.messages import Frames, Share
from actors.world import World
from config.diff import rules_digest
from config.kinds import Kinds
from config.model import NS, Rules
from daemon import checkpoint
from daemon.clock import Clock
from daemon.log.reader import Gap
from daemon.pipeline import Cut, Definition
from daemon.supervisor import Broke
from daemon.telemetry import Telemetry

T = TypeVar("T")
ROUTER: Final = "router"

log = structlog.get_logger(__name__)


class Manifest(msgspec.Struct, frozen=True):
    """What SQLite remembers of a checkpoint: its place in the log, its rules, its files and their digests."""

    identity: str  # of the log
    position: int
    rules: str  # digest
    files: dict[str, tuple[str, str]]  # ROUTER or an actor's key -> (file name, digest)


class Shelf(Protocol):
    """The part of the store that remembers checkpoints."""

    async def put_checkpoint(self, position: int, manifest: str, keep: int) -> None: ...
    async def checkpoints(self) -> Sequence[str]: ...


async def manifests(shelf: Shelf, identity: str) -> list[Manifest]:
    """The checkpoints of this log, newest first."""
    known = [msgspec.json.decode(text, type=Manifest) for text in await shelf.checkpoints()]
    return [manifest for manifest in known if manifest.identity == identity]


ReadRange = Callable[[int, int], AsyncIterator[Frames | Gap]]
Poison = Callable[[], dict[str, set[int]]]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Makes worlds. `folder` holds the checkpoint files, `read_range` reads entries [first, last] of the log.

    `rules_before` are those in force before the log's first entry: none, unless the log has dropped its beginning.
    `log_last` is the log's end at the start: a checkpoint beyond it saw entries that are lost (a power cut).
    """

    folder: Path
    kinds: Kinds
    identity: str
    shelf: Shelf
    definition: Definition
    read_range: ReadRange
    poison: Poison
    rules_before: Rules
    log_last: int

    async def world(self, last: int | None = None) -> tuple[World, int]:
        """The world of the newest checkpoint that can be read and is not beyond `last`, and its position.

        Without one: an empty world, at 0. `last` is the log's end at the start where it isn't given.
        """
        last = self.log_last if last is None else last
        for manifest in await manifests(self.shelf, self.identity):
            if manifest.position > last:
                log.error("checkpoint.beyond-log", position=manifest.position, log_last=last)
                continue
            try:
                return await self._load(manifest), manifest.position
            except (checkpoint.CheckpointError, KeyError, ValueError) as problem:
                log.error("checkpoint.refused", position=manifest.position, error=str(problem))
        return self._set_poison(World(self.rules_before, self.kinds, self.identity)), 0

    async def rebuild(self, key: str, position: int, poison: set[int]) -> tuple[GroupActor, list[Transition]]:
        """One actor as it was after `position`, with `poison` set aside, and all that was said on the way there.

        Raises:
            Broke: entries that are not known as poison break it.
        """
        world, at = await self.world(position)
        self._set_poison(world, {key: poison})
        effects: list[Transition] = []
        lost: set[str] = set()
        if position > at:
            async for frames in self.read_range(at + 1, position):
                if isinstance(frames, Gap):  # stated when the pipeline met it
                    continue
                for piece in pieces(frames):
                    effects += await self._play(world, piece, key, poison, lost)
                await asyncio.sleep(0)  # the others go on meanwhile
        return world.actors[key], effects

    async def _play(
        self, world: World, piece: Frames | Control, key: str, poison: set[int], lost: set[str]
    ) -> list[Transition]:
        if not isinstance(piece, Control):
            return _hear(world, world.router.route(piece).shares, key, lost)
        if isinstance(piece.what, Retry):
            return _hear(world, world.retried(piece.what, world.moment(piece)), key, lost)
        rules = await self.definition(piece.what.digest) if isinstance(piece.what, Change) else None
        effects = world.obey(piece, rules)
        self._set_poison(world, {key: poison})  # new rules make new actors
        return effects

    async def _load(self, manifest: Manifest) -> World:
        rules = await self.definition(manifest.rules)
        parts = {}
        for part, (name, digest) in manifest.files.items():
            parts[part] = await asyncio.to_thread(checkpoint.read, self.folder / name, digest)
        world = World(rules, self.kinds, self.identity)
        world.load({"router": parts.pop(ROUTER), "actors": parts})
        return self._set_poison(world)

    def _set_poison(self, world: World, also: dict[str, set[int]] | None = None) -> World:
        known = self.poison()
        for key, actor in world.actors.items():
            actor.poison = known.get(key, set()) | (also or {}).get(key, set())
        return world


def _hear(world: World, shares: Mapping[str, Share], key: str, lost: set[str]) -> list[Transition]:
    """Let all actors hear the entries, since new rules may hand rows over to this one; only it may speak.

    Another that breaks is left out from there on: its own rebuild finds out why.
    """
    effects: list[Transition] = []
    for other, share in shares.items():
        try:
            if other == key:
                effects = world.actors[key].handle(share)
            elif other not in lost:
                world.actors[other].handle(share)
                world.actors[other].taken()  # told when it was live
        except Exception as problem:  # the boundary of one actor, as in the supervisor
            if other == key:
                seq = share.batch.frames.seq
                raise Broke(int(seq[share.first]), int(seq[share.last - 1])) from problem
            lost.add(other)
    return effects


async def _settled() -> bool:
    return True


class Checkpointer:
    """Writes a checkpoint now and then, in a thread; the previous one stays as a fall-back.

    `settled` says whether all that reads the log beside the actors has what the cut has: where it has not, the
    checkpoint is passed over, since a start from it would not read that again.
    """

    def __init__(
        self, folder: Path, identity: str, shelf: Shelf, telemetry: Telemetry, clock: Clock,
        settled: Callable[[], Awaitable[bool]] = _settled,
    ) -> None:  # fmt: skip
        self._folder, self._identity, self._shelf = folder, identity, shelf
        self._telemetry, self._clock, self._settled = telemetry, clock, settled
        self._turn = asyncio.Lock()
        self._rules, self._digest = Rules(), rules_digest(Rules())
        self.position = -1
        self.written_ns: int | None = None  # monotonic

    async def run(self, cut: Callable[[], Awaitable[Cut]], every_s: Callable[[], float]) -> None:
        """For ever; a failure is logged and tried again at the next turn."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic_ns() + int(every_s() * NS))
            try:
                await self.write(await cut())
            except (OSError, checkpoint.CheckpointError) as problem:
                log.error("checkpoint.failed", error=str(problem))

    async def write(self, cut: Cut) -> None:
        """Write one cut, unless nothing has happened since the last. One at a time: they share the folder."""
        async with self._turn:
            if cut.position == self.position:
                for answer in cut.actors.values():
                    answer.cancel()
                return
            started = self._clock.monotonic_ns()
            parts = {ROUTER: cut.router} | {key: await answer for key, answer in cut.actors.items()}
            # The actors first: what they formed up to the cut is on its way into the history then.
            if not await self._settled():
                log.warning("checkpoint.passed-over", position=cut.position, why="the history of values lags behind")
                return
            files = {part: await self._part(cut.position, part, state) for part, state in parts.items()}
            await self._remember(cut, files)
            self.position, self.written_ns = cut.position, self._clock.monotonic_ns()
        self._telemetry.checkpoint_seconds.observe((self.written_ns - started) / NS)
        self._telemetry.checkpoint_bytes.set(sum((self._folder / name).stat().st_size for name, _ in files.values()))

    async def _remember(self, cut: Cut, files: dict[str, tuple[str, str]]) -> None:
        if cut.rules is not self._rules:  # a large fleet takes its time to spell out
            self._rules, self._digest = cut.rules, rules_digest(cut.rules)
        manifest = Manifest(self._identity, cut.position, self._digest, files)
        await self._shelf.put_checkpoint(cut.position, msgspec.json.encode(manifest).decode(), checkpoint.KEPT)
        kept = await manifests(self._shelf, self._identity)
        names = {name for one in kept for name, _ in one.files.values()}
        await _in_thread(checkpoint.tidy, self._folder, names)

    async def _part(self, position: int, part: str, state: Any) -> tuple[str, str]:
        name = f"{position:020d}-{blake2b(part.encode(), digest_size=8).hexdigest()}"
        return name, await _in_thread(checkpoint.write, self._folder, name, state)


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run `work` in a thread. Cancelled, it ends what it has begun first: the thread would go on all the same."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
