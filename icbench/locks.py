"""Locks that the kernel lets go of when their holder dies, however it dies (flock; on NFS from version 4 on)."""

import fcntl
import os
from pathlib import Path


class Lock:
    """An exclusive lock on a file. It is held until `release`, or until the process ends."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    @classmethod
    def take(cls, file: Path) -> "Lock | None":
        """The lock, or None when somebody else holds it."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


def is_free(file: Path) -> bool:
    """Whether nobody holds the lock on `file`. Asks by a shared lock, which is let go of at once."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
