"""One Mosquitto log file as a source: read, summed, handed to the log, its place remembered.

**Once.** Before events are handed over, a small file says which lines they are of and under which token; afterwards,
that they are done. A daemon that died in between reads the same lines again and hands them over under the same token:
the log knows what it has already (within its `duplicate_window` of a minute).
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import msgspec
import structlog

from config.model import MosquittoLog
from daemon.brokers._follow import Follower, Place
from daemon.brokers._outlet import Outlet
from daemon.brokers._tally import Tally, payloads
from daemon.brokers.mosquitto_log import Knowledge, Lines
from daemon.clock import Clock, sleep
from daemon.whole_file import PRIVATE, write

FLUSH_S: Final = 1.0
PIECE_BYTES: Final = 1024 * 1024
GATHER_BYTES: Final = 8 * PIECE_BYTES  # one flush under load
LAST_WORD_S: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class FileTotals:
    """Totals since the start; daemon/telemetry.py reads them (SOURCE_TOTALS has the meanings)."""

    lines: int = 0
    unreadable: int = 0
    ambiguous: int = 0
    cut: int = 0
    nameless: int = 0
    forgotten: int = 0
    lost: int = 0
    rewritten: int = 0
    skipped_bytes: int = 0
    stored: int = 0
    repeated: int = 0
    refused: int = 0
    unnoted: int = 0
    behind_bytes: int = 0
    connected: bool = False  # the file can be read
    last_heard_ns: int = 0  # wall time of the last event, 0: none yet


class Note(msgspec.Struct, frozen=True):
    """Where reading goes on. With `token`: what lies before `until` is being handed over under it."""

    place: Place
    until: int = 0
    token: str = ""
    known: Knowledge = Knowledge()  # of the lines before the place


@dataclass(frozen=True, slots=True)
class Gathered:
    events: list[bytes]  # payloads of entries
    token: str
    at_end: bool


class LogFile:
    """`run` until cancelled. The place is kept in `folder`, in a file of the source's name."""

    def __init__(self, options: MosquittoLog, folder: Path, outlet: Outlet, clock: Clock, totals: FileTotals) -> None:
        self.name = options.name
        self.totals = totals
        self._path, self._outlet, self._clock = options.path, outlet, clock
        self._note_path = folder / f"{options.name}.json"
        self._lines = Lines(totals)
        self._gaps = 0
        self._tally = Tally()
        self._follower: Follower | None = None
        self._noted_place: Place | None = None  # by this daemon
        self._again: Note | None = None  # what a daemon before us may have handed over, or not
        self._why = "not opened yet"

    async def run(self) -> None:
        """Never returns and never raises but CancelledError; then what was read is stored, if the log answers soon."""
        try:
            while True:
                if await _whole(self._turn()):
                    await sleep(self._clock, FLUSH_S)
        finally:
            if self._follower is not None:
                self._follower.close()

    def status(self) -> dict[str, Any]:
        """For `/-/status`."""
        return {"path": str(self._path), "why": self._why, "behind_bytes": self.totals.behind_bytes}

    async def _turn(self) -> bool:
        """Read what there is, or a good part of it, and store it. True: wait for more."""
        try:
            gathered = await asyncio.to_thread(self._gather)
        except OSError as problem:
            self._tell(problem.strerror or str(problem))
            return True
        except Exception:  # isolation boundary: one file's bug is not the daemon's end
            log.exception("source.failed", source=self.name)
            return True
        self._tell("")
        if gathered.events:
            self.totals.last_heard_ns = self._clock.now_ns()
            await self._outlet.hand_over(gathered.events, gathered.token)
            await asyncio.to_thread(self._note, Note(self._reader().place, known=self._lines.known))
        return gathered.at_end

    # ---- in a thread ----

    def _gather(self) -> Gathered:
        """Lines of one file, up to a bound, as events; they are noted. Raises OSError."""
        follower = self._reader()
        start = follower.prepare()
        self._mind_gaps()
        known = self._lines.known
        again, self._again = self._again, None
        has_again = again is not None and again.place == start
        most = again.until - start.offset if again is not None and has_again else GATHER_BYTES
        token = again.token if again is not None and has_again else token_hex(8)
        at_end = self._read(follower, start, most)
        self.totals.behind_bytes = follower.behind_bytes()
        events = list(payloads(self._tally.taken()))
        if events:
            self._note(Note(start, follower.place.offset, token, known))
        elif follower.place != self._noted_place:
            self._note(Note(follower.place, known=self._lines.known))
        return Gathered(events, token, at_end)

    def _read(self, follower: Follower, start: Place, most: int) -> bool:
        """Into the tally, until `most` bytes are read, or the file ends, or the tally is full. True: no more now."""
        while not self._tally.is_full:
            here = follower.place
            left = most - (here.offset - start.offset)
            if here.inode != start.inode or left <= 0:
                return False
            piece = follower.read(min(PIECE_BYTES, left))
            if piece.at_end:
                return True
            self._lines.take(piece.lines, self._clock.now_ns(), self._tally)
        return False

    def _mind_gaps(self) -> None:
        totals = self.totals
        gaps = totals.lost + totals.rewritten + totals.skipped_bytes
        if gaps != self._gaps:
            self._lines.missed()
        self._gaps = gaps

    def _reader(self) -> Follower:
        if self._follower is None:
            note = self._noted()
            self._again = note if note is not None and note.token else None
            if note is not None:
                self._lines = Lines(self.totals, note.known)
            self._follower = Follower(self._path, note.place if note is not None else None, self.totals)
        return self._follower

    def _noted(self) -> Note | None:
        try:
            return msgspec.json.decode(self._note_path.read_bytes(), type=Note)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as problem:
            self.totals.lost += 1
            log.warning("source.place_lost", source=self.name, file=str(self._note_path), why=str(problem))
            return None

    def _note(self, note: Note) -> None:
        self._noted_place = note.place
        try:
            self._note_path.parent.mkdir(parents=True, exist_ok=True)
            write(self._note_path, msgspec.json.encode(note), PRIVATE)
        except OSError as problem:  # a full disk: what is read goes on, and may be read again after a crash
            self.totals.unnoted += 1
            tell = log.warning if self.totals.unnoted == 1 else log.debug
            tell("source.place_not_noted", source=self.name, why=str(problem))

    def _tell(self, why: str) -> None:
        """Once when it starts to fail, once when it works."""
        if why == self._why:
            return
        self._why, self.totals.connected = why, not why
        if why:
            log.warning("source.unreadable", source=self.name, file=str(self._path), why=why)
        else:
            log.info("source.reading", source=self.name, file=str(self._path))


async def _whole(work: Coroutine[Any, Any, bool]) -> bool:
    """Done as a whole, also when we are cancelled, if it takes no longer than LAST_WORD_S from then."""
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing}, timeout=LAST_WORD_S)
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        raise
