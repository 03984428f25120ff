"""Runs the benches that are asked for, one after the other, and says on what machine."""

import argparse
import ast
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
NAMES: Final = (
    "throughput",
    "cpu",
    "handle",
    "latency",
    "memory",
    "restart",
    "log",
    "history",
    "api",
    "events",
    "sensor",
    "brokers",
)
LIMIT_S: Final = 600


def main() -> int:
    options = _options()
    load = os.getloadavg()[0]
    print(f"# {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}")
    if load > 0.5 * (os.cpu_count() or 1):
        print("# the machine is busy with something else: wall-clock numbers are low, CPU per report is what holds")
    failed = [name for name in options.names or NAMES if not _run(name, options.quick)]
    if failed:
        print(f"did not finish: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _options() -> argparse.Namespace:
    listed = "\n".join(f"  {name:<12}{_title(name)}" for name in NAMES)
    parser = argparse.ArgumentParser(
        "scripts/bench", description=f"{__doc__}\n\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *NAMES], help="all of them by default")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round: to see that it works")
    return parser.parse_args()


def _title(name: str) -> str:
    return (ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or "").splitlines()[0]


def _run(name: str, quick: bool) -> bool:
    """In a process of its own: what one bench leaves in memory must not weigh on the next."""
    print(f"\n## {name}: {_title(name)}", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *["--quick"] * quick], timeout=LIMIT_S, check=False
    )
    print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
