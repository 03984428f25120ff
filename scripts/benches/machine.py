"""What processes cost, and how a bench says it: CPU and memory from /proc, medians, lines with a target beside them."""

import argparse
import os
import resource
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
PAGE: Final = resource.getpagesize()


def cpu_s(*pids: int) -> float:
    """CPU seconds that these processes and their ended children have used; to 10 ms."""
    return sum(sum(int(ticks) for ticks in _stat(pid)[11:15]) * TICK_S for pid in pids)


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _stat(pid: int) -> list[str]:
    # The second field is the program's name in brackets, and may hold spaces and brackets itself.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def line(what: str, value: str, ratio: str = "", target: str = "", *, met: bool | None = None) -> None:
    """One line of a bench's table. `met`: whether the target is."""
    verdict = {True: "ok", False: "MISSED", None: ""}[met]
    print(f"  {what:<44} {value:>34}  {ratio:>12}  {target:<16} {verdict}".rstrip(), flush=True)


def note(text: str) -> None:
    print(f"  {text}", flush=True)


def is_quick() -> bool:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    return bool(parser.parse_args().quick)
