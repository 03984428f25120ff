"""Where compiled kernels are kept, so that a start need not compile and an upgrade never runs old ones.

numba looks at the file of the outermost kernel only: after a change of a helper in another file it would go on
running the old one. So the place is named after all sources that kernels are made of. Must run before anything imports
numba, which reads the place once.
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import actors
import daemon

PLACE: Final = "NUMBA_CACHE_DIR"
CONSTANTS: Final = "messages.py"  # kernels freeze its constants


def prepare(data_dir: Callable[[], Path]) -> None:
    """Choose the place: beside the sources, or in the data directory where those can't be written to.

    An operator's own choice (the environment variable) stands. `data_dir` is asked for only where it is needed.
    """
    if PLACE not in os.environ:
        os.environ[PLACE] = str(_writable(data_dir) / f"kernels-{_digest()}")


def _writable(data_dir: Callable[[], Path]) -> Path:
    beside = Path(actors.__file__).parent
    if os.access(beside, os.W_OK):
        return beside / "__pycache__"
    wanted = data_dir().absolute()
    parent = next(one for one in (wanted, *wanted.parents) if one.exists())
    # Compiled code is loaded from there: never a directory whose name somebody else could have guessed.
    return wanted if os.access(parent, os.W_OK) else Path(mkdtemp(prefix="detectd-"))


def _digest() -> str:
    found = blake2b(digest_size=8)
    for package in (actors, daemon):
        for path in sorted(Path(package.__file__ or "").parent.rglob("*.py")):
            source = path.read_bytes()
            if b"njit" in source or path.name == CONSTANTS:
                found.update(source)
    return found.hexdigest()
