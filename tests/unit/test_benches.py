"""Every benchmark can be loaded by itself, as `scripts/bench` runs it."""

import subprocess
import sys
from pathlib import Path

BENCHES = Path(__file__).resolve().parents[2] / "scripts" / "benches"

LOAD = """
import importlib, sys
before, known = list(sys.path), set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
    sys.path[:] = before
    for own in ("machine", *sys.argv[1:], "log_server"):
        sys.modules.pop(own, None)
"""


def test_each_finds_what_it_imports() -> None:
    names = sorted(path.stem for path in BENCHES.glob("*.py"))
    assert {"throughput", "cpu", "latency", "log"} <= set(names)
    command = [sys.executable, "-c", LOAD, *names]
    done = subprocess.run(command, cwd=BENCHES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
