"""Notices that the configuration's files have changed, and says so once per change.

An event of the file system is only a reason to look: what counts is whether the files' print (name, identity, size,
times, and where symlinks lead) differs from the last one. So an editor's temporary file, a log beside the
configuration or a second event for one save sets nothing off, and an event that was lost (a directory that was
replaced, a network mount) is made up for at the next look, at most LOOK_S later.

Directories are watched, not files: a file that is renamed into place is another file, and Kubernetes swaps the symlink
`..data` beside the one that we read. Every directory on the way of a symlink is watched too.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
import watchfiles

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})  # what a glob of the configuration can pick up
LOOK_S: Final = 5.0
STEP_MS: Final = 50  # quiet for this long ends a burst of events ...
DEBOUNCE_MS: Final = 1_000  # ... which is looked at after this long in any case
LINKS_MAX: Final = 40  # what Linux itself follows

log = structlog.get_logger(__name__)


class Wakeups(Protocol):
    """Yields whenever something may have changed in `directories`, and every now and then without a reason."""

    def __call__(self, directories: Iterable[Path], stop: asyncio.Event, /) -> AsyncGenerator[None]: ...


async def file_events(directories: Iterable[Path], stop: asyncio.Event) -> AsyncGenerator[None]:
    """Wake-ups by the operating system's own notices, a burst of them once; and every LOOK_S."""
    notices = watchfiles.awatch(
        *directories,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        stop_event=stop,
        rust_timeout=int(LOOK_S * 1000),
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    )
    async with aclosing(notices):
        async for _changes in notices:
            yield


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look sees: the prints of the files that matter, and the directories that must be watched for it."""

    prints: Mapping[Path, object]
    directories: frozenset[Path]


class Watch:
    """Watches the files that a configuration was read from, and calls `changed` after each change of any of them."""

    def __init__(
        self,
        sources: Iterable[Path],
        changed: Callable[[], Awaitable[None]],
        *,
        directories: Iterable[Path] = (),
        wakeups: Wakeups = file_events,
        rest_s: float = LOOK_S,
    ) -> None:
        """`sources`: files, as they were named (symlinks not resolved). `directories`: further ones in which a new
        YAML or JSON file matters, such as that of a glob without a match so far; those of the sources are included.

        `changed` must not raise; while it runs no further change is looked at: one that came meanwhile is seen after.
        """
        self._changed = changed
        self._wakeups = wakeups
        self._rest_s = rest_s  # between looks where the system refuses to watch
        self._stop = asyncio.Event()  # ends one round of watching: for other directories, or for good
        self._closed = False
        self._sources: frozenset[Path] = frozenset()
        self._directories: frozenset[Path] = frozenset()
        self.follow(sources, directories)
        self._followed = False  # since the last look
        self._seen = self._look().prints  # here, not at the first look of `run`: what changes between counts

    def follow(self, sources: Iterable[Path], directories: Iterable[Path] = ()) -> None:
        """From now on these: a reload may have read other files than the one before. May be called by `changed`.

        That they are others is no change; one of a file that was watched before is still told.
        """
        files = frozenset(path.absolute() for path in sources)
        places = frozenset(path.parent for path in files) | {path.absolute() for path in directories}
        if (files, places) != (self._sources, self._directories):
            self._sources, self._directories = files, places
            self._followed = True
            self._stop.set()

    async def run(self) -> None:
        """Until `close`, or cancellation."""
        while not self._closed:
            self._stop.clear()
            try:
                await self._watch(await self._see())
            except (OSError, RuntimeError) as why:
                # The system may refuse (inotify's limits): looking now and then still works.
                log.warning("watch.failed", error=str(why))
                await self._rest()

    def close(self) -> None:
        self._closed = True
        self._stop.set()

    async def _watch(self, directories: frozenset[Path]) -> None:
        async with aclosing(self._wakeups(sorted(directories), self._stop)) as wakeups:
            async for _ in wakeups:
                if await self._see() != directories:
                    return  # a symlink leads elsewhere, or a directory came or went: watch those

    async def _see(self) -> frozenset[Path]:
        """Look, tell of a change, and say what must be watched from now on."""
        followed, self._followed = self._followed, False
        sight = await asyncio.to_thread(self._look)
        # Before the call: what changes while it runs is the next change.
        before, self._seen = self._seen, sight.prints
        if _differ(before, sight.prints, of_both=followed) and not self._closed:
            await self._changed()
        return sight.directories

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._rest_s):
                await self._stop.wait()
        except TimeoutError:
            return

    def _look(self) -> Sight:
        beside = (path for directory in self._directories for path in _candidates(directory))
        files = {*self._sources, *beside}
        on_the_way = (directory for path in (*files, *self._directories) for directory in _ways(path))
        wanted = {*self._directories, *on_the_way}
        return Sight({path: _print(path) for path in files}, frozenset(map(_nearest_existing, wanted)))


def _differ(before: Mapping[Path, object], now: Mapping[Path, object], *, of_both: bool) -> bool:
    """Whether anything changed; `of_both`: of the files that were looked at both times."""
    if not of_both:
        return before != now
    return any(before[path] != seen for path, seen in now.items() if path in before)


def _candidates(directory: Path) -> Iterable[Path]:
    try:
        return [path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES]
    except OSError:
        return []


def _print(path: Path) -> tuple[object, ...]:
    try:
        there = path.stat()
    except OSError as why:
        return (why.errno,)
    leads_to = os.path.realpath(path)
    return (leads_to, there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_mode)


def _ways(path: Path) -> Iterator[Path]:
    """The directories whose entries decide where `path` leads: its own, and that of every symlink on the way."""
    yield path.parent
    for _ in range(LINKS_MAX):
        link = next(filter(Path.is_symlink, [*reversed(path.parents), path]), None)  # the outermost one first
        if link is None:
            return
        yield link.parent
        path = Path(os.path.normpath(link.parent / link.readlink() / path.relative_to(link)))
        yield path.parent


def _nearest_existing(directory: Path) -> Path:
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    return directory
