"""Locks that the kernel lets go of when their holder dies, however it dies (flock; on NFS from version 4 on)."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

# Somebody who merely looks (`is_free`) holds a lock for some microseconds: a refusal is believed after some looks.
_WAITS = (0.001, 0.005, 0.02)
_LOOK_SECONDS = 0.2


class Lock:
    """An exclusive lock on a file. It is held until `release`, the end of its `with`, or the process's end."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    @classmethod
    def take(cls, file: Path, *, patience: float = 0.0) -> "Lock | None":
        """The lock, or None when somebody else holds it, and still does after `patience` seconds."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            for wait in (*_WAITS, *[_LOOK_SECONDS] * round(patience / _LOOK_SECONDS), None):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return cls(descriptor)
                except BlockingIOError:
                    if wait is not None:
                        time.sleep(wait)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @classmethod
    def wait(cls, file: Path, *, told: Callable[[], None]) -> "Lock":
        """The lock, once whoever holds it lets go of it; `told` is called once if that takes a while."""
        lock = cls.take(file)
        if lock is None:
            told()
        while lock is None:
            time.sleep(_LOOK_SECONDS)
            lock = cls.take(file)
        return lock

    def release(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


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
