"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write beside the place and move there, so that a kill at any moment leaves the old file or the new one; text is UTF-8.

    Raises OSError where that can't be done; nothing is left beside the place.
    """
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with open(part, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it takes the place of what is
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
