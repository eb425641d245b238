"""Reading files that others wrote: a folder, a pipe or a device in a file's place is refused and never waited for."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """The file, to be read. Raises OSError, too, for what is no regular file."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe's reader waits for a writer otherwise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return open(number, "rb", buffering=1 << 16)


def read(path: str | os.PathLike, *, most: int = 64 << 20) -> bytes:
    """All of a file. Raises OSError, too, for one of more than `most` bytes."""
    content = bytearray()  # by pieces: `file.read(most)` would ask for so much memory at once
    with open_regular(path) as file:
        while len(content) <= most and (part := file.read(1 << 20)):
            content += part
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most >> 20} MB", str(path))
    return bytes(content)


def lines(path: str | os.PathLike, *, most: int = 64 << 20) -> list[str]:
    """Its lines as text, what is not UTF-8 replaced; none where the file cannot be read."""
    try:
        return read(Path(path), most=most).decode(errors="replace").splitlines()
    except OSError:
        return []
