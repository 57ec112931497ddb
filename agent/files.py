"""Files of reports: each is replaced at once or not at all, and what went wrong is said with what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder, which takes the place of ``path`` once it is complete."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with explained(path):
            temporary.write_bytes(content)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say which file could not be written, and what to do."""
    advice = {
        errno.ENOSPC: "Free some space on this disk, or write to a folder on another.",
        errno.EDQUOT: "Your disk quota is used up: free some space, or write to a folder on another disk.",
        errno.EACCES: "Choose a folder that you may write to, or change its permissions.",
        errno.EPERM: "Choose a folder that you may write to, or change its permissions.",
        errno.EROFS: "This disk is read-only; choose a folder on another.",
        errno.EEXIST: "There is a file of this name; choose another folder.",
        errno.ENOTDIR: "A part of this path is a file; choose another folder.",
        errno.EISDIR: "There is a folder of this name; move it away, or choose another folder.",
    }
    try:
        yield
    except OSError as error:
        code = error.errno or errno.EIO
        fix = advice.get(code, "Check the disk, or choose another folder.")
        raise OSError(code, f"Could not write {path}: {error.strerror or error}. {fix}") from error
