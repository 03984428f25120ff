"""What holds for every test: kernels are compiled once per version of their sources, as in the daemon."""

from pathlib import Path

from daemon import kernel_cache

# Before any test imports a kernel.
kernel_cache.prepare(lambda: Path(".pytest_cache"))
