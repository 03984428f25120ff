"""A followed file against a plain model: all that is written is read, in order, once, whatever happens to the file."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.brokers._follow import Follower, Place
from daemon.brokers._log_file import FileTotals

WRITE, HALF, ROTATE, EMPTY, READ, RESTART = "write", "half", "rotate", "empty", "read", "restart"


@dataclass
class World:
    """A writer that is rotated as logrotate does it, and a reader that may be started anew at any moment."""

    folder: Path
    written: list[bytes] = field(default_factory=list)
    read: list[bytes] = field(default_factory=list)
    totals: FileTotals = field(default_factory=FileTotals)
    half: bytes = b""
    tick: int = 0

    def __post_init__(self) -> None:
        self.path = self.folder / "a.log"
        self.path.touch()
        self.out = self.path.open("ab", buffering=0)
        self.reader = Follower(self.path, None, self.totals)
        self.place: Place = self.reader.prepare()

    def do(self, step: str) -> None:
        match step:
            case "write":
                self.put(b"\n")
            case "half":
                self.put(b"")
            case "rotate" | "empty":
                self.rotate(leave_empty=step == EMPTY)
            case "read":
                self.take(400)
            case _:
                self.reader.close()
                self.reader = Follower(self.path, self.place, self.totals)

    def put(self, end: bytes) -> None:
        self.tick += 1
        piece = b"line %d " % self.tick
        self.out.write(piece + end)
        self.half += piece
        if end:
            self.written.append(self.half)
            self.half = b""

    def rotate(self, *, leave_empty: bool) -> None:
        """Names move on by one; the writer goes on in the new file, which may have been made before it wrote there."""
        if self.half:
            self.put(b"\n")
        for number in range(9, 0, -1):
            if (self.folder / f"a.log.{number}").exists():
                (self.folder / f"a.log.{number}").rename(self.folder / f"a.log.{number + 1}")
        self.tick += 1
        os.utime(self.path, ns=(self.tick * 10**9, self.tick * 10**9))  # faster than the file system's clock
        self.path.rename(self.folder / "a.log.1")
        self.path.touch()
        self.out.close()
        self.out = self.path.open("ab", buffering=0)
        if not leave_empty:
            self.put(b"\n")

    def take(self, bytes_max: int) -> bool:
        """One piece, noted as a source does it. True: there was no more."""
        self.reader.prepare()
        piece = self.reader.read(bytes_max)
        self.read += piece.lines
        self.place = self.reader.place
        return piece.at_end

    def close(self) -> None:
        self.out.close()
        self.reader.close()


STEPS = st.lists(st.sampled_from([WRITE, WRITE, HALF, ROTATE, EMPTY, READ, READ, RESTART]), max_size=40).filter(
    lambda steps: steps.count(ROTATE) + steps.count(EMPTY) <= 9
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_every_line_is_read_once_and_in_order(steps: list[str]) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for step in steps:
            world.do(step)
        if world.half:
            world.put(b"\n")
        world.put(b"\n")  # what is empty is not yet the writer's
        for _ in range(500):
            world.take(400)
        world.close()
        assert world.read == world.written
        assert (world.totals.lost, world.totals.rewritten, world.totals.skipped_bytes) == (0, 0, 0)
