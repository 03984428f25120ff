"""Where compiled kernels are kept: beside their sources, or in the data directory when those can't be written to.

Must run before anything imports numba, which reads the place once.
"""

import os
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import actors

PLACE: Final = "NUMBA_CACHE_DIR"


def prepare(data_dir: Path) -> None:
    """Choose the place; an operator's own choice (the environment variable) stands."""
    sources = Path(actors.__file__).parent
    if PLACE in os.environ or os.access(sources, os.W_OK):
        return
    kernels = data_dir.absolute() / "kernels"
    parent = next(one for one in kernels.parents if one.exists())
    # Compiled code is loaded from there: never a directory whose name somebody else could have guessed.
    os.environ[PLACE] = str(kernels) if os.access(parent, os.W_OK) else mkdtemp(prefix="detectd-kernels-")
