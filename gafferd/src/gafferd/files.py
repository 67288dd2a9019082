"""Writing small files so that a crash leaves the old content or the new."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes, *, sync: bool) -> None:
    """Put `content` into the file, mode 0600; one writer at a time. `sync`: also for when the host goes down.

    Raises OSError, and leaves the old content then.
    """
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if sync:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
