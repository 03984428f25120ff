"""What the writer has sent, handed to the reader as soon as the log has it: the server need not send it back.

Almost all entries of an embedded log are our own, and the server's acknowledgements say where they are. So while
nobody else writes, the reader takes its entries from here: each one that is acknowledged as the next one. Whatever
does not fit (a stranger's entry in between, a refusal, a lost connection, a reader that falls behind) breaks the echo:
all that is held is dropped, the reader goes to the log, which has everything, and later another try is made.

Positions come from the server alone. Times are ours, and stand in the entry itself (`Detectd-Time`): whoever reads the
log later finds the same ones. Strangers' reports are heard of at once (a subscription that leaves out what this very
connection publishes, and ends with its first message); other strangers' entries with the next acknowledgement.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from actors.messages import I8, Frames
from daemon.log.frames import STRANGE_SID
from daemon.log.parcel import WINDOW_BITS, Parcel
from daemon.log.sheet import S_SEQ, Run

HELD_MAX: Final = 32 * 1024 * 1024  # bytes; more than a reader that keeps up ever leaves here
PAUSE_S: Final = (1.0, 16.0)  # before another try; longer after tries that came to nothing
WORTH: Final = 4  # a try that lasted so many of its pauses came to something


class Line(Protocol):
    """The writer's connection."""

    def write(self, data: bytes) -> None: ...


@dataclass(slots=True)
class _Sent(Run):
    """Not acknowledged yet; `number` is the first one's."""

    number: int


class Echo:
    """Of one writer, for one reader. `taken` counts entries, `breaks` what ended a time of taking them from here.

    `subjects`: on which strangers' entries matter at once. `now_ns` is the clock of all entries' times.
    """

    def __init__(self, now_ns: Callable[[], int], subjects: tuple[str, ...] = (), held_max: int = HELD_MAX) -> None:
        self.taken = 0
        self.breaks = 0
        self.now_ns = now_ns
        self._subjects, self._held_max = subjects, held_max
        self._line: Line | None = None
        self._pause_s = PAUSE_S[0]
        self._began_s = 0.0
        self._open = False  # entries are kept
        self._next_seq = 0  # 0: none was acknowledged yet
        self._sent: deque[_Sent] = deque()
        self._known: set[int] = set()  # their windows
        self._ready: deque[Run] = deque()
        self._held = 0
        self._news = asyncio.Event()

    # The writer's side

    def connected(self, line: Line) -> None:
        self._line = line
        self._begin()

    def lost(self) -> None:
        """The connection is gone; what was sent over it may be in the log, or not."""
        self._line = None
        self._break()

    def sent(self, parcel: Parcel) -> None:
        """Its entries are on their way. Of a parcel that is sent again nobody knows what comes first."""
        if parcel.was_sent or self._held + parcel.end - parcel.start > self._held_max:
            self._break()
        elif self._open:
            self._held += parcel.end - parcel.start
            self._sent.append(_Sent(parcel.sheet, parcel.first, parcel.last, parcel.number))
            self._known.add(parcel.number >> WINDOW_BITS)

    def stored(self, numbers: I8, seqs: I8, *, doubled: bool) -> None:
        """Acknowledgements, in the order of their coming. `doubled`: some are of entries that the log had before.

        Those are not what we sent: they stand where they stood, with the time of the first time.
        """
        if doubled:
            self._break()
        done = 0
        while self._open and self._sent and done < len(numbers):
            run = self._sent[0]
            if int(numbers[done]) >> WINDOW_BITS not in self._known:
                done += 1  # was sent before we began; should it stand between ours, the positions tell
                continue
            count = min(len(run), len(numbers) - done)
            steps, part = np.arange(count), slice(done, done + count)
            seq = self._next_seq or int(seqs[done])
            if (numbers[part] != run.number + steps).any() or (seqs[part] != seq + steps).any():
                self._break()
                return
            self._next_seq = seq + count
            self._acknowledge(run, seqs[part])
            done += count

    def strange(self) -> None:
        """Somebody else has published to the log."""
        self._break()

    # The reader's side

    def has(self, first: int) -> bool:
        """Whether all from position `first` on is here, or will be. What lies before it is dropped."""
        while self._ready and self._ready[0].seq < first:
            self._cut(first - self._ready[0].seq)
        if not self._open or not self._next_seq:
            return False
        return (self._ready[0].seq if self._ready else self._next_seq) == first

    async def take(self, first: int, most: int) -> Frames | None:
        """The entries from position `first` on, up to `most`, once there are any; None: go to the log for them."""
        while self.has(first):
            if self._ready:
                frames = self._cut(most)
                self.taken += len(frames)
                return frames
            self._news.clear()
            await self._news.wait()
        return None

    async def rest(self, _rest_s: float) -> None:
        """Not needed: who writes in many small pieces paces itself (daemon/sensor/intake.py)."""

    def close(self) -> None:
        """The reader goes to the log, which has all that is here; it may be back."""

    # Within

    def _cut(self, most: int) -> Frames:
        run = self._ready[0]
        first = run.first
        frames = run.cut(most)
        self._held -= run.sheet.extent(first, run.first)
        if not run:
            self._ready.popleft()
        return frames

    def _acknowledge(self, run: _Sent, seqs: I8) -> None:
        """The first ones of a run that was sent have these positions."""
        first, last = run.first, run.first + len(seqs)
        run.sheet.longs[S_SEQ, first:last] = seqs
        tail = self._ready[-1] if self._ready else None
        if tail is not None and tail.sheet is run.sheet and tail.last == first:
            tail.last = last
        else:
            self._ready.append(Run(run.sheet, first, last))
        self._news.set()
        run.first, run.number = last, run.number + len(seqs)
        if not run:
            self._known.discard((run.number - 1) >> WINDOW_BITS)
            self._sent.popleft()

    def _begin(self) -> None:
        if self._line is None or self._open:
            return
        self._open = True
        self._began_s = asyncio.get_running_loop().time()
        for sid, subject in enumerate(self._subjects, STRANGE_SID):
            self._line.write(f"SUB {subject} {sid}\r\nUNSUB {sid} 1\r\n".encode())

    def _break(self) -> None:
        if not self._open:
            return
        self._open = False
        self.breaks += bool(self._next_seq)
        self._next_seq = self._held = 0
        self._sent.clear()
        self._known.clear()
        self._ready.clear()
        self._news.set()
        if self._line is not None:
            ends = [f"UNSUB {sid}\r\n" for sid, _ in enumerate(self._subjects, STRANGE_SID)]
            self._line.write("".join(ends).encode())
            loop = asyncio.get_running_loop()
            lasted_s = loop.time() - self._began_s
            self._pause_s = PAUSE_S[0] if lasted_s > WORTH * self._pause_s else min(2 * self._pause_s, PAUSE_S[1])
            loop.call_later(self._pause_s, self._begin)
