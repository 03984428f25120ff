"""A file written at once and whole: whoever reads it has the old content or the new, also after a power cut."""

import os
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""For the owner only."""
SHARED: Final = 0o666
"""As the umask has it."""


def write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in the place of what there is, written and synced beside it. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
